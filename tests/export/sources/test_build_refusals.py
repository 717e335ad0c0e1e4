"""A build that fails says why in one line, and leaves the repository as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from safetensors.torch import load_file, save_file

from diptych.contract import Tower
from diptych.errors import BadRepository
from diptych.repository import load
from diptych_export import cli, repository
from diptych_export.triton_config import Placement, Target
from tests.export.sources.building import built, contents, refused
from tests.serving import REPOSITORY

Directory = Callable[[str], Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the shipped model in it."""
    return shutil.copytree(REPOSITORY, tmp_path / "repository")


@pytest.fixture
def clip(directory: Directory, tmp_path: Path) -> Path:
    """A good checkpoint, to be spoilt."""
    return shutil.copytree(directory("clip"), tmp_path / "clip")


def spoil_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    state["vision_model.encoder.layers.1.mlp.fc1.weight"][3, 5] = float("inf")
    save_file(state, path, metadata={"format": "pt"})


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def lose_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def become_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (spoil_weight, "layers.1.mlp.fc1.weight has values that are not finite"),
        (cut_short, "clip: "),
        (lose_tokenizer, "no tokenizer: none of tokenizer.json"),
        (become_pickle, "pytorch_model.bin is a pickle, which runs code when it is read"),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted(
    spoil: Callable[[Path], None],
    complaint: str,
    clip: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(clip)
    before = contents(root)
    line = refused(monkeypatch, "--from", clip, "--name", "shapes", "--repository", root)
    assert line.startswith(str(clip))
    assert complaint in line
    assert contents(root) == before
    assert {path.name for path in root.parent.iterdir()} == {"clip", "repository"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--precision", "int8"], "--precision int8 needs --calibrate"),
        (["--precision", "fp16", "--calibrate", "shapes"], "fp16 is not calibrated"),
        (["--target", "python", "--device", "gpu"], "target python runs on CPUs"),
        (["--target", "tensorrt", "--device", "cpu"], "target tensorrt needs device gpu"),
        (["--precision", "int8", "--calibrate", "none.tar"], "none.tar: [Errno 2] No such file"),
        (["--from", "nowhere"], "nowhere: neither a file, nor a directory, nor an id"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str],
    complaint: str,
    clip: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contents(root)
    usual = [] if "--from" in arguments else ["--from", str(clip)]
    line = refused(monkeypatch, *usual, "--name", "own", "--repository", root, *arguments)
    assert complaint in line
    assert contents(root) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--opset", "17"],
        ["--opset", "21"],
        ["--name", "Not/A/Name"],
        ["--precision", "fp8"],
        ["--target", "openvino"],
        ["--speed", "9"],
    ],
)
def test_a_flag_that_is_none_is_a_usage_error(
    arguments: list[str], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["--from", str(clip), "--name", "own"]
    with pytest.raises(SystemExit) as caught:
        cli.app(["build", *usual, *arguments])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert arguments[0] in said.out + said.err


def test_too_few_pairs_to_calibrate_with(
    clip: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(root)
    pictures = Path(__file__).parents[2] / "pictures"
    rows = [f"{pictures / 'red_circle.png'},a red circle", f"{pictures / 'none.png'},nothing"]
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(["image,text", *rows]))
    line = refused(
        monkeypatch,
        *("--from", clip, "--name", "own", "--repository", root),
        *("--precision", "int8", "--calibrate", table),
    )
    assert line == (
        f"{table}: 1 pairs that can be read (1 cannot), at least 32 are needed to calibrate"
    )
    assert contents(root) == before


def test_weights_outside_the_version_folder_are_never_published(
    directory: Directory, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    built(capsys, "--from", directory("clip"), "--name", "own", "--repository", other)
    spec = load(other, "own").spec
    path = repository.graph_path(other, "own", 1, Tower.IMAGE)
    graph = onnx.load(path)
    onnx.save(graph, path, save_as_external_data=True, location="weights.data")
    (path.parent / "weights.data").rename(path.parent.parent / "here.data")
    path.write_bytes(path.read_bytes().replace(b"weights.data", b"../here.data"))
    repository.complete(other, root, spec, Placement(Target.ONNXRUNTIME))
    before = contents(root)
    with pytest.raises(BadRepository, match=r"weights are said to lie in '\.\./here\.data'"):
        repository.publish(other, root, spec)
    assert contents(root) == before


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["build", "--help"], result_action="return_value")
    said = " ".join(capsys.readouterr().out.split())
    assert "diptych-export build --from openai/clip-vit-base-patch32 --name clip" in said


def test_a_tensorrt_build_says_what_remains(
    directory: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = built(
        capsys,
        *("--from", directory("clip"), "--name", "own", "--repository", tmp_path / "r"),
        *("--target", "tensorrt", "--licence", "MIT", "--opset", "19"),
    )
    assert found["remains"].startswith(f"diptych-export plan --name own --repository {tmp_path}")
    assert (found["target"], found["device"]) == ("tensorrt", "gpu")
    config = (tmp_path / "r/own_image/config.pbtxt").read_text()
    assert 'backend: "tensorrt"' in config
    spec = json.loads((Path(found["folders"]["text"]) / "spec.json").read_text())
    assert spec["licence"] == "MIT"
    graph = onnx.load(Path(found["folders"]["image"]) / "model.onnx")
    assert [own.version for own in graph.opset_import] == [19]
