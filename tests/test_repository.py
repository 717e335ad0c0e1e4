from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from diptych import repository
from diptych.contract import Tower
from diptych.errors import BadRepository, NotFound
from tests.serving import REPOSITORY, SHAPES

IMAGE, TEXT = "shapes_image/1", "shapes_text/1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the shipped repository, to be damaged."""
    for tower in Tower:
        shutil.copytree(REPOSITORY / f"shapes_{tower}", tmp_path / f"shapes_{tower}")
    return tmp_path


def change_spec(root: Path, **changes: Any) -> None:
    for folder in (IMAGE, TEXT):
        path = root / folder / "spec.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def copy_version(root: Path, version: int) -> None:
    for tower in Tower:
        shutil.copytree(root / f"shapes_{tower}" / "1", root / f"shapes_{tower}" / str(version))


def test_the_shipped_model_is_found_and_whole() -> None:
    assert repository.names(REPOSITORY) == ["shapes"]
    assert SHAPES.spec.name == "shapes"
    assert SHAPES.graphs[Tower.IMAGE].parent.name == str(SHAPES.spec.version)


def test_the_newest_version_that_both_towers_have_is_loaded(root: Path) -> None:
    copy_version(root, 10)
    (root / "shapes_image" / "11").mkdir()
    (root / "shapes_image" / "draft").mkdir()
    assert repository.versions(root, "shapes") == [10, 1]
    assert repository.load(root, "shapes", 1).spec == SHAPES.spec
    with pytest.raises(BadRepository, match=r"spec.json is of shapes version 1"):
        repository.load(root, "shapes")


def test_a_model_or_version_that_is_not_there_is_not_found(root: Path) -> None:
    with pytest.raises(NotFound, match=r"no model 'dalle' in .*; there are: shapes"):
        repository.load(root, "dalle")
    with pytest.raises(NotFound, match=r"no version 7; there are: \[1\]"):
        repository.load(root, "shapes", 7)
    with pytest.raises(BadRepository, match="no such folder"):
        repository.load(root / "nowhere", "shapes")


def test_one_tower_alone_is_no_model(root: Path) -> None:
    shutil.rmtree(root / "shapes_text")
    assert repository.names(root) == []


def test_towers_without_a_common_version_are_no_model(root: Path) -> None:
    (root / TEXT).rename(root / "shapes_text" / "2")
    with pytest.raises(BadRepository, match="no version that both towers have"):
        repository.load(root, "shapes")


@pytest.mark.parametrize(
    "file", [f"{IMAGE}/model.onnx", f"{TEXT}/model.onnx", f"{TEXT}/tokenizer.json"]
)
def test_a_changed_file_does_not_match_the_fingerprint(root: Path, file: str) -> None:
    path = root / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadRepository, match="a file was changed after export"):
        repository.load(root, "shapes")


def test_external_data_is_part_of_the_fingerprint(root: Path) -> None:
    (root / IMAGE / "model.onnx.data").write_bytes(b"weights")
    with pytest.raises(BadRepository, match="a file was changed after export"):
        repository.load(root, "shapes")


@pytest.mark.parametrize(
    "file", [f"{IMAGE}/model.onnx", f"{TEXT}/tokenizer.json", f"{IMAGE}/spec.json"]
)
def test_a_missing_file_is_named(root: Path, file: str) -> None:
    (root / file).unlink()
    with pytest.raises(BadRepository, match=f"{file}: missing"):
        repository.load(root, "shapes")


def test_towers_must_carry_the_same_spec(root: Path) -> None:
    path = root / TEXT / "spec.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(BadRepository, match=r"spec.json differs"):
        repository.load(root, "shapes")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"embed_dim": 0}, "embed_dim: "),
        ({"logit_scale": -1}, "logit_scale: "),
        ({"colour": "red"}, "colour: "),
        ({"image": {**SHAPES.spec.image.model_dump(), "resize": "stretch"}}, "image.resize: "),
        ({"fingerprint": "abc"}, "fingerprint: "),
    ],
)
def test_a_malformed_spec_is_refused_by_field(
    root: Path, changes: dict[str, Any], problem: str
) -> None:
    change_spec(root, **changes)
    with pytest.raises(BadRepository, match=rf"spec.json: {problem}"):
        repository.load(root, "shapes")


def test_preprocessing_is_part_of_the_fingerprint_and_scoring_is_not(root: Path) -> None:
    change_spec(root, logit_scale=7.0, source="elsewhere")
    assert repository.load(root, "shapes").spec.logit_scale == 7.0
    change_spec(root, image={**SHAPES.spec.image.model_dump(mode="json"), "resize": "squash"})
    with pytest.raises(BadRepository, match="a file was changed after export"):
        repository.load(root, "shapes")


def outside(root: Path, location: str) -> Path:
    """Say in the image tower's graph that a weight lies in the file `location`."""
    path = root / IMAGE / "model.onnx"
    graph = onnx.load(path)
    weights = graph.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location",
    [
        "model.onnx.data",  # is not there
        "../1/model.onnx.data",
        "../../shapes_text/1/model.onnx",
        "/etc/passwd",
        "spec.json",  # is there, but no part of the fingerprint
        "",
    ],
)
def test_weights_outside_the_version_folder_are_refused(root: Path, location: str) -> None:
    path = outside(root, location)
    with pytest.raises(BadRepository) as caught:
        repository.load(root, "shapes")
    assert str(caught.value) == (
        f"{path}: weights are said to lie in {location!r}; only a file model.onnx*.data in "
        "the same folder may hold them"
    )


def test_weights_behind_a_link_out_of_the_folder_are_refused(root: Path) -> None:
    path = outside(root, "model.onnx.data")
    (root / "elsewhere").write_bytes(bytes(1000))
    path.with_name("model.onnx.data").symlink_to(root / "elsewhere")
    with pytest.raises(BadRepository, match=r"weights are said to lie in 'model\.onnx\.data'"):
        repository.load(root, "shapes")


def test_weights_beside_the_graph_count_for_the_fingerprint(root: Path) -> None:
    path = outside(root, "model.onnx.data")
    path.with_name("model.onnx.data").write_bytes(bytes(1000))
    with pytest.raises(BadRepository, match=r"fingerprint is") as first:
        repository.load(root, "shapes")
    path.with_name("model.onnx.data").write_bytes(bytes(1001))
    with pytest.raises(BadRepository, match=r"fingerprint is") as second:
        repository.load(root, "shapes")
    assert str(first.value) != str(second.value)


def test_a_graph_that_is_none_is_refused(root: Path) -> None:
    (root / IMAGE / "model.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(BadRepository, match=r"model.onnx: not an ONNX file: wire type"):
        repository.load(root, "shapes")
