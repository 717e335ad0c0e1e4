"""Files that are whole or not there: written aside, synced, renamed, the folder synced."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from diptych.disk import sync
from diptych.errors import BadJob

_ASIDE = ".aside"  # suffix of what is being written


def write_aside(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all, to survive a loss of power.

    Raises:
        BadJob: it cannot be written.
    """
    make_aside(path, lambda aside: aside.write_bytes(content))


def make_aside(path: Path, make: Callable[[Path], object]) -> None:
    """Let `make` write a file beside `path`, sync it and rename it into place.

    What a killed process left beside is overwritten; only one may write `path` at a time.

    Raises:
        BadJob: it cannot be written; what was begun is removed.
    """
    aside = path.with_name(path.name + _ASIDE)
    with writing(path):
        _make_folder(path.parent)
        try:
            make(aside)
            sync(aside)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync(path.parent)


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """One clear line for a disk that is full or read-only."""
    try:
        yield
    except OSError as error:
        # Arrow's own words are many, and name the file beside.
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise BadJob(f"cannot write {path}: {reason}") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Locks:
    """Numbered locks among all workers on one destination; the kernel frees those of the dead.

    Record locks (`fcntl`), one byte of one file each: unlike those of `flock` they are not passed
    on to children, which would hold them after their parent's death, and they work over NFS. They
    are a process's own: within one process a lock can be taken twice.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            self._stream = path.open("ab")

    def take(self, number: int) -> bool:
        """Whether lock `number` is ours now; never waits."""
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # either, says POSIX
            return False
        return True

    def free(self, number: int) -> None:
        fcntl.lockf(self._stream, fcntl.LOCK_UN, 1, number)

    @contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Wait for lock `number`, and hold it within this."""
        fcntl.lockf(self._stream, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            self.free(number)

    def __enter__(self) -> Locks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
