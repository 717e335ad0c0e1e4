"""`diptych job …`: offline runs over data sets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from diptych.commands.connection import NO_CONNECTION, Connecting, Connection
from diptych.job.destination import Standing, all_rejects, begin, standing
from diptych.job.destination import verify as problems
from diptych.job.embedders import GATEWAY, EngineChoice, space_of
from diptych.job.launch import Running
from diptych.job.launch import run as launch
from diptych.job.plan import Wanted
from diptych.job.preview import preview
from diptych.job.progress import Progress
from diptych.job.run import Share
from diptych.settings import Settings

SOME_REJECTED = 3  # exit status

app = cyclopts.App(
    name="job",
    help="Embed a data set: millions of images or texts in, shards of vectors out, resumable.",
)
out = Console(highlight=False, soft_wrap=True)
errors = Console(highlight=False, soft_wrap=True, stderr=True)

Destination = Annotated[Path, Parameter(help="The folder that a job writes.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="JSON, for programs.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How it is run; may change from run to run of one job. Each field is a flag."""

    repository: Path = Path("model_repository")
    """The model repository, unless a gateway embeds."""

    model: str = ""
    """Which model; by default the only one there is, or the gateway's default."""

    model_version: int = 0
    """Of the model; 0: the newest. A job that was begun with an older one goes on with it."""

    engine: str = "embedded"
    """What makes the vectors: embedded (in each worker), triton://HOST:PORT, or a
    running gateway at bulk priority, gateway://HOST:PORT."""

    provider: Literal["auto", "openvino", "cpu"] = "auto"
    """Of the embedded engine: OpenVINO on Linux on x86-64, else ONNX Runtime on the CPU."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the embedded engine under OpenVINO."""

    threads: int = 0
    """Engine threads of each worker; 0: the cores shared out among them."""

    decoders: int = 0
    """Inputs read and decoded at once by each worker; 0: as for threads, at least 16 from a URL."""

    workers: int = 1
    """Processes on this machine. They share out the parts; what a dead one had, others take."""

    runner: Literal["processes", "ray"] = "processes"
    """What runs the workers: processes of this command, or actors on Ray (extra [ray]), on the
    cluster that RAY_ADDRESS names or else on this machine."""

    machines: int = 1
    """Machines on one destination, for a Kubernetes Indexed Job: its number of completions."""

    machine: int | None = None
    """Which of the machines this is, from 0; by default JOB_COMPLETION_INDEX, which Kubernetes
    sets."""

    skip_unreachable: bool = False
    """Reject an input whose place does not answer after several tries, as hosts of old URLs do
    not, rather than stop the run. While the network is down that rejects everything."""

    patience_s: float = 60.0
    """Seconds to wait for an engine that is away, before the run ends and can be resumed."""


