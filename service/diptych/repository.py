"""A model repository on disk in, one verified dual encoder out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from diptych import external_data
from diptych.contract import ImageSpec, ModelSpec, TextSpec, Tower
from diptych.errors import BadRepository, NotFound

GRAPH = "model.onnx"
SPEC = "spec.json"
TOKENIZER = "tokenizer.json"
ZERO_IMAGE = "zero_image.npz"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One version of one model: what it says of itself, and where its files are."""

    spec: ModelSpec
    graphs: dict[Tower, Path]
    tokenizer: Path
    # What the image tower answers, by output, for pixel values that are zero behind the scaling:
    # no picture of bytes has them. [D] or [T, H], float32. None in repositories of before.
    zero_image: Path | None = None


def fingerprint(
    image_graph: Path, text_graph: Path, tokenizer: Path, image: ImageSpec, text: TextSpec
) -> str:
    """The SHA-256 that names a space, in hexadecimal.

    Over everything a vector depends on: both graphs with their external data, the tokenizer and
    the rules of preprocessing. Names, scores and figures are left out: they change no vector.
    """
    whole = hashlib.sha256()
    for graph in (image_graph, text_graph):
        for file in [graph, *sorted(graph.parent.glob(f"{graph.name}*.data"))]:
            whole.update(_digest(file))
    whole.update(_digest(tokenizer))
    for rules in (image, text):
        text_of_rules = json.dumps(rules.model_dump(mode="json"), sort_keys=True)
        whole.update(hashlib.sha256(text_of_rules.encode()).digest())
    return whole.hexdigest()


def names(root: Path) -> list[str]:
    """The models that have both towers in `root`, sorted."""
    if not root.is_dir():
        raise BadRepository(f"{root}: no such folder")
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    stems = {name.removesuffix(f"_{Tower.IMAGE}") for name in folders}
    return sorted(s for s in stems if all(f"{s}_{tower}" in folders for tower in Tower))


def versions(root: Path, name: str) -> list[int]:
    """The versions that both towers of `name` have, the newest first."""
    both = [set(_versions(root / f"{name}_{tower}")) for tower in Tower]
    return sorted(set.intersection(*both), reverse=True)


def load(root: Path, name: str, version: int | None = None) -> ModelFiles:
    """Read one version of `name`, by default the newest, and check it against its fingerprint.

    Raises:
        NotFound: `root` has no such model, or the model no such version.
        BadRepository: a file is missing or malformed, the towers disagree, weights lie outside
            the version folder, or the files are not those the fingerprint was made from.
    """
    if name not in (known := names(root)):
        raise NotFound(f"no model {name!r} in {root}; there are: {', '.join(known) or 'none'}")
    present = versions(root, name)
    if not present:
        raise BadRepository(f"{root}/{name}_*: no version that both towers have")
    if version is not None and version not in present:
        raise NotFound(f"{root}/{name}_*: no version {version}; there are: {present}")
    version = version or present[0]
    folders = {tower: root / f"{name}_{tower}" / str(version) for tower in Tower}
    files = ModelFiles(
        spec=_spec(folders),
        graphs={tower: _graph(folder / GRAPH) for tower, folder in folders.items()},
        tokenizer=_present(folders[Tower.TEXT] / TOKENIZER),
    )
    _check(files, name, version)
    if files.spec.zero_image is None:
        return files
    return replace(files, zero_image=_zero_image(folders[Tower.IMAGE], files.spec.zero_image))


def _versions(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        if path.is_dir() and path.name.isdecimal() and int(path.name) > 0:
            yield int(path.name)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise BadRepository(f"{path}: missing")
    return path


def _graph(path: Path) -> Path:
    """A graph all of whose weights lie in it, or beside it under a name `fingerprint` covers."""
    try:
        names = external_data.locations(_present(path))
    except ValueError as exc:
        raise BadRepository(f"{path}: not an ONNX file: {exc}") from exc
    beside = {file.name for file in path.parent.glob(f"{path.name}*.data")}
    for name in sorted(names):
        data = path.with_name(name) if name in beside else None
        if data is None or data.resolve().parent != path.parent.resolve() or not data.is_file():
            raise BadRepository(
                f"{path}: weights are said to lie in {name!r}; only a file {path.name}*.data in "
                "the same folder may hold them"
            )
    return path


def _spec(folders: dict[Tower, Path]) -> ModelSpec:
    texts = {tower: _present(folder / SPEC).read_bytes() for tower, folder in folders.items()}
    if len(set(texts.values())) > 1:
        raise BadRepository(f"{' and '.join(map(str, folders.values()))}: {SPEC} differs")
    try:
        return ModelSpec.model_validate_json(texts[Tower.IMAGE])
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "whole file"
        place = folders[Tower.IMAGE] / SPEC
        raise BadRepository(f"{place}: {where}: {first['msg']}") from exc


def _zero_image(folder: Path, digest: str) -> Path:
    path = _present(folder / ZERO_IMAGE)
    if _digest(path).hex() != digest:
        raise BadRepository(f"{path}: not the file that {SPEC} names: it was changed after export")
    return path


def _check(files: ModelFiles, name: str, version: int) -> None:
    spec, place = files.spec, files.graphs[Tower.IMAGE].parent
    if (spec.name, spec.version) != (name, version):
        raise BadRepository(f"{place}: {SPEC} is of {spec.name} version {spec.version}")
    found = fingerprint(
        files.graphs[Tower.IMAGE],
        files.graphs[Tower.TEXT],
        files.tokenizer,
        spec.image,
        spec.text,
    )
    if found != spec.fingerprint:
        raise BadRepository(
            f"{place}: fingerprint is {found[:12]}…, {SPEC} says {spec.fingerprint[:12]}…: "
            "a file was changed after export"
        )


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
