"""Triton's own parser and loader accept what we write for every target."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diptych import repository
from diptych.contract import Tower
from diptych.engines.base import EMBEDS
from diptych.engines.triton import TritonEngine
from diptych.engines.triton_install import Installed
from diptych.engines.triton_rows import ROW_CHECK
from diptych.engines.triton_server import tritonserver
from diptych.errors import EngineUnavailable, Overloaded
from diptych.repository import ModelFiles
from diptych_export.triton_config import (
    CONFIG,
    Device,
    Placement,
    Queue,
    Target,
    config,
    fingerprints,
    serialize,
    write,
)
from tests.serving import REPOSITORY, SHAPES
from tests.triton.test_same_vectors import texts

SPEC = SHAPES.spec
PLACEMENTS = {
    "onnxruntime on a CPU": Placement(Target.ONNXRUNTIME, threads=2, queue=Queue()),
    "onnxruntime on a GPU": Placement(Target.ONNXRUNTIME, Device.GPU, 2, queue=Queue()),
    "tensorrt": Placement(Target.TENSORRT, Device.GPU, 2, queue=Queue()),
    "python": Placement(instances=2, threads=1, max_batch=8, queue=Queue()),
}


def placed(root: Path, placement: Placement) -> ModelFiles:
    """A copy of the shipped model in `root`, its config written anew."""
    for folder in SPEC.folders.values():
        shutil.copytree(REPOSITORY / folder, root / folder)
    write(root, SPEC, placement, {})
    return repository.load(root, SPEC.name)


def made(tower: Tower, placement: Placement) -> Any:
    return config(SPEC, tower, SHAPES.graphs[tower], placement, {})


async def complaint(root: Path, installed: Installed, log: Path) -> str:
    with pytest.raises(EngineUnavailable) as caught:
        async with tritonserver(root, installed, log=log):
            pass
    return str(caught.value)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_file_is_the_message(name: str, tmp_path: Path) -> None:
    placed(tmp_path, PLACEMENTS[name])
    for tower, folder in SPEC.folders.items():
        read = text_format.Parse((tmp_path / folder / CONFIG).read_text(), pb.ModelConfig())
        assert read == made(tower, PLACEMENTS[name])


def test_the_shipped_repository_is_what_we_write(tmp_path: Path) -> None:
    placed(tmp_path, Placement())
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert path.read_bytes() == (REPOSITORY / path.relative_to(tmp_path)).read_bytes(), path


@pytest.mark.parametrize("target", Target)
def test_only_a_model_of_ours_proves_what_its_answers_belong_to(target: Target) -> None:
    """Backends of others answer what the graph has, and Triton refuses a config with more."""
    device = Device.GPU if target is Target.TENSORRT else Device.CPU
    outputs = {output.name for output in made(Tower.TEXT, Placement(target, device)).output}
    assert (ROW_CHECK in outputs) == (target is Target.PYTHON)


@pytest.mark.parametrize("name", [name for name in PLACEMENTS if name != "python"])
async def test_the_only_complaint_is_the_missing_backend(
    name: str, installed: Installed, tmp_path: Path
) -> None:
    target = PLACEMENTS[name].target
    placed(tmp_path / "root", PLACEMENTS[name])
    for folder in SPEC.folders.values():
        version = tmp_path / "root" / folder / "1"
        assert not (version / "model.py").exists()
        (version / "model.plan").touch()  # a plan is built on the GPU that will run it
    told = await complaint(tmp_path / "root", installed, tmp_path / "log")
    reason = f"unable to find backend library for backend '{target}'"
    rows = [line for line in told.splitlines() if "UNAVAILABLE: " in line]
    assert len(rows) == 2
    assert all(reason in row for row in rows)


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("max_queue_size", "max_queue_length", 'no field named "max_queue_length"'),
        ("allow_timeout_override: true", "allow_timeout_override: 7", "Error parsing text-format"),
        ("dims: 3\n", "dims: 0\n", "dimension must be integer >= 1, or -1"),
        ("default_priority_level: 1", "default_priority_level: 3", "priority level"),
    ],
)
async def test_a_broken_field_is_refused_by_triton(
    right: str, wrong: str, reason: str, installed: Installed, tmp_path: Path
) -> None:
    placed(tmp_path / "root", PLACEMENTS["onnxruntime on a GPU"])
    path = tmp_path / "root" / SPEC.folders[Tower.IMAGE] / CONFIG
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    assert reason in await complaint(tmp_path / "root", installed, tmp_path / "log")


async def test_triton_keeps_the_bounds_of_its_queue(installed: Installed, tmp_path: Path) -> None:
    """With one place in the queue, most of many calls at once are refused, in so many words."""
    placement = Placement(precision="fp32", queue=Queue(max_requests=1))
    files = placed(tmp_path / "root", placement)
    async with tritonserver(tmp_path / "root", installed, log=tmp_path / "log") as server:
        engine = await TritonEngine.connect(server.address, files)
        calls = (engine.run(Tower.TEXT, texts(64), [EMBEDS[Tower.TEXT]]) for _ in range(40))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await engine.close()
    kinds = {type(answer) for answer in answers}
    assert kinds == {dict, Overloaded}


def test_the_gateway_needs_no_queue_inside_triton_and_on_a_cpu_no_batcher() -> None:
    assert not made(Tower.TEXT, Placement()).HasField("dynamic_batching")
    on_gpu = made(Tower.TEXT, Placement(target=Target.ONNXRUNTIME, device=Device.GPU))
    assert on_gpu.HasField("dynamic_batching")
    assert on_gpu.dynamic_batching == pb.ModelDynamicBatching()


def test_queue_policy_and_priorities() -> None:
    batching = made(Tower.TEXT, Placement(queue=Queue(8, longest_s=5))).dynamic_batching
    policy = batching.default_queue_policy
    assert (batching.priority_levels, batching.default_priority_level) == (2, 1)
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds == 5_000_000
    assert policy.allow_timeout_override
    assert policy.max_queue_size == 8


def test_accelerators() -> None:
    cpu, gpu = (
        made(Tower.TEXT, Placement(Target.ONNXRUNTIME, device)).optimization.execution_accelerators
        for device in Device
    )
    assert [a.name for a in cpu.cpu_execution_accelerator] == ["openvino"]
    assert [a.name for a in gpu.gpu_execution_accelerator] == ["tensorrt", "cuda"]
    options = gpu.gpu_execution_accelerator[0].parameters
    length = SPEC.text.context_length
    assert options["trt_profile_min_shapes"] == "input_ids:1x1"
    assert options["trt_profile_max_shapes"] == f"input_ids:64x{length}"
    assert options["trt_engine_cache_enable"] == "1"


@pytest.mark.parametrize("tower", Tower)
def test_warm_up_is_one_input_and_a_full_batch(tower: Tower) -> None:
    message = made(tower, Placement(max_batch=16))
    assert [(w.name, w.batch_size) for w in message.model_warmup] == [("one", 1), ("full", 16)]
    assert all(-1 not in i.dims for w in message.model_warmup for i in w.inputs.values())


def test_one_config_names_the_space_of_every_version(tmp_path: Path) -> None:
    files = placed(tmp_path, Placement())
    folder = files.tokenizer.parents[1]
    assert fingerprints(folder) == {1: SPEC.fingerprint}
    second = SPEC.model_copy(update={"version": 2, "fingerprint": "e" * 64})
    message = config(
        second, Tower.TEXT, files.graphs[Tower.TEXT], Placement(), fingerprints(folder)
    )
    named = {key: value.string_value for key, value in message.parameters.items()}
    assert named["fingerprint_1"] == SPEC.fingerprint
    assert named["fingerprint_2"] == "e" * 64
    assert message.version_policy.latest.num_versions == 2
    assert serialize(message) == serialize(text_format.Parse(serialize(message), pb.ModelConfig()))


@pytest.mark.parametrize(
    ("target", "device"), [(Target.PYTHON, Device.GPU), (Target.TENSORRT, Device.CPU)]
)
def test_a_target_that_cannot_run_there_is_refused(target: Target, device: Device) -> None:
    with pytest.raises(ValueError, match=str(target)):
        Placement(target, device)
