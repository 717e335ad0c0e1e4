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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from diptych.disk import sync
from diptych.errors import BadJob
from diptych.job.files import Locks, write_aside, writing

# Of the numbered locks; the others are those of parts, by number.
PLANNING = 2**40
_APPENDING = PLANNING + 1

_BLOCK = 64 * 2**10  # bytes read at once from the end of a file; lines are far shorter


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
    """All machines' lines in one destination, as of the last `read`; what was read once is not
    read again while its file only grows.

    Where a shard has several lines (one was lost, it was done again), the last one counts.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._read: dict[Path, _Lines] = {}
        self._parts: dict[int, dict[int, Record]] = {}

    def read(self) -> dict[tuple[int, int], Record]:
        """Every shard that is done, by part and number."""
        self._look()
        return {record.key: record for shards in self._parts.values() for record in shards.values()}

    @property
    def damaged(self) -> list[str]:
        """Lines that are not what was written, as FILE:LINE; a killed writer's may be the last."""
        return [f"{path.name}:{n}" for path, lines in self._read.items() for n in lines.damaged]

    def todo(self, part: int) -> Todo:
        """What is missing of `part`, as of now."""
        self._look()
        shards = self._parts.get(part, {})
        last = next((record.shard for record in shards.values() if record.is_last), None)
        return Todo(frozenset(shards), last)

    def _look(self) -> None:
        for path in _files(self._destination):
            known = self._read.get(path)
            with path.open("rb") as stream:
                state = _State.of(stream)
                if known is None or not state.continues(known.state):
                    known = self._read[path] = _Lines(state)
                    self._parts = {}  # anew, from all files
                elif state == known.state:
                    continue
                known.take(state, stream)
        if not self._parts:
            for lines in self._read.values():
                lines.told = 0
        for lines in self._read.values():
            for record in lines.records[lines.told :]:
                self._parts.setdefault(record.part, {})[record.shard] = record
            lines.told = len(lines.records)


class _State(NamedTuple):
    """What tells whether a file is still the same."""

    inode: int
    size: int  # bytes
    changed_ns: int

    @classmethod
    def of(cls, stream: IO[bytes]) -> _State:
        found = os.fstat(stream.fileno())
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)

    def continues(self, before: _State) -> bool:
        """Whether nothing but growth lies between."""
        return self == before or (self.inode == before.inode and self.size > before.size)


@dataclass(slots=True)
class _Lines:
    """One file, as far as it has been read."""

    state: _State
    whole: int = 0  # bytes of it in lines that have their end
    count: int = 0  # of those lines
    records: list[Record] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)  # numbers of those that are not as written
    is_cut: bool = False  # whether half a line follows
    told: int = 0  # records that stand among the parts

    def take(self, state: _State, stream: IO[bytes]) -> None:
        """Read what has come since."""
        stream.seek(self.whole)
        *lines, rest = stream.read().split(b"\n")
        for line in lines:
            self.count += 1
            record = _record(line)
            if record is None:
                self.broken.append(self.count)
            else:
                self.records.append(record)
        self.whole += sum(len(line) + 1 for line in lines)
        self.state, self.is_cut = state, bool(rest)

    @property
    def damaged(self) -> list[int]:
        return [*self.broken, *([self.count + 1] if self.is_cut else [])]


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
        with self._locks.held(_APPENDING), writing(self._own), self._own.open("a+b", 0) as stream:
            end = _end_of_lines(stream)
            stream.truncate(end)  # a line that its writer was killed in
            try:
                if stream.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(stream.fileno())
                if not end:  # the file itself may be new
                    sync(self._destination)
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
            for path, lines in self._read.items():
                kept = [record for record in lines.records if record.key not in gone]
                if len(kept) < len(lines.records) or lines.damaged:
                    write_aside(path, b"".join(map(_line, kept)))


def _files(destination: Path) -> list[Path]:
    return sorted(destination.glob("manifest-*.jsonl"))


def _end_of_lines(stream: IO[bytes]) -> int:
    """Bytes up to the last end of a line."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        begin = max(end - _BLOCK, 0)
        stream.seek(begin)
        found = stream.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


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
