"""What a job is: everything its result depends on, written down before it begins.

A resume has to want the same; what may change from run to run (workers, threads, where the engine
is) is not in here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from diptych.contract import Tower
from diptych.errors import BadJob
from diptych.job.files import write_aside

Kind: TypeAlias = Literal["image", "text", "pair"]
Form: TypeAlias = Literal["auto", "files", "webdataset", "table"]
Layout: TypeAlias = Literal["parquet", "clip-retrieval"]

JOB = "job.json"
_VERSION = 1  # of the destination's layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be embedded, how it is read and how it is written. Each field is a flag."""

    kind: Kind = "image"
    """What is embedded: images, texts, or both of every pair."""

    form: Form = "auto"
    """What the source is: files (a folder or glob of images or texts), webdataset tars, or a table
    (parquet, CSV, TSV, JSON lines). auto: by the names."""

    image: str = ""
    """Column of the image (a path, a URL or bytes), or extension in a tar. By default a usual one:
    image, filepath, image_path, path, url, …; jpg, png, webp, …"""

    text: str = ""
    """Column of the text, or extension or JSON field in a tar. By default caption, text or title;
    txt or caption."""

    keep: tuple[str, ...] = ()
    """Columns, or fields of a tar's .json, to copy beside the vectors, as strings. Repeatable. One
    whose name a column of the result has (id, error, …) becomes source_id, source_error, …"""

    layout: Layout = "parquet"
    """How shards are written: parquet, or the npy and parquet files of clip-retrieval."""

    dtype: Literal["float16", "float32"] = "float16"
    """Of the vectors written."""

    shard_size: int = 10_000
    """Inputs per shard: what is lost at most, and done again, when a worker is killed."""

    batch: int = 64
    """Inputs per engine call. Batches are the same at every run, and so are the vectors' bits."""

    limit: int = 0
    """Only the first so many inputs; 0: all."""

    truncate: bool = False
    """Cut over-long texts, rather than reject them."""

    exif: bool = True
    """Turn images upright as their EXIF says."""

    exact_images: bool = False
    """Decode every image at full resolution, pixel for pixel as the reference does."""

    def __post_init__(self) -> None:
        for name, least in (("shard_size", 1), ("batch", 1), ("limit", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")

    @property
    def towers(self) -> tuple[Tower, ...]:
        """Whose vectors every input gets."""
        return tuple(Tower) if self.kind == "pair" else (Tower(self.kind),)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceOf:
    """The space of a job's vectors."""

    model: str
    model_version: int
    fingerprint: str
    dimensions: int  # D


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The contents of `job.json`."""

    source: str  # as it was given
    wanted: Wanted
    space: SpaceOf
    listing: str  # SHA-256 of the source list
    places: int  # lines of the source list

    def save(self, destination: Path) -> None:
        """Write it into `destination`, whole or not at all."""
        body = {"version": _VERSION, **asdict(self)}
        text = json.dumps({**body, "check": _check(body)}, indent=2)
        write_aside(destination / JOB, text.encode() + b"\n")

    @classmethod
    def load(cls, destination: Path) -> Job:
        """Read it back.

        Raises:
            BadJob: there is none, it was damaged, or another release wrote it.
        """
        path = destination / JOB
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            check = found.pop("check", None)
        except FileNotFoundError as error:
            raise BadJob(f"{destination}: no job here: {JOB} is missing") from error
        except (ValueError, AttributeError) as error:
            raise BadJob(f"{path}: damaged: not JSON") from error
        if check != _check(found):
            raise BadJob(f"{path}: damaged: its checksum is wrong")
        if found.pop("version") != _VERSION:
            raise BadJob(f"{path}: written by another release of diptych")
        wanted = found.pop("wanted")
        wanted["keep"] = tuple(wanted["keep"])
        return cls(wanted=Wanted(**wanted), space=SpaceOf(**found.pop("space")), **found)

    def check_same(self, other: Job) -> None:
        """Refuse to go on with this job as if it were `other`.

        Raises:
            BadJob: naming every setting that differs, as it was and as it is.
        """
        was, now = _flat(self), _flat(other)
        differing = [f"{n}: was {was[n]}, is {now[n]}" for n in was if was[n] != now[n]]
        if differing:
            raise BadJob(f"this is another job than the one begun: {'; '.join(differing)}")


def _flat(job: Job) -> dict[str, Any]:
    return {
        field.name: getattr(part, field.name)
        for part in (job, job.wanted, job.space)
        for field in fields(part)
        if field.name not in ("wanted", "space")
    }


def _check(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
