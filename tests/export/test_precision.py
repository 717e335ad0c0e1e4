"""Graphs in 16 and 8 bits: as near to their source as promised, smaller, and served."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from diptych.contract import Canary, ImageSpec, TextSpec, Tower
from diptych.engines.base import PIXELS, TOKENS
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer
from diptych_export import calibration, parity
from diptych_export.errors import ParityError
from diptych_export.int8 import KEPT, Quantizer, products
from diptych_export.parity import MIN_COSINE, Gate
from diptych_export.precision import Making, convert
from diptych_export.sources.base import Array, Source
from tests.export.test_export import source
from tests.serving import SHAPES


class Shipped:
    """The shipped graphs in float32, which were proved when they were made, as a reference."""

    def __init__(self) -> None:
        self._sessions = {
            tower: ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            for tower, path in SHAPES.graphs.items()
        }
        self._reader = TextTokenizer(SHAPES.tokenizer, SHAPES.spec.text)

    def image(self, file: bytes) -> dict[str, Array]:
        pixels = decode_image(file, SHAPES.spec.image, exif=False, exact=True)
        return self._run(Tower.IMAGE, {PIXELS: pixels[None]})

    def text(self, text: str, layers: int = 0) -> dict[str, Array]:
        tokens = self._reader.tokenize(text, truncate=True).tokens
        return self._run(Tower.TEXT, {TOKENS: tokens[None]})

    def canary(self, image: ImageSpec, text: TextSpec) -> Canary:
        return SHAPES.spec.canary

    def _run(self, tower: Tower, inputs: dict[str, Any]) -> dict[str, Array]:
        session = self._sessions[tower]
        names = [output.name for output in session.get_outputs()]
        answers = session.run(names, inputs)
        return {name: rows[0] for name, rows in zip(names, answers, strict=True)}


def shapes() -> Source:
    """The shipped model, as far as the gate looks at a source."""
    own = source()
    spec = SHAPES.spec
    return replace(own, image=spec.image, text=spec.text, reference=Shipped())


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate(shapes(), SHAPES.tokenizer)


@pytest.fixture
def graphs(tmp_path: Path) -> dict[Tower, Path]:
    """Copies of the shipped graphs, to be rewritten."""
    return {
        tower: Path(shutil.copy(path, tmp_path / f"{tower}.onnx"))
        for tower, path in SHAPES.graphs.items()
    }


def convert_to(
    precision: parity.Precision, graphs: dict[Tower, Path], gate: Gate
) -> dict[str, float]:
    data = calibration.read(["shapes"], SHAPES.spec.image) if precision == "int8" else None
    making = Making(precision, calibration=data)
    return convert(graphs, SHAPES.tokenizer, SHAPES.spec.text, gate, making, lambda _: None)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Of every value, as ONNX infers them anew."""
    del model.graph.value_info[:]
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*found.value_info, *found.input, *found.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def size(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize("tower", Tower)
def test_fp16_multiplies_in_fp16_and_norms_in_float32(
    tower: Tower, graphs: dict[Tower, Path], gate: Gate
) -> None:
    figures = convert_to("fp16", graphs, gate)
    assert min(number for name, number in figures.items() if "." in name) >= MIN_COSINE["fp16"]
    assert size(graphs[tower]) < 0.55 * size(SHAPES.graphs[tower])
    model = onnx.load(graphs[tower])
    types = element_types(model)
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Conv", "Gemm") and not outputs & set(node.output):
            assert types[node.output[0]] == TensorProto.FLOAT16
        if node.op_type in ("LayerNormalization", "Softmax", "ReduceMean"):
            assert types[node.output[0]] == TensorProto.FLOAT
    assert {types[name] for name in outputs} == {TensorProto.FLOAT}


@pytest.mark.parametrize("tower", Tower)
def test_bf16_is_half_the_file_and_rounded_once(
    tower: Tower, graphs: dict[Tower, Path], gate: Gate
) -> None:
    figures = convert_to("bf16", graphs, gate)
    assert min(number for name, number in figures.items() if "." in name) >= MIN_COSINE["bf16"]
    assert size(graphs[tower]) < 0.55 * size(SHAPES.graphs[tower])
    model = onnx.load(graphs[tower])
    before = {own.name: own for own in onnx.load(SHAPES.graphs[tower]).graph.initializer}
    narrow = [w for w in model.graph.initializer if w.data_type == TensorProto.BFLOAT16]
    assert narrow
    for weights in narrow:
        values = numpy_helper.to_array(weights).astype(np.float32)
        exact = numpy_helper.to_array(before[weights.name.removesuffix("_bf16")])
        assert np.all(np.abs(values - exact) <= np.abs(exact) * 2**-8)
    types = element_types(model)
    assert TensorProto.BFLOAT16 not in types.values(), "sums are in float32"


def test_int8_is_near_the_trained_model_and_small(graphs: dict[Tower, Path], gate: Gate) -> None:
    figures = convert_to("int8", graphs, gate)
    outputs = [number for name, number in figures.items() if "_embeds" in name or "state" in name]
    assert min(outputs) >= MIN_COSINE["int8"]
    assert figures["top1_agreement"] >= parity.MIN_AGREEMENT
    for tower, path in graphs.items():
        in_int8 = figures[f"{tower}.products_in_int8"]
        model = onnx.load(path)
        assert in_int8 >= len(products(onnx.load(SHAPES.graphs[tower]))) / 2
        kinds = [node.op_type for node in model.graph.node]
        assert 0 < kinds.count("QuantizeLinear") <= in_int8  # values are shared
        assert size(path) < 0.6 * size(SHAPES.graphs[tower])


def test_int8_weights_have_a_scale_for_each_channel_and_no_offset(
    graphs: dict[Tower, Path], gate: Gate
) -> None:
    convert_to("int8", graphs, gate)
    model = onnx.load(graphs[Tower.IMAGE])
    stored = {own.name: numpy_helper.to_array(own) for own in model.graph.initializer}
    weights = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in stored
        and stored[node.input[0]].dtype == np.int8
    ]
    assert weights
    for node in weights:
        numbers, scale = (stored[name] for name in node.input)  # two: symmetric
        [axis] = [own.i for own in node.attribute if own.name == "axis"]
        others = tuple(place for place in range(numbers.ndim) if place != axis)
        assert scale.shape == (numbers.shape[axis],)
        assert np.all(np.abs(numbers.astype(int)).max(axis=others) == 127)


