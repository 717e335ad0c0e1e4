"""A tower in, one ONNX file out: plain operators only, dynamic batch and length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor
from torch.export import Dim

from diptych.contract import ImageSpec, TextSpec
from diptych.engines.base import MASK, PIXELS, TOKENS
from diptych_export.graph import ImageTower, TextTower

OPSET = 20  # the newest that TensorRT 10 and the ONNX Runtime of Triton 24.09 and later read
MAX_IR = 10

_ROWS = 3  # of the example; 0 and 1 would be taken for constants


def write_image_graph(tower: ImageTower, spec: ImageSpec, path: Path) -> None:
    """Write the image tower with a dynamic batch to `path`."""
    example = torch.zeros((_ROWS, spec.size, spec.size, 3), dtype=torch.uint8)
    _write(tower, {PIXELS: example}, {0: Dim("batch")}, path)


def write_text_graph(tower: TextTower, spec: TextSpec, path: Path) -> None:
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
    _write(tower, example, dynamic, path)


def _write(
    tower: ImageTower | TextTower,
    example: Mapping[str, Tensor],
    dynamic: Mapping[int, Dim],
    path: Path,
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
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= MAX_IR
    onnx.save(model, path)


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
