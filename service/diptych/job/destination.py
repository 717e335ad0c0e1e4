"""A job's destination: begun, gone on with, looked at, verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from diptych.errors import BadJob
from diptych.job.files import Locks, digest, make_aside, writing
from diptych.job.manifest import PLANNING, Manifest, OwnManifest, Record, check_space, engines
from diptych.job.plan import JOB, Job, SpaceOf, Wanted
from diptych.job.run import LISTING, LOCKS, Share
from diptych.job.shards import count, rejects
from diptych.job.sources import Line, Source, as_text, survey

_FRESH = "sources.fresh.jsonl"  # the source list of a resume, to be held against the first


def begin(
    source: str,
    destination: Path,
    wanted: Wanted,
    space: SpaceOf,
    share: Share,
    say: Callable[[str], None],
) -> Job:
    """Write down what the job is; or, where it was begun before, see that it is the same, and take
    shards that are not what was written for not done.

    Raises:
        BadData: the source is not there.
        BadJob: another job was begun here, the source list has changed, or it cannot be written.
    """
    with writing(destination):
        destination.mkdir(parents=True, exist_ok=True)
    form, lines = survey(source, wanted)
    wanted = replace(wanted, form=form)
    with Locks(destination / LOCKS) as locks, locks.held(PLANNING):
        is_resumed = (destination / JOB).exists()
        listing = destination / (_FRESH if is_resumed else LISTING)
        places = _write_lines(listing, lines)
        job = Job(source=source, wanted=wanted, space=space, listing=digest(listing), places=places)
        if not is_resumed:
            job.save(destination)
            return job
        try:
            _check_same(destination, Job.load(destination), job)
            if _digest(destination / LISTING) != job.listing:
                say(f"{LISTING}: damaged; it is written again")
                listing.replace(destination / LISTING)
        finally:
            listing.unlink(missing_ok=True)
        manifest = OwnManifest(destination, locks, share.machine)
        _redo_damaged(destination, job, manifest, share, say)
        return job


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a job is."""

    job: Job
    parts: int
    parts_done: int
    shards: int
    ok: int
    rejected: int
    inputs: int | None  # of all; None until every part is done, where only reading would tell
    about: int | None  # the same, or else guessed from the parts that are done
    engines: list[str]

    @property
    def is_done(self) -> bool:
        return self.parts_done == self.parts


def standing(destination: Path) -> Standing:
    """What the manifest says; no shard is opened.

    Raises:
        BadJob: no job here.
    """
    job = Job.load(destination)
    records = _records(destination)
    source = Source(destination / LISTING, job.wanted)
    done = _done(records)
    ok, rejected = sum(r.ok for r in records), sum(r.rejected for r in records)
    parts = len(source)
    known = ok + rejected if len(done) == parts else source.inputs
    about = known
    if known is None and done:
        seen = sum(record.ok + record.rejected for record in records if record.part in done)
        about = seen * parts // len(done)
    return Standing(
        job=job,
        parts=parts,
        parts_done=len(done),
        shards=len(records),
        ok=ok,
        rejected=rejected,
        inputs=known,
        about=about,
        engines=engines(records),
    )


def all_rejects(destination: Path) -> Iterator[tuple[str, str]]:
    """Id and reason of every reject, in the order of the source."""
    for record in _records(destination):
        if record.rejected:
            yield from rejects(destination, record.files)


