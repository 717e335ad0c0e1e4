"""Weights outside a graph are found wherever ONNX lets them hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from diptych import external_data
from tests.serving import SHAPES


def outside(name: str) -> onnx.TensorProto:
    """A tensor whose values lie in the file `name`."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"offset": "0", "location": name, "length": "8"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def branch(tensor: onnx.TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "branch", [], [], initializer=[tensor])


def model(**where: Any) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(**{"nodes": [], "name": "g", **where}))


def node(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Any", [], ["x"], **attributes)


def sparse(values: onnx.TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, dims=[2])


def everywhere() -> onnx.ModelProto:
    made = model(
        inputs=[],
        outputs=[],
        initializer=[outside("weights")],
        sparse_initializer=[sparse(outside("sparse"))],
        nodes=[
            node(value=outside("attribute")),
            node(values=[outside("list")]),
            node(body=branch(outside("subgraph"))),
            node(bodies=[branch(outside("subgraphs"))]),
            node(value=sparse(outside("sparse attribute"))),
        ],
    )
    called = onnx.FunctionProto(name="f", node=[node(value=outside("function"))])
    called.attribute_proto.append(helper.make_attribute("a", outside("default")))
    made.functions.append(called)
    training = made.training_info.add()
    training.initialization.CopyFrom(branch(outside("training")))
    return made


def locations(path: Path, content: bytes) -> set[str]:
    path.write_bytes(content)
    return external_data.locations(path)


def test_every_place_that_may_hold_a_tensor_is_looked_at(tmp_path: Path) -> None:
    assert locations(tmp_path / "model.onnx", everywhere().SerializeToString()) == {
        "weights",
        "sparse",
        "attribute",
        "list",
        "subgraph",
        "subgraphs",
        "sparse attribute",
        "function",
        "default",
        "training",
    }


def test_a_graph_with_its_weights_inside_names_no_file() -> None:
    assert [external_data.locations(graph) for graph in SHAPES.graphs.values()] == [set(), set()]


def test_a_name_that_is_no_text_is_still_a_name(tmp_path: Path) -> None:
    content = model(inputs=[], outputs=[], initializer=[outside("a?b")]).SerializeToString()
    assert locations(tmp_path / "model.onnx", content.replace(b"a?b", b"a\xffb")) == {"a\ufffdb"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"not a graph at all", "wire type"),
        (b"\x3a\xff\x7f", "within a field"),
        (b"\x3a\xff", "within a number"),
        (b"\x08" + b"\xff" * 11, "more than ten bytes"),
        (b"\x0d\x00", "within a field"),
    ],
)
def test_a_file_that_is_no_protobuf_is_refused(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        locations(tmp_path / "model.onnx", content)


@given(st.data())
def test_damage_anywhere_is_refused_or_read_but_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(everywhere().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    try:
        found = external_data.locations(path)
    except ValueError:
        return
    assert all(isinstance(name, str) for name in found)
