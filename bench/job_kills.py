"""What an offline job has written after it was killed again and again.

    python -m bench.job_kills --inputs 20000 --kills 50

Makes a webdataset of small JPEGs, 5 % of them broken; runs `diptych job` over it undisturbed, then
as often as it takes while it is killed with kill -9 at random instants, then with four workers of
which two are killed. Prints what was found. Status 1 if a row is missing, is there twice, or
differs by a bit.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.job_data import command, small_jpeg, webdataset

PER_TAR = 1000
BROKEN_EVERY = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-size", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(0 if _measure(Path(name), options) else 1)


def _measure(root: Path, options: argparse.Namespace) -> bool:
    source = webdataset(root / "source", options.inputs, PER_TAR, _content)
    flags = ["--shard-size", str(options.shard_size)]
    started = time.monotonic()
    _run(source, root / "whole", *flags)
    whole_s = time.monotonic() - started
    _say("undisturbed", f"{whole_s:.1f} s, {options.inputs / whole_s:.0f} inputs/s with its start")
    expected = _rows(root / "whole")
    rejected = sum(vector is None for vector in expected.values())
    _say("rows", f"{len(expected):,}, {rejected:,} of them rejects")
    hits = _kill(source, root / "killed", flags, options, whole_s)
    _run(source, root / "killed", *flags)
    same = _compare(expected, root / "killed", f"after {hits} kills")
    _kill_two_of_four(source, root / "four", flags)
    return _compare(expected, root / "four", "two of four workers killed") and same


def _content(number: int) -> bytes:
    whole = small_jpeg(number)
    return whole if number % BROKEN_EVERY else whole[: len(whole) // 2]


def _run(source: str, destination: Path, *flags: str) -> None:
    done = subprocess.run(command(source, destination, *flags), stdout=subprocess.DEVNULL)
    status = done.returncode
    assert status == 3, f"status {status}"  # some were rejected


def _kill(
    source: str, destination: Path, flags: list[str], options: argparse.Namespace, whole_s: float
) -> int:
    """Kill as many runs, each at an instant of its own; how many were running when it came."""
    random, hits = Random(options.seed), 0
    for _ in range(options.kills):
        # Starting and verifying takes about a second; the rest is shared out among the runs.
        instant_s = random.uniform(0.2, 1.5 + 1.6 * whole_s / options.kills)
        process = subprocess.Popen(
            command(source, destination, *flags),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(instant_s)
        except subprocess.TimeoutExpired:
            hits += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return hits


def _kill_two_of_four(source: str, destination: Path, flags: list[str]) -> None:
    process = subprocess.Popen(
        command(source, destination, *flags, "--workers", "4"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(destination.glob("shards/*.parquet"))) < 4 and process.poll() is None:
        time.sleep(0.01)
    found = psutil.Process(process.pid).children(recursive=True)
    for victim in [child for child in found if "spawn_main" in " ".join(child.cmdline())][:2]:
        victim.kill()
    assert process.wait() == 3


def _rows(destination: Path) -> dict[str, bytes | None]:
    """Every id's vector, to the bit; None for a reject."""
    found = Counter[str]()
    vectors: dict[str, bytes | None] = {}
    for name, vector in _read(destination):
        found[name] += 1
        vectors[name] = vector
    twice = [name for name, count in found.items() if count > 1]
    assert not twice, f"there twice: {twice[:3]}"
    return vectors


def _read(destination: Path) -> Iterator[tuple[str, bytes | None]]:
    for path in sorted(destination.glob("shards/*.parquet")):
        table = pq.read_table(path, columns=["id", "image_vector"])
        for row in table.to_pylist():
            vector = row["image_vector"]
            yield row["id"], None if vector is None else np.array(vector, np.float16).tobytes()


def _compare(expected: dict[str, bytes | None], destination: Path, when: str) -> bool:
    found = _rows(destination)
    missing, strange = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
    differing = sum(found[name] != expected[name] for name in expected.keys() & found.keys())
    verified = subprocess.run(
        [sys.executable, "-m", "diptych", "job", "verify", str(destination)],
        stdout=subprocess.DEVNULL,
    )
    _say(when, f"{missing} missing, {strange} too many, {differing} differing in any bit")
    _say("  diptych job verify", "all well" if verified.returncode == 0 else "complains")
    return not (missing or strange or differing or verified.returncode)


def _say(name: str, value: str) -> None:
    print(f"{name:<34}{value}", flush=True)


if __name__ == "__main__":
    main()
