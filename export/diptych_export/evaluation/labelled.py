"""Pictures with a class each: from a folder of folders, or from webdataset shards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.job.places import expand
from diptych.job.tars import IMAGES, Damage, Sample, samples
from diptych_export.data.pairs import Reject, encoded
from diptych_export.data.shards import TAR
from diptych_export.errors import BadData

CLASS = "cls"  # the extension of a sample's class in webdataset shards


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture of which one class is true."""

    id: str
    image: bytes | str  # encoded; or where the file lies
    label: int  # index into the class names

    def encoded(self) -> bytes:
        """The file's bytes.

        Raises:
            BadData: it cannot be read.
        """
        return encoded(self.image)


@dataclass(frozen=True, slots=True)
class Labels:
    """A data set for zero-shot classification, to be read as often as one likes."""

    source: str
    classes: tuple[str, ...]  # by index, as they are put into templates

    def __iter__(self) -> Iterator[Labelled | Reject]:
        if Path(self.source).is_dir():
            yield from self._from_folders()
        else:
            yield from self._from_shards()

    def _from_folders(self) -> Iterator[Labelled]:
        for label, folder in enumerate(_folders(Path(self.source))):
            for file in sorted(folder.rglob("*")):
                if file.suffix.lower().removeprefix(".") in IMAGES:
                    yield Labelled(str(file.relative_to(self.source)), str(file), label)

    def _from_shards(self) -> Iterator[Labelled | Reject]:
        indexes = {name: index for index, name in enumerate(self.classes)}
        for place in expand(self.source):
            for sample in samples(place):
                if isinstance(sample, Damage):
                    yield Reject(sample.place, sample.reason)
                else:
                    yield _labelled(f"{place}/{sample.key}", sample, indexes)


def labels(source: str, names: Path | None) -> Labels:
    """The data set at `source`: a folder with a folder for each class, or shards with `.cls`.

    Classes are called as their folders, underscores read as spaces; or by the lines of the file
    `names`, of which the first is class 0: that of the first folder by name. Shards need one.

    Raises:
        BadData: no classes, or another number of them.
    """
    own = _lines(names) if names else None
    if not Path(source).is_dir():
        if not re.search(TAR, source, re.IGNORECASE):
            raise BadData(f"{source}: neither a folder of folders nor webdataset shards (.tar)")
        if own is None:
            raise BadData(f"{source}: shards say which class, not what it is called: --classes")
        expand(source)
        return Labels(source, own)
    folders = _folders(Path(source))
    if own is None:
        own = tuple(folder.name.replace("_", " ") for folder in folders)
    if len(own) != len(folders):
        raise BadData(f"{names}: names {len(own)} classes, {source} has {len(folders)} folders")
    return Labels(source, own)


def _labelled(name: str, sample: Sample, indexes: dict[str, int]) -> Labelled | Reject:
    image, label = sample.image(None), sample.files.get(CLASS, b"").decode(errors="replace").strip()
    if image is None or not label:
        return Reject(name, f"no {'image' if image is None else CLASS}")
    index = int(label) if label.isdecimal() else indexes.get(label, -1)
    if not 0 <= index < len(indexes):
        return Reject(name, f"class {label[:40]!r} is none of {len(indexes)}")
    return Labelled(name, image, index)


def _folders(root: Path) -> Sequence[Path]:
    found = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise BadData(f"{root}: has no folders, one for each class")
    return found


def _lines(path: Path) -> tuple[str, ...]:
    try:
        found = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: not a readable list of class names") from error
    if not found or "" in found or len(set(found)) < len(found):
        raise BadData(f"{path}: a class a line is needed, none empty, none twice")
    return found
