"""A float32 graph and calibration inputs in, the same graph with products of bytes out.

Written as QuantizeLinear and DequantizeLinear around each product, which ONNX Runtime, OpenVINO
and TensorRT turn into integer arithmetic: activations in uint8 between the extremes seen, one
scale for the whole value; weights in int8, symmetric, one scale for each output channel. The
scheme is that of onnxruntime.quantization; sums, norms and outputs stay in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from diptych_export.onnx import save

Array: TypeAlias = npt.NDArray[Any]
Feed: TypeAlias = Mapping[str, Array]  # the inputs of one run
Range: TypeAlias = tuple[float, float]

KEPT = "diptych.products_in_float32"  # of a graph's metadata: their names

_ROUNDS = 4  # an eighth of the products each; beyond half, the model is not for int8


@dataclass(frozen=True, slots=True)
class Measured:
    """What calibration found out about one graph."""

    ranges: dict[str, Range]  # of the values that products read
    worst: list[str]  # names of products, those with the largest error of their own first


class Quantizer:
    """Makes int8 graphs of one float graph, with fewer and fewer of its products in int8."""

    def __init__(
        self, model: onnx.ModelProto, calibration: Sequence[Feed], trials: Sequence[Feed]
    ) -> None:
        """Ranges come from `calibration`, the order of what is given back from `trials`."""
        self._model = model
        self._measured = measure(model, calibration, trials)
        self.products = len(self._measured.worst)
        self.kept = 0  # of them in float32
        self._round = 0

    def give_back(self) -> bool:
        """Return the worst eighth to float32; False if half of them are already."""
        self._round += 1
        self.kept = -(-self.products * self._round // (2 * _ROUNDS))
        return self._round <= _ROUNDS

    def write(self, path: Path) -> None:
        """The graph as it now is; the names of what was given back stand in its metadata."""
        kept = self._measured.worst[: self.kept]
        made = quantized(self._model, self._measured.ranges, self._measured.worst[self.kept :])
        if kept:
            helper.set_model_props(made, {KEPT: ",".join(kept)})
        save(made, path)


def products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Every MatMul, Gemm and Conv with constant weights, in their order."""
    shapes = {weights.name: len(weights.dims) for weights in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if (node.op_type == "Conv" and shapes.get(node.input[1], 0) > 2)
        or (node.op_type in ("MatMul", "Gemm") and shapes.get(node.input[1]) == 2)
    ]


def measure(
    model: onnx.ModelProto, calibration: Sequence[Feed], trials: Sequence[Feed]
) -> Measured:
    """Run the float graph on `calibration` for the ranges, on `trials` for the errors."""
    ranges = _ranges(model, calibration)
    errors = _own_errors(model, ranges, trials)
    return Measured(ranges, sorted(errors, key=lambda name: -errors[name]))


def quantized(
    model: onnx.ModelProto, ranges: Mapping[str, Range], names: Iterable[str]
) -> onnx.ModelProto:
    """`model` with the products of these `names` in int8."""
    maker, chosen = _Maker(model, ranges), set(names)
    nodes = []
    for node in model.graph.node:
        nodes += maker.in_int8(node) if node.name in chosen else [node]
    used = {name for node in nodes for name in node.input}
    weights = [own for own in model.graph.initializer if own.name in used]
    return _with(model, nodes, [*weights, *maker.weights.values()])


