"""Where data lies: one argument of a person in, file names out, local or of any fsspec URL."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import IO, Any, NamedTuple

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


class Found(NamedTuple):
    """One file, and whether its folder was named rather than itself."""

    name: str  # what `open_binary` takes
    bytes: int | None  # None: the place does not tell
    in_folder: bool


def find(pattern: str) -> Iterator[Found]:
    """Every file that `pattern` names, always in the same order: a file, a folder with all that
    lies under it, or a glob (`*`, `?`, `[…]`, `**`), each after braces as in `expand`.

    Of a local folder, no more than one folder's names are in memory.

    Raises:
        BadData: nothing is there.
    """
    for place in _unbraced(pattern):
        try:
            yield from _find_remote(place) if "://" in place else _find_local(place)
        except BadData:
            raise
        except Exception as error:  # drivers raise kinds of their own
            if "://" not in place and not isinstance(error, OSError):
                raise
            raise BadData(f"{place}: {_first_line(error)}") from error


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


def open_once(place: str) -> IO[bytes]:
    """As `open_binary`, to be read from the beginning alone; of a web server by one request.

    Raises:
        Exception: what its driver raises. `open_binary` asks a web server for the size first, and
            whatever then goes wrong is a FileNotFoundError.
    """
    if "://" not in place:
        return Path(place).open("rb")  # whose name may hold what means something to fsspec
    if not place.startswith(("http://", "https://")):
        return open_binary(place)
    system, path = fsspec.core.url_to_fs(place)
    stream: IO[bytes] = system.open(path, "rb", block_size=0, size=1)  # told one, it asks for none
    return stream


def beside(place: str, name: str) -> str:
    """`name` as written in the file `place`: relative names count from its folder."""
    if "://" in name or posixpath.isabs(name):
        return name
    return posixpath.join(posixpath.dirname(place), name)


def _find_local(place: str) -> Iterator[Found]:
    names = sorted(glob(place, recursive=True)) if has_magic(place) else [place]
    for name in names:
        if os.path.isdir(name):
            yield from _walk(name)
        elif os.path.exists(name):
            yield Found(name, os.path.getsize(name), in_folder=False)
        else:
            raise BadData(f"{place}: no such file")
    if not names:
        raise BadData(f"{place}: no such file")


def _walk(folder: str) -> Iterator[Found]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir():
            yield from _walk(entry.path)
        else:
            yield Found(entry.path, entry.stat().st_size, in_folder=True)


def _find_remote(place: str) -> Iterator[Found]:
    system, path = fsspec.core.url_to_fs(place)
    if "*" in path or "[" in path:
        infos, is_folder = system.glob(path, detail=True), False
    else:
        # Not `isdir`: of a web server's file it reads all, in search of links.
        infos, is_folder = {path: system.info(path)}, False
        if infos[path]["type"] == "directory" or path.endswith("/"):
            infos, is_folder = system.find(path, detail=True), True
    found = [(name, info) for name, info in sorted(infos.items()) if info["type"] == "file"]
    if not found:
        raise BadData(f"{place}: no such file")
    for name, info in found:
        yield Found(system.unstrip_protocol(name), info.get("size"), is_folder)


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
    return "infer" if re.search(r"\.(csv|tsv|jsonl|ndjson)\.\w+$", place) else None


def _first_line(error: BaseException) -> str:
    error = error.__cause__ or error  # a web server's status lies below a FileNotFoundError
    return (str(error) or type(error).__name__).splitlines()[0]
