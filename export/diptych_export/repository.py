"""Verified files in, one more version in a model repository out: all of it, or nothing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from diptych.contract import ModelSpec, Tower
from diptych.disk import sync
from diptych.engines.base import Array
from diptych.repository import GRAPH, SPEC, TOKENIZER, load
from diptych_export.triton_config import CONFIG, Placement, fingerprints, write


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A folder on the same disk as `root`, where a version is prepared; always removed."""
    root.mkdir(parents=True, exist_ok=True)
    # Beside `root`: Triton takes every folder inside for a model, hidden or not, and does not
    # start on half a one. Where `root` is a disk of its own there is no choice.
    beside = root.resolve().parent
    home = beside if beside.stat().st_dev == root.stat().st_dev else root
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-staging-", dir=home) as folder:
        yield Path(folder)


def next_version(root: Path, name: str) -> int:
    """One more than the newest version that either tower has."""
    folders = [path for tower in Tower for path in (root / f"{name}_{tower}").glob("*")]
    return 1 + max((int(path.name) for path in folders if path.name.isdecimal()), default=0)


def graph_path(stage: Path, name: str, version: int, tower: Tower) -> Path:
    """Where the graph of a tower belongs; its folder is made."""
    folder = stage / f"{name}_{tower}" / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / GRAPH


def tokenizer_path(stage: Path, name: str, version: int) -> Path:
    return graph_path(stage, name, version, Tower.TEXT).with_name(TOKENIZER)


def write_zero_image(path: Path, outputs: Mapping[str, Array]) -> str | None:
    """Write what the image tower answers for the zero image; answer the file's digest, if any."""
    if not outputs:
        return None
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **outputs)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def complete(stage: Path, root: Path, spec: ModelSpec, placement: Placement) -> None:
    """Add the spec beside both graphs, and what Triton needs to run them."""
    text = spec.model_dump_json(indent=2) + "\n"
    for tower in Tower:
        graph_path(stage, spec.name, spec.version, tower).with_name(SPEC).write_text(text)
    write(stage, spec, placement, fingerprints(root / spec.folders[Tower.IMAGE]))


def publish(stage: Path, root: Path, spec: ModelSpec) -> None:
    """Move a completed version from `stage` into `root`.

    A version counts once both towers have it, so a reader meets the old model or the new one,
    never half of it. Its files are on disk before its name is.

    Raises:
        BadRepository: what was prepared could not be served.
    """
    load(stage, spec.name, spec.version)
    for file in stage.rglob("*"):
        sync(file)
    for folder in spec.folders.values():
        _move(stage / folder, root / folder, spec.version)
    sync(root)


def _move(prepared: Path, published: Path, version: int) -> None:
    if not published.exists():
        os.rename(prepared, published)
        return
    # The config first: it names the space of the new version too, and a Triton that polls may
    # load that version the moment it appears.
    os.replace(prepared / CONFIG, published / CONFIG)
    os.rename(prepared / str(version), published / str(version))
    sync(published)