def test_what_calibration_never_saw_goes_back_to_float32_or_is_refused(
    graphs: dict[Tower, Path], gate: Gate
) -> None:
    """Ranges from black pictures alone fit no others."""
    seen = calibration.read(["shapes"], SHAPES.spec.image)
    black = replace(seen, pixels=[np.zeros_like(own) for own in seen.pixels])
    said: list[str] = []
    with pytest.raises(ParityError, match=r"image\.image_embeds of image 0 at batch 1"):
        convert(
            graphs,
            SHAPES.tokenizer,
            SHAPES.spec.text,
            gate,
            Making("int8", calibration=black),
            said.append,
        )
    back = [line for line in said if "go back" in line]
    assert [line.split(": ")[1].split(" of ")[0] for line in back] == ["3", "6", "9", "12"]


def outlier() -> onnx.ModelProto:
    """Two products; of what the second reads, one number dwarfs the others and counts nothing."""
    rng = np.random.default_rng(0)
    plain, other = (rng.normal(size=(8, 8)).astype(np.float32) for _ in range(2))
    other[0] = 0
    large = np.ones(8, np.float32)
    large[0] = 10_000
    nodes = [
        helper.make_node("MatMul", ["x", "plain"], ["a"], "good"),
        helper.make_node("Mul", ["x", "large"], ["y"], "grow"),
        helper.make_node("MatMul", ["y", "other"], ["b"], "bad"),
    ]
    weights = {"plain": plain, "other": other, "large": large}
    graph = helper.make_graph(
        nodes,
        "two products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in "ab"],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_product_that_suffers_most_is_given_back_first_and_named(tmp_path: Path) -> None:
    model = outlier()
    feeds = [{"x": np.random.default_rng(n).normal(size=(4, 8)).astype(np.float32)} for n in (1, 2)]
    maker = Quantizer(model, feeds, feeds)
    path = tmp_path / "model.onnx"
    right = ort.InferenceSession(model.SerializeToString()).run(["a", "b"], feeds[0])

    maker.write(path)
    good, bad = ort.InferenceSession(path).run(["a", "b"], feeds[0])
    np.testing.assert_allclose(good, right[0], atol=0.1)
    assert not np.allclose(bad, right[1], atol=1)

    assert maker.give_back()
    maker.write(path)
    _, bad = ort.InferenceSession(path).run(["a", "b"], feeds[0])
    np.testing.assert_array_equal(bad, right[1])
    assert {own.key: own.value for own in onnx.load(path).metadata_props} == {KEPT: "bad"}


def test_no_more_than_half_is_given_back(tmp_path: Path) -> None:
    feeds = [{"x": np.ones((4, 8), np.float32)}]
    maker = Quantizer(outlier(), feeds, feeds)
    assert [maker.give_back() for _ in range(5)] == [True, True, True, True, False]


def test_best_matches_agree_up_to_ties_of_the_source() -> None:
    right = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.898]], dtype=np.float32)
    assert parity.agreement(right, right) == 1.0
    tied = np.array([[0.9, 0.1, 0.1], [0.1, 0.898, 0.9]], dtype=np.float32)
    assert parity.agreement(tied, right) == 1.0
    turned = np.array([[0.1, 0.8, 0.1], [0.1, 0.9, 0.898]], dtype=np.float32)
    assert parity.agreement(turned, right) == 0.8  # one of two rows and three columns


def test_int8_cannot_be_asked_for_without_calibration() -> None:
    with pytest.raises(ValueError, match="int8 needs calibration"):
        Making("int8")


def test_every_fourth_pair_is_held_back_and_broken_ones_are_counted(tmp_path: Path) -> None:
    pictures = Path(__file__).parents[1] / "pictures"
    names = ["red_circle.png", "blue_square.jpg", "none.png", "green_triangle.webp"]
    rows = [f"{pictures / names[row % 4]},text {row}" for row in range(64)]
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(["image,text", *rows]))
    found = calibration.read([str(table)], SHAPES.spec.image)
    assert found.skipped == 16
    assert (len(found.pixels), len(found.texts)) == (36, 36)
    assert (len(found.held_pictures), len(found.held_texts)) == (12, 12)
    assert not set(found.texts) & set(found.held_texts)
    shown = decode_image(found.held_pictures[0], SHAPES.spec.image)
    first = decode_image((pictures / names[0]).read_bytes(), SHAPES.spec.image)
    np.testing.assert_array_equal(shown, first)
