"""Webdataset shards: plain tar files in which neighbours of one name make up a sample."""

from __future__ import annotations

import json
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from diptych.errors import BadData
from diptych.job.places import open_binary
from diptych.preprocess.images import LIMITS

IMAGES = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff")
_TEXTS = ("txt", "caption")
_FIELDS = ("caption", "text")  # of a sample's .json


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a file cannot be read any further; its rest is skipped."""

    place: str
    reason: str


@dataclass(slots=True)
class Sample:
    """The files of one name, by what follows its first dot, in lower case."""

    key: str
    files: dict[str, bytes] = field(default_factory=dict)
    oversized: list[str] = field(default_factory=list)  # left unread

    def image(self, key: str | None) -> bytes | None:
        """The file of extension `key`, or the first that has a usual one."""
        return next((self.files[n] for n in ([key] if key else IMAGES) if n in self.files), None)

    def text(self, key: str | None) -> str | None:
        """The file of extension `key` or the field of the .json; or the first of a usual name."""
        for name in [key] if key else _TEXTS:
            if name in self.files:
                return self.files[name].decode(errors="replace").strip()
        found = (self.fields().get(name) for name in ([key] if key else _FIELDS))
        return next((text for text in found if isinstance(text, str)), None)

    def fields(self) -> dict[str, Any]:
        """What the sample's .json says; nothing where there is none, or it is no object."""
        try:
            fields = json.loads(self.files.get("json", b"{}"))
        except ValueError:
            return {}
        return fields if isinstance(fields, dict) else {}


def samples(place: str) -> Iterator[Sample | Damage]:
    """Every sample of a tar file; where the file is damaged, that, and its end."""
    count, sample, damage = 0, None, None
    with open_binary(place) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as tar:
                for member in tar:
                    # Kept for random access, which a stream has not; typeshed hides it.
                    tar.members.clear()  # type: ignore[attr-defined]
                    if not member.isfile():
                        continue
                    key, extension = _split(member.name)
                    if sample is not None and sample.key != key:
                        yield sample
                        count, sample = count + 1, None
                    sample = sample or Sample(key)
                    _add(sample, extension, tar, member)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            damage = f"is damaged after {count} samples, the rest is skipped: {error}"
        except OSError as error:  # skipped, a failing network would change what is read
            raise BadData(f"{place}: {error}") from error
    if sample is not None:
        yield sample
    if damage is not None:
        yield Damage(place, damage)


class _Header(tarfile.TarInfo):
    """Where tarfile would take any broken header for the end, only the end is the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # typeshed does not know it
                raise
            raise tarfile.ReadError(str(error)) from error


def _add(sample: Sample, extension: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if member.size > LIMITS.max_bytes:
        sample.oversized.append(extension)
        return
    content = tar.extractfile(member)
    sample.files[extension] = content.read() if content else b""


def _split(name: str) -> tuple[str, str]:
    """The key is all up to the first dot of the last part, as webdataset has it."""
    folder, _, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return posixpath.join(folder, stem), extension.lower()
