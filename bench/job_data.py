"""Data sets for offline jobs, made on the spot."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def webdataset(folder: Path, inputs: int, per_tar: int, content: Callable[[int], bytes]) -> str:
    """Tars of `per_tar` JPEGs, of which number n has `content(n)`; what to give as a source."""
    folder.mkdir(parents=True)
    for first in range(0, inputs, per_tar):
        with tarfile.open(folder / f"{first // per_tar:05d}.tar", "w") as tar:
            for number in range(first, min(first + per_tar, inputs)):
                encoded = content(number)
                member = tarfile.TarInfo(f"{number:07d}.jpg")
                member.size = len(encoded)
                tar.addfile(member, io.BytesIO(encoded))
    return str(folder / "*.tar")


def small_jpeg(number: int, side: int = 64) -> bytes:
    """A picture of its own for every number: a few soft patches of colour."""
    patches = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(patches).resize((side, side)).save(stream, "JPEG")
    return stream.getvalue()


def command(source: str, destination: Path, *flags: str) -> list[str]:
    """`diptych job run` as a process of its own."""
    return [sys.executable, "-m", "diptych", "job", "run", source, str(destination), *flags]
