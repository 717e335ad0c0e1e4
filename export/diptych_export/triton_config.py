"""A spec and a graph in, Triton's config.pbtxt out, through the message Triton itself reads."""

from __future__ import annotations

import enum
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diptych.contract import ModelSpec, Priority, Tower
from diptych.engines.triton_checks import FINGERPRINT
from diptych.engines.triton_rows import ROW_CHECK
from diptych.errors import BadRepository
from diptych.repository import GRAPH, SPEC
from diptych_export.triton_tensors import Tensors, shapes, tensors

CONFIG = "config.pbtxt"
CACHE = "/var/cache/triton"  # where TensorRT keeps what it built; a volume that outlives the pod

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]

KEPT_VERSIONS = 2  # the new one is loaded beside the old, which stays until nobody asks for it

_PRECISIONS: dict[str, Precision] = {"auto": "auto", "fp32": "fp32", "bf16": "bf16"}


class Target(enum.StrEnum):
    """What runs the graph inside Triton."""

    ONNXRUNTIME = "onnxruntime"  # official images, CPU or GPU: model.onnx
    TENSORRT = "tensorrt"  # official images, GPU: model.plan, built from model.onnx on such a GPU
    PYTHON = "python"  # any Triton with the Python backend, CPU: model.py beside model.onnx


class Device(enum.StrEnum):
    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Queue:
    """Bounds on what waits inside Triton, and two priorities: for callers other than the gateway.

    The gateway needs none of it: it admits, orders and gives up by itself. And each of these makes
    Triton stop preparing the next batch while one runs; in 2.51 and other releases nothing then
    wakes it when an instance falls free, and whatever waits does so for up to 500 ms.
    """

    max_requests: int = 64  # that wait, per tower; past it Triton refuses at once
    longest_s: int = 30  # what a request may wait at most; each may say less


@dataclass(frozen=True, slots=True)
class Placement:
    """How Triton is to run the towers of one model."""

    target: Target = Target.PYTHON
    device: Device = Device.CPU
    instances: int = 1  # of each tower; on a GPU a second one copies while the first computes
    max_batch: int = 64  # inputs per call, over all requests that Triton puts together
    threads: int = 0  # per instance on a CPU; 0: all there are. Instances times threads <= cores
    precision: Precision = "auto"  # of target python, as `diptych serve`'s
    queue: Queue | None = None

    def __post_init__(self) -> None:
        if self.target is Target.PYTHON and self.device is Device.GPU:
            raise ValueError("target python runs on CPUs; for a GPU take onnxruntime or tensorrt")
        if self.target is Target.TENSORRT and self.device is Device.CPU:
            raise ValueError("target tensorrt needs device gpu")


def write(root: Path, spec: ModelSpec, placement: Placement, older: Mapping[int, str]) -> None:
    """Put what Triton needs beside the graphs in `root`, in place of what is there.

    That is config.pbtxt, and for the target `python` a model.py in every version folder. `older`
    is as for `config`. Graphs and spec stay as they are, and so does the fingerprint.
    """
    for tower, name in spec.folders.items():
        folder = root / name
        graph = folder / str(spec.version) / GRAPH
        for version in folder.glob(f"*/{GRAPH}"):
            model = version.with_name("model.py")
            if placement.target is Target.PYTHON:
                shutil.copyfile(Path(__file__).with_name("triton_model.py"), model)
            else:
                model.unlink(missing_ok=True)
        text = serialize(config(spec, tower, graph, placement, older))
        fresh = folder / f"{CONFIG}.new"
        fresh.write_text(text)
        os.replace(fresh, folder / CONFIG)  # Triton may be polling


def placement(folder: Path) -> Placement:
    """What `write` was told for the tower in `folder`, read from its config.pbtxt.

    Raises:
        BadRepository: there is none, or it is none of ours.
    """
    try:
        message = text_format.Parse((folder / CONFIG).read_text(), pb.ModelConfig())
        return _placement(message)
    except (OSError, ValueError, KeyError, text_format.ParseError) as error:
        raise BadRepository(f"{folder / CONFIG}: {error}") from error


def fingerprints(folder: Path) -> dict[int, str]:
    """The fingerprints of all versions in a tower's folder, by version; none where it is not."""
    found = (json.loads(path.read_text()) for path in folder.glob(f"*/{SPEC}"))
    return {spec["version"]: spec["fingerprint"] for spec in found}


def config(
    spec: ModelSpec,
    tower: Tower,
    graph: Path,
    placement: Placement,
    older: Mapping[int, str],
) -> pb.ModelConfig:
    """The config of one tower. `graph` is its ONNX file: names, types and shapes are read there.

    `older` holds the fingerprints of the versions beside this one, by version: Triton has one
    config for all versions of a model, and the gateway asks for the fingerprint of each.
    """
    inputs, outputs = tensors(graph)
    if placement.target is Target.PYTHON:
        outputs = {**outputs, ROW_CHECK: (pb.TYPE_INT64, [2])}
    fingerprints = {**older, spec.version: spec.fingerprint}
    parameters = {FINGERPRINT.format(version=v): f for v, f in sorted(fingerprints.items())}
    return pb.ModelConfig(
        name=spec.folders[tower],
        backend=placement.target.value,
        max_batch_size=placement.max_batch,
        version_policy=pb.ModelVersionPolicy(
            latest=pb.ModelVersionPolicy.Latest(num_versions=KEPT_VERSIONS)
        ),
        input=[pb.ModelInput(name=n, data_type=k, dims=d) for n, (k, d) in inputs.items()],
        output=[pb.ModelOutput(name=n, data_type=k, dims=d) for n, (k, d) in outputs.items()],
        dynamic_batching=_batching(placement),
        instance_group=[_instances(placement)],
        optimization=_accelerators(spec, inputs, placement),
        model_warmup=_warmup(spec, inputs, placement),
        parameters={
            key: pb.ModelParameter(string_value=value)
            for key, value in {**parameters, **_runtime(placement)}.items()
        },
    )


