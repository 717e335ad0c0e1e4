"""What a source yields: inputs, each with its id, read or still to be read."""

from __future__ import annotations

import errno
import hashlib
import time
from dataclasses import dataclass, field
from typing import IO, TypeAlias

from diptych.contract import Tower
from diptych.errors import BadData
from diptych.job.places import open_once
from diptych.preprocess.images import LIMITS

_TRIES = 4  # at a place that fails for no lasting reason
_PAUSE_S = 0.5  # before the second try; twice as long before each next

# Reasons that stay, and concern this input alone; a broken network is another matter.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
_LASTING_NUMBERS = (errno.ENAMETOOLONG, errno.ELOOP)
_LATER = (408, 425, 429)  # of HTTP: too slow, too early, too many


@dataclass(frozen=True, slots=True)
class Place:
    """Where content lies, so that waiting inputs are small: a path or a URL."""

    name: str


Content: TypeAlias = bytes | str  # an encoded image, a text


@dataclass(frozen=True, slots=True)
class Item:
    """One input: an image, a text, or both."""

    id: str  # names it among all of the source: place, and key or row
    contents: dict[Tower, Content | Place] = field(default_factory=dict)
    metadata: dict[str, str | None] = field(default_factory=dict)
    problem: str = ""  # why it cannot be embedded, found while it was read


class Unreadable(Exception):
    """One input that lies where nothing can be read, whenever it is tried."""


def load(content: Content | Place, tower: Tower) -> Content:
    """Read what is still to be read: an image's bytes, at most one more than are allowed; a text.

    Raises:
        Unreadable: it is not there, or may not be read.
        BadData: it could not be read just now, in several tries.
    """
    if not isinstance(content, Place):
        return content
    data = _read(content.name)
    return data if tower is Tower.IMAGE else data.decode(errors="replace").strip()


def content_hash(contents: list[Content]) -> str:
    """SHA-256 over an input's image bytes and its text in UTF-8, in this order, in hexadecimal."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(content if isinstance(content, bytes) else content.encode(errors="replace"))
    return whole.hexdigest()


def _read(place: str) -> bytes:
    pause_s = _PAUSE_S
    for left in reversed(range(_TRIES)):
        try:
            with open_once(place) as stream:
                return _all_of(stream)
        except Exception as error:  # drivers raise kinds of their own
            reason = error.__cause__ if isinstance(error, BadData) else error
            if isinstance(reason, _LASTING) or _is_refused(reason) or _is_no_name(reason):
                raise Unreadable(f"cannot be read: {_why(reason)}") from error
            if not left or isinstance(reason, ImportError):  # no driver for such a URL
                raise BadData(f"{place}: {reason}") from error
        time.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("the last try returns or raises")


def _all_of(stream: IO[bytes]) -> bytes:
    found, most = bytearray(), LIMITS.max_bytes + 1
    while more := stream.read(most - len(found)):  # a network gives what has come
        found += more
    return bytes(found)


def _is_refused(reason: BaseException | None) -> bool:
    """Whether a web server will not have this request, now or later."""
    status = getattr(reason, "status", None)
    # 3xx: it sends its callers round in circles.
    return isinstance(status, int) and 300 <= status < 500 and status not in _LATER


def _is_no_name(reason: BaseException | None) -> bool:
    return isinstance(reason, OSError) and reason.errno in _LASTING_NUMBERS


def _why(reason: BaseException | None) -> str:
    status, message = getattr(reason, "status", None), getattr(reason, "message", None)
    if isinstance(status, int):
        return f"{status} {message}"
    return getattr(reason, "strerror", None) or str(reason).splitlines()[0]
