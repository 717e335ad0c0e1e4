"""`diptych-export build`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from diptych.contract import ModelSpec
from diptych_export import calibration
from diptych_export.build import build as make
from diptych_export.errors import BadBuild
from diptych_export.extras import extended
from diptych_export.onnx import OLDEST_OPSET, OPSET
from diptych_export.precision import Making
from diptych_export.sources.base import Source
from diptych_export.sources.opening import open_source
from diptych_export.triton_config import Device, Placement, Target

out = Console(highlight=False)
progress = Console(highlight=False, stderr=True)  # so that stdout is for results alone


def _nameable(_: Any, name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise ValueError("up to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")


Name = Annotated[str, Parameter(validator=_nameable)]
Opset = Annotated[int, Parameter(validator=validators.Number(gte=OLDEST_OPSET, lte=OPSET))]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be built. Each field is a flag."""

    source: Annotated[str, Parameter(name="--from")]
    """A folder in transformers' or OpenCLIP's layout (`train` writes them), an id on the Hugging
    Face hub, or one of OpenAI's .pt files with its vocabulary beside it."""

    name: Name
    """What the model is called in the repository and by callers."""

    repository: Path = Path("model_repository")
    """The model repository; it is made if there is none."""

    target: Literal["onnxruntime", "tensorrt", "python"] = "onnxruntime"
    """What runs the graphs inside Triton: its ONNX Runtime or TensorRT backend, or a model.py for
    a Triton that has only Python. A tensorrt build is complete after `diptych-export plan` on the
    GPU that will serve it. The gateway's own engine runs all of them."""

    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    """Of the weights. fp16 also multiplies in fp16, for GPUs; bf16 halves the files; int8 also
    multiplies in int8, for CPUs with AMX or VNNI, and needs --calibrate."""

    calibrate: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Pairs of the kind to be served, as `train --data` takes them. Of 256, three in four set the
    ranges of int8, the others are compared. Repeatable."""

    hidden_states: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0
    """Of so many last layers of the text tower the states become outputs, as they are and after
    the final norm: what clip-skip takes. sd15 with a clip-skip of 1 takes 2, sdxl 3; without any,
    sd15, sdxl and most others have what they take. Each is computed only where it is asked for."""

    attention_mask: Annotated[bool, Parameter(negative="")] = False
    """The text tower heeds a mask, so that tokens do not see the padding: Stable Cascade's does.
    Vectors are the same either way where the tower is causal."""

    opset: Opset = OPSET
    """Of ONNX: 18, 19 or 20."""

    device: Literal["cpu", "gpu"] | None = None
    """Where Triton runs the graphs; by default a CPU, for tensorrt a GPU."""

    licence: str | None = None
    """SPDX identifier; by default what the checkpoint says."""


def build(wanted: Annotated[Wanted, Parameter(name="*")], *, as_json: AsJson = False) -> None:
    """Export a checkpoint to a model repository, as one more version, once it is proved.

    Both graphs have to answer as the checkpoint's own library does, on 32 pictures and 64 texts
    and for every output: cosine 0.99999 in fp32, 0.999 in bf16 and fp16, 0.995 in int8, there
    with 99 % of the best matches. Else nothing is published, and what strays is named.

    Example: diptych-export build --from openai/clip-vit-base-patch32 --name clip

    Example: diptych-export build --from runs/b32/checkpoints/10000 --name clip --precision int8
    --calibrate 'shards/{000..003}.tar' --json
    """
    placement = _placement(wanted.target, wanted.device)
    precision, data = wanted.precision, wanted.calibrate
    if bool(data) != (precision == "int8"):
        problem = "is not calibrated: leave --calibrate out" if data else "needs --calibrate"
        raise BadBuild(f"--precision {precision} {problem}")
    progress.print(f"reading {wanted.source}")
    source = extended(
        open_source(wanted.source, licence=wanted.licence),
        hidden_states=wanted.hidden_states,
        attention_mask=wanted.attention_mask,
    )
    making = Making(precision, wanted.opset, _calibration(data, source) if data else None)
    spec = make(source, wanted.name, wanted.repository, placement, making, progress.print)
    _print(_found(spec, wanted.repository, placement), as_json)


def _placement(target: str, device: str | None) -> Placement:
    usual = Device.GPU if target == Target.TENSORRT else Device.CPU
    try:
        return Placement(Target(target), Device(device) if device else usual)
    except ValueError as error:
        raise BadBuild(str(error)) from error


def _calibration(data: tuple[str, ...], source: Source) -> calibration.Calibration:
    found = calibration.read(data, source.image)
    pairs = len(found.texts) + len(found.held_texts)
    progress.print(f"calibrating with {pairs} pairs; {found.skipped} could not be read")
    return found


def _found(spec: ModelSpec, root: Path, placement: Placement) -> dict[str, Any]:
    folders = {str(tower): root / name / str(spec.version) for tower, name in spec.folders.items()}
    graphs = {tower: sorted(folder.glob("model.onnx*")) for tower, folder in folders.items()}
    found: dict[str, Any] = {
        "model": spec.name,
        "version": spec.version,
        "fingerprint": spec.fingerprint,
        "precision": spec.precision,
        "target": str(placement.target),
        "device": str(placement.device),
        "folders": {tower: str(folder) for tower, folder in folders.items()},
        "bytes": {tower: sum(f.stat().st_size for f in own) for tower, own in graphs.items()},
        "parity": spec.parity,
    }
    if placement.target is Target.TENSORRT:
        plan = f"diptych-export plan --name {spec.name} --repository {root}"
        found["remains"] = f"{plan}, on the GPU that will serve it"
    return found


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))  # noqa: T201 (rich would wrap it)
        return
    table = Table("what", "value")
    for name, value in found.items():
        for inner, own in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{own:.7f}" if isinstance(own, float) and own <= 1 else str(own)
            table.add_row(f"{name} {inner}".strip(), shown)
    out.print(table)