def serialize(message: pb.ModelConfig) -> str:
    """The text of config.pbtxt."""
    return text_format.MessageToString(message)


def _placement(message: pb.ModelConfig) -> Placement:
    [group] = message.instance_group
    own = {key: value.string_value for key, value in message.parameters.items()}
    batching = message.dynamic_batching
    waiting = batching.default_queue_policy
    longest_s = waiting.default_timeout_microseconds // 1_000_000
    return Placement(
        target=Target(message.backend),
        device=Device.GPU if group.kind == group.KIND_GPU else Device.CPU,
        instances=group.count,
        max_batch=message.max_batch_size,
        threads=int(own.get("threads") or own.get("intra_op_thread_count") or 0),
        precision=_PRECISIONS[own.get("precision", "auto")],
        queue=Queue(waiting.max_queue_size, longest_s) if batching.priority_levels else None,
    )


def _batching(placement: Placement) -> pb.ModelDynamicBatching | None:
    """No delay: an idle instance starts at once, a busy one lets work gather.

    None for the target `python`: on a CPU what several gateways send is hardly cheaper together,
    and model.py itself leaves out what was given up. The batcher's thread would cost more: in 2.51
    it spins while requests wait that cannot be put together, texts of unlike lengths, and takes up
    to half a core from the towers.
    """
    if (queue := placement.queue) is None:
        return None if placement.target is Target.PYTHON else pb.ModelDynamicBatching()
    return pb.ModelDynamicBatching(
        priority_levels=len(Priority),
        default_priority_level=Priority.INTERACTIVE,
        default_queue_policy=pb.ModelQueuePolicy(
            timeout_action=pb.ModelQueuePolicy.REJECT,
            default_timeout_microseconds=queue.longest_s * 1_000_000,
            allow_timeout_override=True,  # downwards only, so the default must not be 0
            max_queue_size=queue.max_requests,
        ),
    )


def _instances(placement: Placement) -> pb.ModelInstanceGroup:
    group = pb.ModelInstanceGroup
    kind = group.KIND_GPU if placement.device is Device.GPU else group.KIND_CPU
    return group(kind=kind, count=placement.instances)


def _accelerators(
    spec: ModelSpec, inputs: Tensors, placement: Placement
) -> pb.ModelOptimizationPolicy | None:
    """What ONNX Runtime hands the graph to; the other targets need nothing."""
    if placement.target is not Target.ONNXRUNTIME:
        return None
    both = pb.ModelOptimizationPolicy.ExecutionAccelerators
    if placement.device is Device.CPU:
        chosen = both(cpu_execution_accelerator=[both.Accelerator(name="openvino")])
    else:
        tensorrt = both.Accelerator(name="tensorrt", parameters=_tensorrt(spec, inputs, placement))
        # For what TensorRT leaves over.
        cuda = both.Accelerator(name="cuda", parameters={"cudnn_conv_use_max_workspace": "1"})
        chosen = both(gpu_execution_accelerator=[tensorrt, cuda])
    return pb.ModelOptimizationPolicy(execution_accelerators=chosen)


def _tensorrt(spec: ModelSpec, inputs: Tensors, placement: Placement) -> dict[str, str]:
    profiles = {
        f"trt_profile_{name}_shapes": ",".join(
            f"{tensor}:{'x'.join(map(str, shape))}" for tensor, shape in by_input.items()
        )
        for name, by_input in shapes(spec, inputs, placement.max_batch).items()
    }
    return {
        "max_workspace_size_bytes": str(4 * 2**30),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": CACHE,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": CACHE,
        **profiles,
    }


def _warmup(spec: ModelSpec, inputs: Tensors, placement: Placement) -> list[pb.ModelWarmup]:
    """One input, and as many as fit, both at full length; the model is not ready before."""
    length = spec.text.context_length
    zeros = {
        name: pb.ModelWarmup.Input(
            data_type=kind,
            dims=[length if dim == -1 else dim for dim in dims],
            zero_data=True,
        )
        for name, (kind, dims) in inputs.items()
    }
    sizes = {"one": 1, "full": placement.max_batch}
    return [pb.ModelWarmup(name=n, batch_size=s, inputs=zeros) for n, s in sizes.items()]


def _runtime(placement: Placement) -> dict[str, str]:
    """Parameters that the target itself reads."""
    if placement.device is Device.GPU:
        return {}
    if placement.target is Target.PYTHON:
        return {"threads": str(placement.threads), "precision": placement.precision}
    return {"intra_op_thread_count": str(placement.threads)}
