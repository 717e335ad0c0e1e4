"""How near an offline job comes to what the machine could do with decoding and the engine alone.

    python -m bench.job_speed --inputs 1500

A ViT-B/32 of random weights over 640x480 JPEGs in webdataset tars. The ceiling is that of
`make bench` (`bench/ceiling.py`), measured before and after the job; the higher counts, because
neighbours only ever lower it. The job's rate is given with its start, and without: what a job of
one batch takes is taken off, with its batch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import model
from bench.ceiling import ceiling
from bench.job_data import command, webdataset
from bench.processes import Machine, machine
from bench.traffic import CASES, pictures

_BATCH = 64  # inputs, as a job has them if not told otherwise
_PER_TAR = 500


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--inputs", type=int, default=1500)
    reader.add_argument("--shard-size", type=int, default=500)
    reader.add_argument("--workers", type=int, default=1)
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the model")
    options = reader.parse_args()
    repository = model.build(options.folder)
    with tempfile.TemporaryDirectory() as name, machine(repository, model.NAME) as alone:
        _measure(Path(name), repository, alone, options)


def _measure(root: Path, repository: Path, alone: Machine, options: argparse.Namespace) -> None:
    drawn = pictures("image")
    source = webdataset(root / "in", options.inputs, _PER_TAR, lambda n: drawn[n % len(drawn)])
    flags = ["--repository", str(repository), "--model", model.NAME, "--json"]
    flags += ["--shard-size", str(options.shard_size), "--workers", str(options.workers)]
    before = _ceiling(alone)
    start = _run(source, root / "start", *flags, "--limit", str(_BATCH))
    whole = _run(source, root / "whole", *flags)
    after = _ceiling(alone)
    assert (whole["ok"], start["ok"]) == (options.inputs, _BATCH)
    highest = max(before, after)
    steady = (options.inputs - _BATCH) / (whole["seconds"] - start["seconds"])
    _say("ceiling, before and after", f"{before:.2f} and {after:.2f} inputs/s")
    _say("job of one batch", f"{start['seconds']:.1f} s, most of it the engine's start")
    for name, rate in (("with its start", options.inputs / whole["seconds"]), ("without", steady)):
        _say(f"job of {options.inputs:,}, {name}", f"{rate:.2f} inputs/s, {rate / highest:.3f}")


def _ceiling(alone: Machine) -> float:
    case = CASES["image"]
    found = ceiling(case, alone.anew(case))
    assert found is not None
    return found


def _run(source: str, destination: Path, *flags: str) -> dict[str, Any]:
    """A job's own summary."""
    done = subprocess.run(
        command(source, destination, *flags), stdout=subprocess.PIPE, stderr=sys.stderr, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _say(name: str, value: str) -> None:
    print(f"{name:<34}{value}", flush=True)


if __name__ == "__main__":
    main()