def verify(destination: Path) -> Iterator[str]:
    """Everything that is not as it was written, or is missing, one line each; nothing if all is
    well and done.

    Raises:
        BadJob: no job here, or its description was damaged.
    """
    job = Job.load(destination)
    held = _digest(destination / LISTING)
    if held != job.listing:
        yield f"{LISTING}: {'damaged: its checksum is wrong' if held else 'missing'}"
        return
    manifest = Manifest(destination)
    records = manifest.read()
    for place in manifest.damaged:
        yield f"{place}: damaged line"
    check_space(records.values(), job.space.fingerprint)
    for _, record in sorted(records.items()):
        yield from _problems(destination, record)
    known = {file.name for record in records.values() for file in record.files}
    for name in sorted(_shard_files(destination) - known):
        yield f"{name}: not in the manifest"
    parts = len(Source(destination / LISTING, job.wanted))
    unfinished = sorted(set(range(parts)) - _done(list(records.values())))
    if unfinished:
        first = ", ".join(map(str, unfinished[:5])) + (", …" if len(unfinished) > 5 else "")
        yield f"{len(unfinished)} of {parts} parts are not done: {first}"


def _write_lines(listing: Path, lines: Iterator[Line]) -> int:
    places = 0

    def write(aside: Path) -> None:
        nonlocal places
        with aside.open("w") as stream:
            for line in lines:
                stream.write(as_text(line))
                places += 1

    make_aside(listing, write)
    return places


def _check_same(destination: Path, was: Job, now: Job) -> None:
    """As `Job.check_same`; a changed source list is told by its first line that differs."""
    was.check_same(replace(now, listing=was.listing, places=was.places))
    if was.listing == now.listing:
        return
    if _digest(destination / LISTING) != was.listing:
        raise BadJob(
            "the source list has changed since the job was begun, and the old one is damaged: "
            f"{destination / LISTING}"
        )
    with (destination / LISTING).open() as old, (destination / _FRESH).open() as new:
        for number, (before, after) in enumerate(zip_longest(old, new), 1):
            if before != after:
                raise BadJob(
                    "the source list has changed since the job was begun, first in line "
                    f"{number}: was {_shown(before)}, is {_shown(after)}"
                )


def _digest(path: Path) -> str | None:
    """As `digest`; None where there is no file."""
    return digest(path) if path.exists() else None


def _shown(line: str | None) -> str:
    return "nothing" if line is None else line.strip()


def _redo_damaged(
    destination: Path, job: Job, manifest: OwnManifest, share: Share, say: Callable[[str], None]
) -> None:
    records = manifest.read()
    check_space(records.values(), job.space.fingerprint)
    parts = set(share.parts(len(Source(destination / LISTING, job.wanted))))
    bad = []
    for record in records.values():
        problems = list(_problems(destination, record)) if record.part in parts else []
        for problem in problems:
            say(f"{problem}; it will be done again")
        bad += [record.key] if problems else []
    for place in manifest.damaged:
        say(f"{place}: damaged line; what it stood for will be done again")
    if bad or manifest.damaged:
        manifest.drop(bad)


def _problems(destination: Path, record: Record) -> Iterator[str]:
    for file in record.files:
        path = destination / file.name
        if not path.exists():
            yield f"{file.name}: missing"
            return
        size = path.stat().st_size
        if size != file.bytes:
            yield f"{file.name}: has {size:,} bytes, {file.bytes:,} were written"
            return
        if digest(path) != file.sha256:
            yield f"{file.name}: damaged: its checksum is wrong"
            return
    held, recorded = count(destination, record.files), (record.ok, record.rejected)
    if held != recorded:
        yield f"{record.files[0].name}: holds {held} inputs and rejects, {recorded} were written"


def _records(destination: Path) -> list[Record]:
    return [record for _, record in sorted(Manifest(destination).read().items())]


def _done(records: list[Record]) -> set[int]:
    """Parts of which every shard is there."""
    shards: dict[int, set[int]] = {}
    last: dict[int, int] = {}
    for record in records:
        shards.setdefault(record.part, set()).add(record.shard)
        if record.is_last:
            last[record.part] = record.shard
    return {part for part, end in last.items() if shards[part] >= set(range(end + 1))}


def _shard_files(destination: Path) -> set[str]:
    folders = ("shards", "img_emb", "text_emb", "metadata", "rejected")
    found = (path for folder in folders for path in (destination / folder).glob("*"))
    return {str(path.relative_to(destination)) for path in found}
