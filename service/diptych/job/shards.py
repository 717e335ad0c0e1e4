"""Rows in, one shard's files out, in a layout that other programs read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from diptych.contract import Tower, Vector
from diptych.errors import BadJob
from diptych.job.files import digest, make_aside
from diptych.job.manifest import File
from diptych.job.plan import Job

OK = "ok"
REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one input."""

    id: str
    vectors: dict[Tower, Vector]  # [D] of each tower wanted; none of a rejected input
    error: str | None  # why it was rejected
    content_sha256: str | None  # None where the content was never read
    metadata: dict[str, str | None] = field(default_factory=dict)
    text: str | None = None  # of clip-retrieval's captions


def write_shard(destination: Path, job: Job, key: tuple[int, int], rows: list[Row]) -> list[File]:
    """Write one shard, whole or not at all, and say what is in it.

    Raises:
        BadJob: it cannot be written.
    """
    made = _LAYOUTS[job.wanted.layout](job, f"{key[0]:06d}-{key[1]:04d}", rows)
    files = []
    for name, make in made.items():
        path = destination / name
        make_aside(path, make)
        files.append(File(name, path.stat().st_size, digest(path)))
    return files


def count(destination: Path, files: Sequence[File]) -> tuple[int, int]:
    """How many inputs a shard's files hold: with vectors, and rejected."""
    if any(file.name.endswith(".npy") for file in files):
        held = [_length(destination / file.name) for file in files]
        if len(set(held[:-1])) > 1:  # its arrays and their metadata; the last are the rejects
            return -1, -1
        return held[0], held[-1]
    status = pq.read_table(destination / files[0].name, columns=["status"])["status"].to_pylist()
    return status.count(OK), status.count(REJECTED)


def rejects(destination: Path, files: Sequence[File]) -> list[tuple[str, str]]:
    """Id and reason of every reject of a shard, in order.

    Raises:
        BadJob: its file is damaged or missing.
    """
    names, path = ["id", "status", "error"], destination / files[-1].name
    try:
        rows = pq.read_table(path, columns=names).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadJob(f"{path}: {reason}; diptych job verify names all that is damaged") from error
    return [(row["id"], row["error"]) for row in rows if row["status"] == REJECTED]


Made = dict[str, Callable[[Path], object]]  # by name, what writes a file


def _parquet(job: Job, number: str, rows: list[Row]) -> Made:
    """One table: every input, in order, rejected ones with null for a vector."""
    vectors = {f"{tower}_vector": _vectors(job, tower, rows) for tower in job.wanted.towers}
    table = _table(job, rows, vectors)
    return {f"shards/{number}.parquet": partial(pq.write_table, table, **_HOW)}


def _clip_retrieval(job: Job, number: str, rows: list[Row]) -> Made:
    """As `clip-retrieval inference` writes: arrays of embedded inputs, row by row their metadata;
    and, in a folder of their own, the rejects."""
    good = [row for row in rows if row.error is None]
    made: Made = {}
    for tower, short in ((Tower.IMAGE, "img"), (Tower.TEXT, "text")):
        if tower in job.wanted.towers:
            array = _array(job, tower, good)
            name = f"{short}_emb/{short}_emb_{number}.npy"
            made[name] = partial(_save, array)
    columns: dict[str, Any] = {"image_path": _strings([row.id for row in good])}
    if Tower.TEXT in job.wanted.towers:
        columns["caption"] = _strings([row.text for row in good])
    metadata = _table(job, good, columns)
    bad = _table(job, [row for row in rows if row.error is not None], {})
    made[f"metadata/metadata_{number}.parquet"] = partial(pq.write_table, metadata, **_HOW)
    made[f"rejected/rejected_{number}.parquet"] = partial(pq.write_table, bad, **_HOW)
    return made


_LAYOUTS: dict[str, Callable[[Job, str, list[Row]], Made]] = {
    "parquet": _parquet,
    "clip-retrieval": _clip_retrieval,
}
# Vectors do not compress; a dictionary of them would only be built and thrown away.
_HOW: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["status", "error"]}


def _table(job: Job, rows: list[Row], columns: dict[str, Any]) -> Any:
    own = {
        "id": _strings([row.id for row in rows]),
        **columns,
        "status": _strings([REJECTED if row.error else OK for row in rows]),
        "error": _strings([row.error for row in rows]),
        "content_sha256": _strings([row.content_sha256 for row in rows]),
    }
    kept = {
        f"source_{name}" if name in own else name: _strings(
            [row.metadata.get(name) for row in rows]
        )
        for name in job.wanted.keep
    }
    table = pa.table({**own, **kept})
    return table.replace_schema_metadata({"diptych": json.dumps(asdict(job.space))})


def _strings(values: Sequence[str | None]) -> Any:
    """What is no valid Unicode (names of files, escapes in JSON) has `?` in those places."""
    valid = [value and value.encode(errors="replace").decode() for value in values]
    return pa.array(valid, pa.string())


def _array(job: Job, tower: Tower, rows: list[Row]) -> npt.NDArray[Any]:
    """[rows, D] of the data type wanted; zeros where a row has no vector."""
    matrix = np.zeros((len(rows), job.space.dimensions), job.wanted.dtype)
    for number, row in enumerate(rows):
        if tower in row.vectors:
            matrix[number] = row.vectors[tower]
    return matrix


def _vectors(job: Job, tower: Tower, rows: list[Row]) -> Any:
    absent = pa.array([row.error is not None for row in rows], pa.bool_())
    values = pa.array(_array(job, tower, rows).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, job.space.dimensions, mask=absent)


def _save(array: npt.NDArray[Any], path: Path) -> None:
    with path.open("wb") as stream:  # given a name, numpy would add .npy to it
        np.save(stream, array)


def _length(path: Path) -> int:
    if path.suffix == ".npy":
        return len(np.load(path, mmap_mode="r"))
    return int(pq.read_metadata(path).num_rows)
