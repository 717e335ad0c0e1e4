"""Which shards are done: JSON lines, each with a checksum of its own, synced before it counts.

A shard exists once its line does. Every machine writes a file of its own (`manifest-00000.jsonl`,
…) and reads all of them; workers of one machine take turns under a lock.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diptych.errors import BadJob
from diptych.job.files import Locks, write_aside, writing

# Of the numbered locks; the others are those of parts, by number.
PLANNING = 2**40
_APPENDING = PLANNING + 1


@dataclass(frozen=True, slots=True)
class File:
    """One file of a shard."""

    name: str  # relative to the destination
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """One shard, done."""

    part: int  # of the source
    shard: int  # of the part, from 0
    is_last: bool  # of the part
    ok: int  # inputs with vectors
    rejected: int  # inputs without
    fingerprint: str  # of the space
    engine: str  # what made the vectors, for a person
    files: tuple[File, ...]

    @property
    def key(self) -> tuple[int, int]:
        return self.part, self.shard


@dataclass(frozen=True, slots=True)
class Todo:
    """What is missing of one part."""

    done: frozenset[int]  # shards
    last: int | None  # the part's last shard, where its line is known

    @property
    def first(self) -> int:
        return next(n for n in range(len(self.done) + 1) if n not in self.done)

    @property
    def is_nothing(self) -> bool:
        return self.last is not None and self.first > self.last

    def wants(self, shard: int) -> bool:
        return shard not in self.done

    def wants_after(self, shard: int) -> bool:
        """Whether any shard beyond this one may be missing."""
        return self.last is None or any(self.wants(n) for n in range(shard + 1, self.last + 1))


class Manifest:
    """All machines' lines in one destination, as of the last `read`.

    Where a shard has several lines (one was lost, it was done again), the last one counts.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._read: dict[Path, list[Record]] = {}
        self._damaged: dict[Path, list[int]] = {}

    def read(self) -> dict[tuple[int, int], Record]:
        """Every shard that is done, by part and number; files that have not changed stay unread."""
        for path in _files(self._destination):
            state = path.stat()
            seen = state.st_ino, state.st_size, state.st_mtime_ns
            if self._seen.get(path) != seen:
                found = [_record(line) for line in path.read_bytes().splitlines()]
                self._read[path] = [record for record in found if record is not None]
                self._damaged[path] = [n for n, record in enumerate(found, 1) if record is None]
                self._seen[path] = seen
        return {record.key: record for records in self._read.values() for record in records}

    @property
    def damaged(self) -> list[str]:
        """Lines that are not what was written, as FILE:LINE; a killed writer's may be the last."""
        return [f"{path.name}:{n}" for path, lines in self._damaged.items() for n in lines]

    def todo(self, part: int) -> Todo:
        """What is missing of `part`, as of now."""
        records = [record for record in self.read().values() if record.part == part]
        last = next((record.shard for record in records if record.is_last), None)
        return Todo(frozenset(record.shard for record in records), last)


class OwnManifest(Manifest):
    """The manifest, and this machine's file of it, to add lines to."""

    def __init__(self, destination: Path, locks: Locks, machine: int) -> None:
        super().__init__(destination)
        self._own = destination / f"manifest-{machine:05d}.jsonl"
        self._locks = locks

    def add(self, record: Record) -> None:
        """Write one line, and return once it would survive a loss of power.

        Raises:
            BadJob: it cannot be written; nothing of it counts.
        """
        line = _line(record)
        with self._locks.held(_APPENDING), writing(self._own), self._own.open("ab", 0) as stream:
            end = self._own.read_bytes().rfind(b"\n") + 1
            stream.truncate(end)  # a line that its writer was killed in
            try:
                if stream.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)
                raise

    def drop(self, keys: Iterable[tuple[int, int]]) -> None:
        """Take these shards for not done, and forget damaged lines.

        Raises:
            BadJob: it cannot be written.
        """
        gone = set(keys)
        with self._locks.held(_APPENDING):
            self.read()
            for path, records in self._read.items():
                kept = [record for record in records if record.key not in gone]
                if kept != records or self._damaged[path]:
                    write_aside(path, b"".join(map(_line, kept)))


def _files(destination: Path) -> list[Path]:
    return sorted(destination.glob("manifest-*.jsonl"))


def _line(record: Record) -> bytes:
    body = asdict(record)
    return json.dumps({**body, "check": _check(body)}).encode() + b"\n"


def _record(line: bytes) -> Record | None:
    try:
        body: dict[str, Any] = json.loads(line)
        if body.pop("check") != _check(body):
            return None
        files = tuple(File(**file) for file in body.pop("files"))
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return Record(**body, files=files)


def _check(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def engines(records: Iterable[Record]) -> list[str]:
    """What made the vectors, each once."""
    return sorted({record.engine for record in records})


def check_space(records: Iterable[Record], fingerprint: str) -> None:
    """Refuse vectors of another space.

    Raises:
        BadJob: naming the first shard.
    """
    for record in records:
        if record.fingerprint != fingerprint:
            raise BadJob(
                f"part {record.part} shard {record.shard} is of the space {record.fingerprint}, "
                f"not {fingerprint}"
            )