class _Maker:
    """Nodes of int8 products; a value or weight that several read is converted once."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
        self._constants = {weights.name: weights for weights in model.graph.initializer}
        self._ranges = ranges
        self._made: set[str] = set()
        self.weights: dict[str, onnx.TensorProto] = {}

    def in_int8(self, node: onnx.NodeProto, suffix: str = "") -> list[onnx.NodeProto]:
        """The product over bytes and what converts them; its output with `suffix` behind."""
        value, weights, *bias = node.input
        axis = 0 if node.op_type == "Conv" or _is_transposed(node) else 1
        scale = self._activation_scale(value)
        nodes = self._converted_value(value)
        channel, more = self._converted_weights(weights, axis)
        nodes += more
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.name += suffix
        made.output[0] += suffix
        made.input[:2] = [f"{value}_bytes_float", f"{weights}_int8_{axis}_float"]
        if bias and bias[0] in self._constants:
            made.input[2] = f"{node.name}_bias_float"
            nodes += self._converted_bias(node.name, bias[0], scale * channel)
        return [*nodes, made]

    def _activation_scale(self, value: str) -> np.float32:
        low, high = self._ranges[value]
        return np.float32(max(high - low, 1e-8) / 255)

    def _converted_value(self, value: str) -> list[onnx.NodeProto]:
        if value in self._made:
            return []
        self._made.add(value)
        low, _ = self._ranges[value]
        scale = self._activation_scale(value)
        zero = np.clip(np.round(-low / scale), 0, 255).astype(np.uint8)
        by = [self._constant(f"{value}_scale", scale), self._constant(f"{value}_zero", zero)]
        stored = f"{value}_bytes"
        return [
            helper.make_node("QuantizeLinear", [value, *by], [stored], stored),
            helper.make_node(
                "DequantizeLinear", [stored, *by], [f"{stored}_float"], f"{stored}_float"
            ),
        ]

    def _converted_weights(self, name: str, axis: int) -> tuple[Array, list[onnx.NodeProto]]:
        """Scales of the channels along `axis`, and the node that widens the weights again."""
        values = numpy_helper.to_array(self._constants[name])
        others = tuple(place for place in range(values.ndim) if place != axis)
        largest = np.abs(values).max(axis=others)
        scale = (np.where(largest == 0, 1, largest) / 127).astype(np.float32)
        stored = f"{name}_int8_{axis}"
        if stored in self._made:
            return scale, []
        self._made.add(stored)
        spread = np.expand_dims(scale, others)
        narrow = np.clip(np.round(values / spread), -127, 127).astype(np.int8)
        return scale, [self._widened(stored, narrow, scale, axis)]

    def _converted_bias(self, product: str, name: str, scale: Array) -> list[onnx.NodeProto]:
        """In int32 at the scale of the sums, without which engines do not fuse the product."""
        values = numpy_helper.to_array(self._constants[name])
        scale = np.broadcast_to(scale, values.shape)
        limits = np.iinfo(np.int32)
        whole = np.clip(np.round(values.astype(np.float64) / scale), limits.min, limits.max)
        return [self._widened(f"{product}_bias", whole.astype(np.int32), scale, 0)]

    def _widened(self, stored: str, numbers: Array, scale: Array, axis: int) -> onnx.NodeProto:
        inputs = [self._constant(stored, numbers), self._constant(f"{stored}_scale", scale)]
        wide = f"{stored}_float"
        return helper.make_node("DequantizeLinear", inputs, [wide], wide, axis=axis)

    def _constant(self, name: str, values: Any) -> str:
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name


def _is_transposed(node: onnx.NodeProto) -> bool:
    """Of a Gemm: whether its weights are [out, in]."""
    return any(own.name == "transB" and own.i for own in node.attribute)


def _ranges(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, Range]:
    """The extremes of what products read, 0 included: zero itself must be exact."""
    values = sorted({node.input[0] for node in products(model)})
    taps = [
        helper.make_node(kind, [value], [f"{value}_{kind}"], f"{value}_{kind}", keepdims=0)
        for value in values
        for kind in ("ReduceMin", "ReduceMax")
    ]
    found = np.stack(list(_tapped(model, taps, [], [tap.output[0] for tap in taps], feeds)))
    lowest, highest = found[:, ::2].min(axis=0), found[:, 1::2].max(axis=0)
    pairs = zip(values, lowest, highest, strict=True)
    return {value: (min(float(low), 0.0), max(float(high), 0.0)) for value, low, high in pairs}


def _own_errors(
    model: onnx.ModelProto, ranges: Mapping[str, Range], feeds: Sequence[Feed]
) -> dict[str, float]:
    """Of each product, how far it is off in int8 on exact inputs: squared, relative, by name.

    In that of `feeds` where it is worst.
    """
    maker, nodes, sums = _Maker(model, ranges), list[onnx.NodeProto](), list[str]()
    for node in products(model):
        right, near = node.output[0], f"{node.output[0]}_in_int8"
        nodes += maker.in_int8(node, "_in_int8")
        nodes.append(helper.make_node("Sub", [near, right], [f"{right}_off"], f"{right}_off"))
        for value in (f"{right}_off", right):
            total = f"{value}_sum"
            nodes.append(helper.make_node("ReduceSumSquare", [value], [total], total, keepdims=0))
            sums.append(total)
    found = np.stack(list(_tapped(model, nodes, list(maker.weights.values()), sums, feeds)))
    names = [node.name for node in products(model)]
    offs, totals = found[:, ::2], found[:, 1::2]
    errors = np.divide(offs, totals, out=np.zeros_like(offs), where=totals > 0)
    return dict(zip(names, errors.max(axis=0).tolist(), strict=True))


def _tapped(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    names: Sequence[str],
    feeds: Iterable[Feed],
) -> Iterable[Array]:
    """Run `model` with `nodes` behind it; for each feed the numbers `names`, [N] in float64."""
    made = _with(model, [*model.graph.node, *nodes], [*model.graph.initializer, *weights])
    del made.graph.output[:]
    made.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in names
    )
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tapped.onnx"
        save(made, path)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for feed in feeds:
            yield np.array(session.run(list(names), dict(feed)), np.float64)


def _with(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
) -> onnx.ModelProto:
    """`model` with these nodes and weights in place of its own."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    del made.graph.initializer[:]
    made.graph.initializer.extend(weights)
    return made
