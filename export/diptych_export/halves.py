"""A float32 graph in, the same graph in 16 bits out; inputs and outputs keep their types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array: TypeAlias = npt.NDArray[np.generic]

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_LARGEST_HALF = float(np.finfo(np.float16).max)

# Products, and what is done to their results number by number.
_HALVED = {"MatMul", "Gemm", "Conv", "Add", "Mul", "Gelu", "Relu", "Sigmoid", "Tanh", "Erf"}
# These move numbers about, in whatever type they come.
_MOVING = {
    "AveragePool",
    "Concat",
    "Expand",
    "Gather",
    "GatherND",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Products and their weights in float16; norms, softmax, means and pixels in float32.

    What makes an output stays in float32 too: the last projection, and the sums that are hidden
    states. A sum beyond 65,504 becomes infinite, and the vector no number: the gate sees it.
    """
    return _Halver(model).halved()


def to_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Matrices stored in bfloat16 and widened where they are used; sums stay in float32.

    Engines that multiply in bfloat16 narrow them again without loss, the others multiply the same
    weights in float32.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    casts = []
    for weights in made.graph.initializer:
        if weights.data_type == _FLOAT and len(weights.dims) > 1:
            stored = f"{weights.name}_bf16"
            casts.append(helper.make_node("Cast", [stored], [weights.name], stored, to=_FLOAT))
            values = numpy_helper.to_array(weights)
            weights.CopyFrom(_bfloat16(values, stored))
    _replace_nodes(made, [*casts, *model.graph.node])
    return made


class _Halver:
    """One pass over the nodes in their order; a cast is made once for each value and type."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._weights = {
            weights.name: weights
            for weights in model.graph.initializer
            if weights.data_type == _FLOAT
        }
        self._outputs = {value.name for value in model.graph.output}
        self._floats = {value.name for value in _values(model) if _kind(value) == _FLOAT}
        self._halves: set[str] = set()  # values that are computed in float16
        self._used: dict[tuple[str, int], None] = {}  # weights, and the types they are needed in
        self._nodes: list[onnx.NodeProto] = []
        self._casts: dict[tuple[str, int], str] = {}

    def halved(self) -> onnx.ModelProto:
        for node in self._model.graph.node:
            self._add(node)
        made = onnx.ModelProto()
        made.CopyFrom(self._model)
        _replace_nodes(made, self._nodes)
        kept = [own for own in made.graph.initializer if own.name not in self._weights]
        stored = [self._stored(name, kind) for name, kind in self._used]
        del made.graph.initializer[:]
        made.graph.initializer.extend([*kept, *stored])
        for value in made.graph.value_info:
            if value.name in self._halves:
                value.type.tensor_type.elem_type = _HALF
        return made

    def _add(self, node: onnx.NodeProto) -> None:
        kind = _HALF if self._is_halved(node) else _FLOAT
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[:] = [self._as(name, kind) for name in node.input]
        self._nodes.append(made)
        if kind == _HALF:
            self._halves |= self._floats & set(node.output)

    def _is_halved(self, node: onnx.NodeProto) -> bool:
        if self._outputs & set(node.output):
            return False
        if node.op_type in _HALVED:
            return bool(self._floats & set(node.output))
        if node.op_type not in _MOVING:
            return False
        moved = {name for name in node.input if name in self._floats}
        computed = moved - self._weights.keys()
        return bool(moved) and computed <= self._halves

    def _as(self, name: str, kind: int) -> str:
        """`name` in the type wanted, cast if need be; what is no float stays as it is."""
        if name in self._weights:
            self._used[name, kind] = None
            return _stored_name(name, kind)
        if name not in self._floats or (name in self._halves) == (kind == _HALF):
            return name
        if (name, kind) not in self._casts:
            cast = f"{name}_{'half' if kind == _HALF else 'float'}"
            self._nodes.append(helper.make_node("Cast", [name], [cast], cast, to=kind))
            self._casts[name, kind] = cast
        return self._casts[name, kind]

    def _stored(self, name: str, kind: int) -> onnx.TensorProto:
        if kind == _FLOAT:
            return self._weights[name]
        values = numpy_helper.to_array(self._weights[name])
        finite = np.clip(values, -_LARGEST_HALF, _LARGEST_HALF)  # masks are the least float32
        halves = np.where(np.isinf(values), values, finite).astype(np.float16)
        return numpy_helper.from_array(halves, _stored_name(name, kind))


def _stored_name(name: str, kind: int) -> str:
    return f"{name}_fp16" if kind == _HALF else name


def _values(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    yield from model.graph.value_info
    yield from model.graph.input
    yield from model.graph.output
    for weights in model.graph.initializer:
        yield helper.make_tensor_value_info(weights.name, weights.data_type, weights.dims)


def _kind(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type


def _bfloat16(values: Array, name: str) -> onnx.TensorProto:
    """Rounded to the nearest, ties to even."""
    narrow = values.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    return numpy_helper.from_array(narrow, name)


def _replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
