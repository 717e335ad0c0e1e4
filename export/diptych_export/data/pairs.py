"""What files of training data yield: pairs, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from diptych.job.places import open_binary
from diptych.preprocess.images import LIMITS
from diptych_export.errors import BadData


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and a text that belongs to it."""

    id: str  # names it among all data: file and key or row
    image: bytes | str  # encoded; or where the file lies, so that waiting pairs are small
    text: str

    def encoded(self) -> bytes:
        """The image's bytes, at most one more than are allowed.

        Raises:
            BadData: the file cannot be read.
        """
        return encoded(self.image)


@dataclass(frozen=True, slots=True)
class Reject:
    """A sample that was skipped."""

    id: str
    reason: str


Item: TypeAlias = Pair | Reject


@dataclass(frozen=True, slots=True)
class Keys:
    """Under which names to look; None: the usual ones."""

    image: str | None = None  # a column, or a file name extension in webdataset shards
    text: str | None = None  # a column, an extension, or a field of the sample's JSON


class Shard(Protocol):
    """One file of samples, readable from its start only."""

    @property
    def place(self) -> str: ...

    def read(self, start: int) -> Iterator[Item]:
        """The samples from number `start` on, the first being 0, in an order that never changes.

        What cannot be read is one item all the same, so that numbers stay what they are.

        Raises:
            BadData: the file as a whole cannot be read.
        """
        ...


def encoded(image: bytes | str) -> bytes:
    """An image's bytes, or those of the file where it lies, at most one more than are allowed.

    Raises:
        BadData: the file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    try:
        with open_binary(image) as stream:
            return stream.read(LIMITS.max_bytes + 1)
    except OSError as error:
        raise BadData(f"{image}: {error}") from error
