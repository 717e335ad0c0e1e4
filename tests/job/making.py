"""Data sets for offline jobs, and jobs run over them as the command line does."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from diptych.commands import job as command
from diptych.commands.job import How
from diptych.job.plan import Wanted
from tests.serving import REPOSITORY

HOW = How(repository=REPOSITORY)
ROOT = Path(__file__).parents[2]


def jpeg(number: int, side: int = 40) -> bytes:
    """A picture of its own for every number: a few soft patches of colour."""
    patches = np.random.default_rng(number).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(patches).resize((side, side)).save(stream, "JPEG")
    return stream.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_tars(folder: Path, inputs: int, per_tar: int) -> str:
    """A webdataset of pictures and captions; what to give as its source."""
    for first in range(0, inputs, per_tar):
        numbers = range(first, min(first + per_tar, inputs))
        files = [
            (f"{n:05d}.{kind}", content)
            for n in numbers
            for kind, content in (("jpg", jpeg(n)), ("txt", f"picture {n}".encode()))
        ]
        write_tar(folder / f"{first // per_tar:03d}.tar", files)
    return str(folder / "*.tar")


def run(source: object, destination: Path, how: How = HOW, **wanted: Any) -> int:
    """`diptych job run` in this process; its exit status."""
    try:
        command.run(str(source), destination, Wanted(**wanted), how)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def arguments(source: object, destination: Path, *more: str) -> list[str]:
    """`diptych job run` as a process of its own."""
    python = [sys.executable, "-W", "error", "-m", "diptych"]
    what = ["job", "run", str(source), str(destination)]
    return [*python, *what, "--repository", str(REPOSITORY), *more]


def finish(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **how.pop("env", {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, **how)


def rows(destination: Path) -> list[dict[str, Any]]:
    """Every row written, in the order of the source."""
    files = sorted((destination / "shards").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def shard_bytes(destination: Path) -> dict[str, bytes]:
    """Every shard file as it lies there: equal means equal to the last bit."""
    files = [path for path in destination.rglob("*") if path.suffix in (".parquet", ".npy")]
    return {str(path.relative_to(destination)): path.read_bytes() for path in files}
