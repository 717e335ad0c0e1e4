"""Where data lies: one argument of a person in, file names out, local or of any fsspec URL."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from glob import glob, has_magic
from typing import IO, Any

import fsspec

from diptych.errors import BadData

_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(pattern: str) -> list[str]:
    """Braces as in a shell: `{000..127}` and `{a,b}`; then, of local files, `*` and `?`.

    Raises:
        BadData: a local pattern that fits no file.
    """
    places = list(_unbraced(pattern))
    if "://" in pattern:
        return places
    found = [name for place in places for name in _globbed(place)]
    if not found:
        raise BadData(f"{pattern}: no such file")
    return found


def open_binary(place: str) -> IO[bytes]:
    """A stream of a local file or a URL, decompressed as its name says.

    Raises:
        BadData: it cannot be opened.
    """
    try:
        stream: IO[bytes] = fsspec.open(place, "rb", compression=_compression(place)).open()
    except (OSError, ValueError, ImportError) as error:  # ImportError: no driver for s3:// and co.
        raise BadData(f"{place}: {_first_line(error)}") from error
    return stream


def beside(place: str, name: str) -> str:
    """`name` as written in the file `place`: relative names count from its folder."""
    if "://" in name or posixpath.isabs(name):
        return name
    return posixpath.join(posixpath.dirname(place), name)


def _unbraced(pattern: str) -> Iterator[str]:
    group = _GROUP.search(pattern)
    if group is None:
        yield pattern
        return
    for choice in _choices(group[1]):
        yield from _unbraced(pattern[: group.start()] + choice + pattern[group.end() :])


def _choices(inside: str) -> list[str]:
    bounds = _RANGE.fullmatch(inside)
    if bounds is None:
        return inside.split(",")
    first, last = bounds.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _globbed(place: str) -> list[str]:
    return sorted(glob(place)) if has_magic(place) else [place]


def _compression(place: str) -> Any:
    # Not "infer" for all: tarfile finds out by itself, and .zip is an archive, not a stream.
    return "infer" if re.search(r"\.(csv|tsv)\.\w+$", place) else None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