@app.command
def run(
    source: Annotated[
        str,
        Parameter(help="A file, folder, glob or URL of any fsspec kind; {0000..0127} and {a,b}."),
    ],
    destination: Destination,
    wanted: Annotated[Wanted, Parameter(name="*")] = Wanted(),  # noqa: B008 (frozen)
    how: Annotated[How, Parameter(name="*")] = How(),
    connection: Connecting = NO_CONNECTION,
    *,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Count and sample the source; embed and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Embed every input of a source; go on where a run of the same job was stopped.

    Exit status 0: every input has its vector; 3: some were rejected, each listed with its reason
    (`diptych job status DESTINATION --rejects`); 1: the run failed, and the same command goes on.

    Example: diptych job run photos/ vectors/

    Example: diptych job run "s3://laion/{00000..00127}.tar" vectors/ --workers 4 --keep caption

    Example: diptych job run captions.parquet vectors/ --kind text --text caption --dtype float32

    Example: diptych job run "shards/*.tar" vectors/ --engine gateway://localhost:50051

    Example: diptych job run pairs.csv out/ --kind pair --layout clip-retrieval --dry-run
    """
    _check_destination(destination)
    if dry_run:
        _print(asdict(preview(source, wanted)), as_json)
        return
    choice, share = _choice(how, connection), _share(how, os.environ)
    space = asyncio.run(space_of(choice))
    job = begin(source, destination, wanted, space, share, _say)
    progress = Progress(destination, errors)
    running = Running(destination, job, choice, share, how.skip_unreachable)
    if how.runner == "ray":
        from diptych.job import scale  # needs the extra [ray]

        scale.run(running, progress.show)
    else:
        launch(running, _say, progress.show)
    progress.end()
    found = standing(destination)
    _print({**_summary(found), **progress.pace(found)}, as_json)
    if found.rejected:
        sys.exit(SOME_REJECTED)


@app.command
def status(
    destination: Destination,
    *,
    rejects: Annotated[
        bool, Parameter(negative="", help="List every reject with its reason instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far a job is, by its manifest.

    Example: diptych job status vectors/ --rejects --json
    """
    if not rejects:
        _print(_summary(standing(destination)), as_json)
        return
    for name, reason in all_rejects(destination):
        _print({"id": name, "reason": reason}, as_json, one_line=True)


@app.command
def verify(destination: Destination, *, as_json: AsJson = False) -> None:
    """Read every shard, and name whatever is damaged, missing or not done.

    Exit status 1 if anything is; `diptych job run` with the first run's source and settings does
    just that again.

    Example: diptych job verify vectors/
    """
    found = list(problems(destination))
    for problem in found:
        _print({"problem": problem}, as_json, one_line=True)
    if not found:
        _print({**_summary(standing(destination)), "verified": True}, as_json)
    sys.exit(1 if found else 0)


def _check_destination(destination: Path) -> None:
    """Raises ValueError for what is no folder."""
    if re.match(r"\w[\w+.-]*:/", str(destination)):
        raise ValueError("the destination is a local or mounted folder; URLs are for sources")


def _choice(how: How, connection: Connection) -> EngineChoice:
    """Raises ValueError for what cannot be."""
    gateway = how.engine.removeprefix(GATEWAY) if how.engine.startswith(GATEWAY) else ""
    settings = Settings(
        repository=how.repository,
        model=(how.model,) if how.model else (),
        engine="embedded" if gateway else how.engine,
        provider=how.provider,
        precision=how.precision,
        threads=how.threads,
        decoders=how.decoders,
    )
    return EngineChoice(
        settings=settings,
        gateway=gateway,
        credentials=connection.credentials(),
        model_version=how.model_version or None,
        patience_s=how.patience_s,
    )


def _share(how: How, env: Mapping[str, str]) -> Share:
    machine = how.machine
    if machine is None:
        machine = int(env.get("JOB_COMPLETION_INDEX", 0)) if how.machines > 1 else 0
    if how.workers < 1:
        raise ValueError("workers must be at least 1")
    if how.runner == "ray" and how.machines > 1:
        raise ValueError("Ray spreads its workers over machines by itself; leave out --machines")
    if not 0 <= machine < how.machines:
        raise ValueError(f"machine {machine} is none of {how.machines}, which count from 0")
    return Share(machine=machine, machines=how.machines, workers=how.workers)


def _summary(found: Standing) -> dict[str, Any]:
    job = found.job
    return {
        "source": job.source,
        "model": job.space.model,
        "fingerprint": job.space.fingerprint,
        "done": found.is_done,
        "parts": found.parts,
        "parts_done": found.parts_done,
        "shards": found.shards,
        "inputs": found.inputs,
        "ok": found.ok,
        "rejected": found.rejected,
        "engines": found.engines,
    }


def _print(record: dict[str, Any], as_json: bool, *, one_line: bool = False) -> None:
    if as_json:
        print(json.dumps(record, ensure_ascii=False))  # noqa: T201 (rich would wrap it)
        return
    lines = [f"{key}: {value}" for key, value in record.items()]
    out.print("  ".join(lines) if one_line else "\n".join(lines), markup=False)


def _say(line: str) -> None:
    errors.print(line, markup=False)
