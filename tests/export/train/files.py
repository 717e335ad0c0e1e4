"""Small files of pairs, written as other tools write them."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(number: int, size: tuple[int, int] = (24, 24), kind: str = "PNG") -> bytes:
    """Noise that no other number has."""
    noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def tar_of_pairs(path: Path, numbers: Sequence[int]) -> Path:
    members = []
    for number in numbers:
        members.append((f"{number:04}.png", picture(number)))
        members.append((f"{number:04}.txt", f"caption {number}".encode()))
    return tar(path, members)


def csv_of_pairs(path: Path, numbers: Sequence[int]) -> Path:
    """Pictures lie beside the table, in `pictures`."""
    folder = path.parent / "pictures"
    folder.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        rows.writerow(["filepath", "title"])
        for number in numbers:
            (folder / f"{number}.png").write_bytes(picture(number))
            rows.writerow([f"pictures/{number}.png", f"caption {number}"])
    return path


def parquet_of_pairs(path: Path, numbers: Sequence[int]) -> Path:
    """As `datasets` writes them: structs of bytes and path; groups of four rows."""
    images = [{"bytes": picture(number), "path": f"{number}.png"} for number in numbers]
    texts = [f"caption {number}" for number in numbers]
    pq.write_table(pa.table({"image": images, "text": texts}), path, row_group_size=4)
    return path
