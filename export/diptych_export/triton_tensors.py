"""A graph in, what Triton and TensorRT must know of its tensors out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import onnx
from tritonclient.grpc import model_config_pb2 as pb

from diptych.contract import ModelSpec

# Name -> element type and shape without the batch; -1 is any length.
Tensors: TypeAlias = Mapping[str, tuple[int, list[int]]]
Shape: TypeAlias = tuple[int, ...]

_USUAL_BATCH, _USUAL_TOKENS = 32, 24  # what TensorRT is fastest at; captions have 8 to 25

_KINDS: dict[int, int] = {  # ONNX's element types to Triton's
    onnx.TensorProto.UINT8: pb.TYPE_UINT8,
    onnx.TensorProto.INT64: pb.TYPE_INT64,
    onnx.TensorProto.FLOAT: pb.TYPE_FP32,
}


def tensors(path: Path) -> tuple[Tensors, Tensors]:
    """Inputs and outputs as the graph has them; Triton refuses a -1 where that has a number."""
    graph = onnx.load(path, load_external_data=False).graph
    return _described(graph.input), _described(graph.output)


def shapes(spec: ModelSpec, inputs: Tensors, max_batch: int) -> dict[str, dict[str, Shape]]:
    """Of every input, batch included: the least, the most usual and the largest TensorRT is to run.

    Keys are "min", "opt" and "max". One engine for all of them: each further one would cost
    minutes to build.
    """
    length = spec.text.context_length
    sizes = {
        "min": (1, 1),
        "opt": (min(_USUAL_BATCH, max_batch), min(_USUAL_TOKENS, length)),
        "max": (max_batch, length),
    }
    return {
        name: {
            tensor: (batch, *(tokens if dim == -1 else dim for dim in dims))
            for tensor, (_, dims) in inputs.items()
        }
        for name, (batch, tokens) in sizes.items()
    }


def _described(values: Iterable[onnx.ValueInfoProto]) -> Tensors:
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        found[value.name] = _KINDS[tensor.elem_type], dims[1:]
    return found
