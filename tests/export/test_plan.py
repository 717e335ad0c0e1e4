"""Plans are made of published graphs; a stand-in for TensorRT shows what its builder is asked.

The stand-in is at TensorRT's own border: no TensorRT runs without its GPU. Its names are those of
the Python bindings of 10.12 and 11.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diptych.contract import Tower
from diptych.errors import BadRepository
from diptych_export import triton_config
from diptych_export.errors import PlanError
from diptych_export.tensorrt import PLAN, plan
from diptych_export.triton_config import CONFIG, Device, Placement, Queue, Target
from tests.export.tensorrt_stand_in import Builder, Engine, Parser
from tests.serving import REPOSITORY, SHAPES

FOLDERS = SHAPES.spec.folders


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put the stand-in where `import tensorrt` finds it; answer how it is to behave."""
    how: dict[str, Any] = {}
    module: Any = ModuleType("tensorrt")
    module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    module.BuilderFlag = SimpleNamespace(TF32="TF32")
    module.Builder = lambda logger: Builder(logger, how)
    module.OnnxParser = Parser
    module.Runtime = lambda logger: SimpleNamespace(
        deserialize_cuda_engine=lambda plan: Engine(plan, how.get("lacks"))
    )
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return how


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the shipped model, built for the Triton that PyPI has."""
    for folder in FOLDERS.values():
        shutil.copytree(REPOSITORY / folder, tmp_path / "root" / folder)
    return tmp_path / "root"


def silent(line: str) -> None: ...


def made(root: Path, tower: Tower, version: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / FOLDERS[tower] / str(version) / PLAN).read_bytes())
    return found


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def config(root: Path, tower: Tower) -> Any:
    return text_format.Parse((root / FOLDERS[tower] / CONFIG).read_text(), pb.ModelConfig())


def test_one_strongly_typed_plan_a_tower_takes_every_batch_and_length(
    tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    plan(root, "shapes", tmp_path / "timings", said.append)
    length = SHAPES.spec.text.context_length
    image, text = (made(root, tower) for tower in Tower)
    side = [64, 64, 3]
    assert image["shapes"] == {"pixel_values": [[1, *side], [32, *side], [64, *side]]}
    assert text["shapes"] == {"input_ids": [[1, 1], [32, 24], [64, length]]}
    for asked in (image, text):
        assert asked["strongly_typed"]
        assert asked["cleared"] == ["TF32"]  # what the gate measured was float32
    assert said == [f"planning version 1, {tower} tower" for tower in Tower]


def test_graphs_spec_and_fingerprint_stay_and_the_config_runs_plans(
    tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    before = files(root)
    [spec] = plan(root, "shapes", tmp_path / "timings", silent)
    assert spec == SHAPES.spec
    for name, content in files(root).items():
        if not name.endswith((PLAN, CONFIG)):
            assert content == before.pop(name)
    left = {name for name in before if not name.endswith(CONFIG)}
    assert left == {f"{folder}/1/model.py" for folder in FOLDERS.values()}
    for tower in Tower:
        found = config(root, tower)
        assert found.backend == "tensorrt"
        assert found.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
        assert found.parameters["fingerprint_1"].string_value == SHAPES.spec.fingerprint


def test_what_build_said_of_batches_instances_and_queue_is_kept(
    tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    told = Placement(Target.TENSORRT, Device.GPU, instances=2, max_batch=16, queue=Queue(9, 7))
    triton_config.write(root, SHAPES.spec, told, {})
    before = {tower: config(root, tower) for tower in Tower}
    plan(root, "shapes", tmp_path / "timings", silent)
    assert {tower: config(root, tower) for tower in Tower} == before
    assert made(root, Tower.TEXT)["shapes"]["input_ids"][-1][0] == 16


def second_version(root: Path) -> None:
    for folder in FOLDERS.values():
        shutil.copytree(root / folder / "1", root / folder / "2")
        spec = SHAPES.spec.model_copy(update={"version": 2})
        (root / folder / "2/spec.json").write_text(spec.model_dump_json())


def test_both_versions_that_triton_loads_are_planned(
    tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    second_version(root)
    specs = plan(root, "shapes", tmp_path / "timings", silent)
    assert [spec.version for spec in specs] == [2, 1]
    assert made(root, Tower.IMAGE, 1)["graph"].endswith("shapes_image/1/model.onnx")
    assert made(root, Tower.IMAGE, 2)["graph"].endswith("shapes_image/2/model.onnx")
    assert set(config(root, Tower.TEXT).parameters) == {"fingerprint_1", "fingerprint_2"}


@pytest.mark.parametrize(
    ("kept", "used"),
    [(None, b""), (b"of this GPU", b"of this GPU"), (b"of another GPU", b"")],
)
def test_measurements_are_taken_up_where_they_are_of_this_gpu_and_kept(
    kept: bytes | None, used: bytes, tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    timings = tmp_path / "cache" / "timings"
    if kept is not None:
        timings.parent.mkdir()
        timings.write_bytes(kept)
    plan(root, "shapes", timings, silent)
    assert timings.read_bytes() == used + b"+measured+measured"  # one tower after the other


def test_half_precision_keeps_its_own_types_and_int8_is_refused(
    tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    def say_of_precision(precision: str) -> None:
        for folder in FOLDERS.values():
            spec = SHAPES.spec.model_copy(update={"precision": precision})
            (root / folder / "1/spec.json").write_text(spec.model_dump_json())

    say_of_precision("fp16")
    plan(root, "shapes", tmp_path / "timings", silent)
    assert made(root, Tower.IMAGE)["cleared"] == []
    say_of_precision("int8")
    with pytest.raises(PlanError, match="int8 graphs are made for CPUs"):
        plan(root, "shapes", tmp_path / "timings", silent)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"refuses": True}, r"model\.onnx: TensorRT does not read it: no importer for Foo"),
        ({"fails": "shapes_text"}, r"shapes_text/1/model\.onnx: TensorRT makes no plan"),
        ({"lacks": "pooled"}, r"the plan has pooled None, the graph \[128\]"),
    ],
    ids=["not parsed", "not built", "another plan"],
)
def test_where_one_tower_fails_nothing_is_changed(
    how: dict[str, Any], said: str, tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    tensorrt.update(how)
    before = files(root)
    with pytest.raises(PlanError, match=said) as caught:
        plan(root, "shapes", tmp_path / "timings", silent)
    assert "\n" not in str(caught.value)
    assert files(root) == before


def test_a_graph_changed_after_export_is_not_planned(
    tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    graph = root / FOLDERS[Tower.IMAGE] / "1/model.onnx"
    model = onnx.load(graph)
    model.producer_name = "someone else"
    onnx.save(model, graph)
    with pytest.raises(BadRepository, match="a file was changed after export"):
        plan(root, "shapes", tmp_path / "timings", silent)


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.unlink(), lambda path: path.write_text("backend: 7")],
    ids=["missing", "no config"],
)
def test_a_config_that_is_none_of_ours_is_named(
    spoil: Callable[[Path], Any], tensorrt: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    spoil(root / FOLDERS[Tower.IMAGE] / CONFIG)
    with pytest.raises(BadRepository, match=r"shapes_image/config\.pbtxt: "):
        plan(root, "shapes", tmp_path / "timings", silent)


def test_without_tensorrt_the_command_says_so_in_one_line(root: Path) -> None:
    before = files(root)
    command = [sys.executable, "-m", "diptych_export", "plan", "--name", "shapes"]
    done = subprocess.run(
        [*command, "--repository", str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "no TensorRT here" in line
    assert files(root) == before


def test_planning_needs_no_torch() -> None:
    barred = "import sys; sys.modules.update(torch=None, transformers=None); "
    ask = "from diptych_export.commands.plan import plan"
    subprocess.run([sys.executable, "-W", "error", "-c", barred + ask], check=True)
