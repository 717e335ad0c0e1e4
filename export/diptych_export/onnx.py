"""A tower in, one ONNX file out: plain operators only, dynamic batch and length."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnxscript import optimizer
from torch import Tensor
from torch.export import Dim

from diptych.contract import ImageSpec, TextSpec
from diptych.engines.base import MASK, PIXELS, TOKENS
from diptych_export import attention
from diptych_export.graph import ImageTower, TextTower

# Below 18 the dynamo exporter writes nothing; 20 is the newest that TensorRT 10 and the ONNX
# Runtime of Triton 24.09 and later read.
OLDEST_OPSET, OPSET = 18, 20
MAX_IR = 10
LARGEST_BYTES = 2_000_000_000  # of weights in one file; a protobuf ends at 2 GiB

_ROWS = 3  # of the example; 0 and 1 would be taken for constants
_SMALL_BYTES = 1024  # such weights stay inside: shapes and axes are looked at before any data is


def write_image_graph(
    tower: ImageTower, spec: ImageSpec, path: Path, *, opset: int = OPSET
) -> None:
    """Write the image tower with a dynamic batch to `path`."""
    example = torch.zeros((_ROWS, spec.size, spec.size, 3), dtype=torch.uint8)
    _write(tower, {PIXELS: example}, {0: Dim("batch")}, path, opset)


def write_text_graph(tower: TextTower, spec: TextSpec, path: Path, *, opset: int = OPSET) -> None:
    """Write the text tower with a dynamic batch, and a dynamic length where it allows one."""
    length = (
        spec.context_length if spec.padding == "max_length" else max(2, spec.context_length // 2)
    )
    example = {TOKENS: torch.full((_ROWS, length), spec.end_id, dtype=torch.int64)}
    if spec.attention_mask:
        example[MASK] = torch.ones_like(example[TOKENS])
    dynamic = {0: Dim("batch")}
    if spec.padding == "longest":
        dynamic[1] = Dim("length", max=spec.context_length)
    _write(tower, example, dynamic, path, opset)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check and write; weights above `LARGEST_BYTES` go into one file beside, `NAME.data`.

    `model` is not to be used afterwards: its weights may have moved into that file.
    """
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)  # else it would be written on at its end
    if sum(map(_weight_bytes, model.graph.initializer)) > LARGEST_BYTES:
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=data.name,
            size_threshold=_SMALL_BYTES,
        )
    else:
        onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)


def _write(
    tower: ImageTower | TextTower,
    example: Mapping[str, Tensor],
    dynamic: Mapping[int, Dim],
    path: Path,
    opset: int,
) -> None:
    """Inputs in the order of `tower.forward`; the same dimensions of all are `dynamic`."""
    with _quiet():
        program = torch.onnx.export(
            tower.eval(),
            tuple(example.values()),
            dynamo=True,
            dynamic_shapes=tuple(dict(dynamic) for _ in example),
            input_names=list(example),
            output_names=list(tower.outputs),
            opset_version=opset,
            custom_translation_table=attention.translation(),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    # Weights that were used twice are turned only now that the exporter has made one of the uses.
    optimizer.fold_constants(program.model)
    model = program.model_proto
    _strip(model)
    assert model.ir_version <= MAX_IR
    assert [o.version for o in model.opset_import if not o.domain] == [opset]
    save(model, path)


def _weight_bytes(weights: onnx.TensorProto) -> int:
    return (
        math.prod(weights.dims) * onnx.helper.tensor_dtype_to_np_dtype(weights.data_type).itemsize
    )


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces: a tenth of a small file, and paths of whoever exported it."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for weights in model.graph.initializer:
        del weights.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter says that torchvision is not installed, and uses what torch deprecated.

    It warns as well that inputs share their dimensions, which is what they are to do.
    """
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
