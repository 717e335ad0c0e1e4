"""An ONNX file in, the names of the files its weights lie in out; without the onnx package.

Serving has no onnx, and reading a graph whole to look at a few strings would take its size in
memory. This walks the protobuf past everything but the way to `TensorProto.external_data`.
Field numbers: onnx/onnx.proto3; encoding: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

Field: TypeAlias = tuple[int, int, int]  # number, where its content starts, and ends

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are of another age

# Message -> field number -> message, as far as tensors may hide in it.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2  # of an entry


def locations(graph: Path) -> set[str]:
    """What the weights outside `graph` give as their location, as written there.

    Raises:
        ValueError: `graph` is no protobuf.
        OSError: it cannot be read.
    """
    with graph.open("rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ValueError("it is empty") from None
        with data:
            return set(_locations(data))


def _locations(data: mmap.mmap) -> Iterator[str]:
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, start, end = waiting.pop()
        for number, first, last in _fields(data, start, end):
            inner = _INSIDE[kind].get(number)
            if inner == "entry":
                entry = dict(_strings(data, first, last))
                if entry.get(_KEY) == b"location":
                    yield entry.get(_VALUE, b"").decode(errors="replace")
            elif inner:
                waiting.append((inner, first, last))


def _strings(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    for number, first, last in _fields(data, start, end):
        yield number, data[first:last]


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """The fields of a message that have a length; others are passed over."""
    place = start
    while place < end:
        tag, place = _varint(data, place, end)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(data, place, end)
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, place = _varint(data, place, end)
            if place + length <= end:
                yield tag >> 3, place, place + length
            place += length
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if place > end:
            raise ValueError(f"it ends within a field, at byte {end}")


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """A number of up to ten bytes, seven bits each, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError(f"it ends within a number, at byte {end}")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"a number of more than ten bytes at byte {place}")
