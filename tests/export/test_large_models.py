"""What is too large for one file lies in two, and is served as if it were one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from diptych import external_data, repository
from diptych.contract import Tower
from diptych.errors import BadRepository
from diptych_export import onnx as exporting
from diptych_export.build import build
from diptych_export.precision import Making
from tests.export.test_export import source
from tests.preprocess.pictures import file
from tests.serving import served

PICTURE = file("png", 70, 64)


@pytest.fixture
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that the smallest of towers exceeds."""
    monkeypatch.setattr(exporting, "LARGEST_BYTES", 10_000)


@pytest.mark.usefixtures("_small_files")
async def test_weights_lie_beside_the_graph_and_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp16: the float32 graph lay in two files before, and was read back."""
    build(source(), "large", tmp_path / "repository", making=Making("fp16"))
    graphs = repository.load(tmp_path / "repository", "large").graphs
    for graph in graphs.values():
        data = graph.with_name("model.onnx.data")
        assert external_data.locations(graph) == {data.name}
        assert data.stat().st_size > 10_000
    async with served(repository=tmp_path / "repository") as client:
        assert (await client.embed(["a red circle", PICTURE])).vectors.shape == (2, 16)
    monkeypatch.undo()
    whole = tmp_path / "whole.onnx"
    exporting.save(onnx.load(graphs[Tower.TEXT]), whole)
    assert not external_data.locations(whole)
    tokens = {"input_ids": np.array([[1, 2, 3, 4, 5, 6, 7, 8]])}
    answers = [ort.InferenceSession(path).run(None, tokens) for path in (graphs[Tower.TEXT], whole)]
    for ours, theirs in zip(*answers, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("_small_files")
def test_one_changed_byte_beside_the_graph_is_another_model(tmp_path: Path) -> None:
    build(source(), "large", tmp_path)
    path = repository.load(tmp_path, "large").graphs[Tower.TEXT].with_name("model.onnx.data")
    data = bytearray(path.read_bytes())
    data[5_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadRepository, match="a file was changed after export"):
        repository.load(tmp_path, "large")
    path.unlink()
    with pytest.raises(BadRepository, match=r"weights are said to lie in 'model\.onnx\.data'"):
        repository.load(tmp_path, "large")
