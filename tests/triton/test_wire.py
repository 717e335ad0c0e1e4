"""What we write is what Triton's own protobuf reads, and the other way round."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tritonclient.grpc import service_pb2 as pb

from diptych.engines.base import Array
from diptych.engines.triton_wire import read_answer, write_request
from diptych.errors import EngineFailed

ARRAYS = st.one_of(
    npst.arrays(np.uint8, npst.array_shapes(max_dims=4, max_side=20)),
    npst.arrays(np.int64, npst.array_shapes(max_dims=2, max_side=40)),
    npst.arrays(np.float32, npst.array_shapes(max_dims=3, max_side=9)),
)
QUICKLY = settings(max_examples=30, deadline=None)
NUMPY = {"UINT8": np.uint8, "INT64": np.int64, "FP32": np.float32}


@QUICKLY
@given(arrays=st.dictionaries(st.text("abc_", min_size=1), ARRAYS, min_size=1, max_size=3))
def test_protobuf_reads_what_we_write(arrays: dict[str, Array]) -> None:
    written = write_request("m", 3, arrays, ["one", "two"], queue_s=0.25)
    read = pb.ModelInferRequest.FromString(written)
    assert (read.model_name, read.model_version) == ("m", "3")
    assert [output.name for output in read.outputs] == ["one", "two"]
    assert read.parameters["timeout"].int64_param == 250_000
    for tensor, raw in zip(read.inputs, read.raw_input_contents, strict=True):
        array = np.frombuffer(raw, NUMPY[tensor.datatype]).reshape(tensor.shape)
        np.testing.assert_array_equal(array, arrays[tensor.name])


def test_arrays_that_do_not_lie_in_one_piece_are_written_in_order() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)[:, ::2]
    read = pb.ModelInferRequest.FromString(write_request("m", 1, {"x": array}, [], queue_s=1))
    assert read.raw_input_contents[0] == array.tobytes()


@QUICKLY
@given(arrays=st.dictionaries(st.text("abc_", min_size=1), ARRAYS, max_size=3))
def test_we_read_what_protobuf_writes(arrays: dict[str, Array]) -> None:
    response = pb.ModelInferResponse(model_name="m", model_version="1", id="x")
    response.parameters["extra"].bool_param = True
    names = {np.dtype(kind): name for name, kind in NUMPY.items()}
    for name, array in arrays.items():
        response.outputs.add(name=name, datatype=names[array.dtype], shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    read = read_answer(response.SerializeToString())
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@QUICKLY
@given(junk=st.binary(min_size=1))
def test_anything_else_is_refused_or_empty(junk: bytes) -> None:
    with contextlib.suppress(EngineFailed):
        assert read_answer(junk) == {}


@pytest.mark.parametrize(
    ("datatype", "shape", "content", "complaint"),
    [
        ("FP32", [2, 3], b"", "has 0 bytes for FP32"),
        ("FP32", [2, 3], b"1234", "has 4 bytes for FP32"),
        ("FP32", [-1, -1], b"1234", "has 4 bytes for FP32"),
        ("BYTES", [1], b"1234", "is of type 'BYTES'"),
        ("FP99", [1], b"1234", "is of type 'FP99'"),
    ],
)
def test_bytes_must_be_those_of_type_and_shape(
    datatype: str, shape: list[int], content: bytes, complaint: str
) -> None:
    response = pb.ModelInferResponse(raw_output_contents=[content])
    response.outputs.add(name="out", datatype=datatype, shape=shape)
    with pytest.raises(EngineFailed, match=complaint):
        read_answer(response.SerializeToString())


def test_every_output_needs_its_bytes() -> None:
    response = pb.ModelInferResponse()
    response.outputs.add(name="out", datatype="FP32", shape=[1])
    with pytest.raises(EngineFailed, match="1 outputs, 0 contents"):
        read_answer(response.SerializeToString())
