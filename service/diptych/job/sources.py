"""What a person wrote in; the source list and the inputs of each of its parts out.

The list is a file of the destination, one JSON line for each file of the source, so that millions
of them take no memory, and a resume can tell what has changed. Where the source is files of one
input each, a part is as many lines as a shard has inputs; else each file is a part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from diptych.contract import Tower
from diptych.errors import BadData, DiptychError
from diptych.job import tables
from diptych.job.items import Content, Item, Place
from diptych.job.places import Found, beside, find
from diptych.job.plan import Form, Wanted
from diptych.job.tars import IMAGES, Damage, Sample, samples
from diptych.preprocess.images import LIMITS

_TAR = r"\.tar(\.\w+)?$|\.tgz$"
_TEXTS = ("txt", "caption")  # extensions of files
_COLUMNS = {
    Tower.IMAGE: (
        *("image", "filepath", "image_path", "file_name", "filename", "path", "image_url", "url"),
        *("jpg", "png", "webp"),
    ),
    Tower.TEXT: ("caption", "text", "title"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One file of the source."""

    place: str
    bytes: int | None
    take: int | None = None  # only its first so many inputs, because of a limit


def survey(source: str, wanted: Wanted) -> tuple[Form, Iterator[Line]]:
    """What the source is, and its files in order.

    Raises:
        BadData: nothing is there, or files of several forms.
        ValueError: what is wanted cannot be had from such a source.
    """
    found = find(source)
    first = next((one for one in found if _is_wanted(one, wanted)), None)
    if first is None:
        hint = "; name shards by a pattern" if wanted.form == "auto" else ""
        raise BadData(f"{source}: no {wanted.kind} files there{hint}")
    form = _form(first, wanted)
    if form == "files" and (wanted.keep or wanted.image or wanted.text):
        raise ValueError("--image, --text and --keep are of tables and tars; this source is files")
    rest = (one for one in found if _is_wanted(one, wanted))
    lines = (_line(one, form, wanted) for one in _all(first, rest))
    return form, _limited(lines, replace(wanted, form=form)) if wanted.limit else lines


class Source:
    """The parts of a listed source, each of which can be read from any input on."""

    def __init__(self, listing: Path, wanted: Wanted) -> None:
        self._listing = listing
        self._wanted = wanted
        self._stride = wanted.shard_size if wanted.form == "files" else 1
        self._offsets: list[int] = []  # in the listing, of every part
        self.lines = 0
        with listing.open("rb") as stream:
            offset = 0
            for line in stream:
                if self.lines % self._stride == 0:
                    self._offsets.append(offset)
                self.lines += 1
                offset += len(line)

    def __len__(self) -> int:
        """Parts."""
        return len(self._offsets)

    @property
    def inputs(self) -> int | None:
        """How many there are; None where only reading them would tell."""
        return self.lines if self._wanted.form == "files" else self._wanted.limit or None

    def read(self, part: int, start: int) -> Iterator[Item]:
        """The inputs of `part` from number `start` on, in an order that never changes.

        What cannot be read is one input all the same, with its problem.

        Raises:
            BadData: a file cannot be opened, or lacks a column.
        """
        lines = self._lines(part)
        if self._wanted.form == "files":
            lines, start = islice(lines, start, None), 0
        for line in lines:
            yield from read_line(line, self._wanted, start)

    def _lines(self, part: int) -> Iterator[Line]:
        with self._listing.open("rb") as stream:
            stream.seek(self._offsets[part])
            for line in islice(stream, self._stride):
                yield Line(**json.loads(line))


def as_text(line: Line) -> str:
    """One line of the list, in ASCII: names of files need not be valid Unicode."""
    return json.dumps(asdict(line)) + "\n"


def read_line(line: Line, wanted: Wanted, start: int = 0) -> Iterator[Item]:
    """The inputs of one file of the source, from number `start` on."""
    stop = None if line.take is None else max(line.take - start, 0)
    items = islice(_items(line.place, wanted, start), stop)
    return _one_kind_of_error(items, line.place) if "://" in line.place else items


def _one_kind_of_error(items: Iterator[Item], place: str) -> Iterator[Item]:
    """Drivers of far places raise kinds of their own while they read."""
    try:
        yield from items
    except DiptychError:
        raise
    except Exception as error:
        raise BadData(f"{place}: {str(error) or type(error).__name__}") from error


def _items(place: str, wanted: Wanted, start: int) -> Iterator[Item]:
    if wanted.form == "files":
        yield _of_file(place, wanted)
        return
    if wanted.form == "webdataset":
        for sample in islice(samples(place), start, None):
            yield _of_sample(place, sample, wanted)
        return
    read = tables.reader(place)
    assert read is not None, place
    keys = {Tower.IMAGE: wanted.image, Tower.TEXT: wanted.text}
    count = start
    try:
        for row in read(place, partial(_columns, place, wanted, keys), start):
            yield _of_row(place, count, row, wanted)
            count += 1
    except BadData as error:
        if not error.damaged:
            raise
        yield Item(place, problem=f"is damaged after {count} rows, the rest is skipped: {error}")


def _all(first: Found, rest: Iterator[Found]) -> Iterator[Found]:
    yield first
    yield from rest


def _is_wanted(found: Found, wanted: Wanted) -> bool:
    """Folders hold other things too; what was named by itself is wanted."""
    if not found.in_folder:
        return True
    extension = found.name.rpartition(".")[2].lower()
    if wanted.form in ("webdataset", "table"):
        return _form(found, replace(wanted, form="auto")) == wanted.form
    return extension in (_TEXTS if wanted.kind == "text" else IMAGES)


def _form(found: Found, wanted: Wanted) -> Form:
    if wanted.form != "auto":
        return wanted.form
    if re.search(_TAR, found.name, re.IGNORECASE):
        return "webdataset"
    return "table" if tables.reader(found.name) else "files"


def _line(found: Found, form: Form, wanted: Wanted) -> Line:
    if _form(found, wanted) != form:
        raise BadData(f"{found.name}: not of the form of the files before it, {form}")
    if form == "table" and tables.reader(found.name) is None:
        raise BadData(f"{found.name}: not the name of a table: .parquet, .csv, .tsv or .jsonl")
    return Line(found.name, found.bytes)


def _limited(lines: Iterator[Line], wanted: Wanted) -> Iterator[Line]:
    left = wanted.limit
    for line in lines:
        if wanted.form == "files":
            yield line
            left -= 1
        else:
            count = sum(1 for _ in islice(read_line(line, wanted), left))
            yield replace(line, take=count)
            left -= count
        if not left:
            return


def _of_file(place: str, wanted: Wanted) -> Item:
    if wanted.kind != "pair":
        return Item(place, {Tower(wanted.kind): Place(place)})
    beside_it = Place(re.sub(r"\.[^./]*$", ".txt", place))
    return Item(place, {Tower.IMAGE: Place(place), Tower.TEXT: beside_it})


def _of_sample(place: str, sample: Sample | Damage, wanted: Wanted) -> Item:
    if isinstance(sample, Damage):
        return Item(sample.place, problem=sample.reason)
    name, contents = f"{place}/{sample.key}", dict[Tower, Content | Place]()
    fields = sample.fields() if wanted.keep else {}
    metadata = {key: _string(fields.get(key)) for key in wanted.keep}
    for tower in wanted.towers:
        content: Content | None = sample.text(wanted.text or None)
        if tower is Tower.IMAGE:
            content = sample.image(wanted.image or None)
        if content is None:
            return Item(name, {}, metadata, _lacking(sample, tower))
        contents[tower] = content
    return Item(name, contents, metadata)


def _lacking(sample: Sample, tower: Tower) -> str:
    if sample.oversized:
        return f"{sample.oversized[0]} has over {LIMITS.max_bytes:,} bytes"
    return f"no {tower} among: {', '.join(sorted(sample.files)) or 'nothing'}"


def _columns(place: str, wanted: Wanted, keys: dict[Tower, str], names: Sequence[str]) -> list[str]:
    chosen = [
        tables.column(place, names, keys[tower] or None, _COLUMNS[tower]) for tower in wanted.towers
    ]
    return chosen + [tables.column(place, names, key, ()) for key in wanted.keep]


def _of_row(place: str, number: int, row: tables.Row, wanted: Wanted) -> Item:
    name = f"{place}:{number}"  # rows count from 0, the line of column names left out
    if row is None:
        return Item(name, problem="not a JSON object")
    values, kept = row[: len(wanted.towers)], row[len(wanted.towers) :]
    metadata = dict(zip(wanted.keep, map(_string, kept), strict=False))
    contents = dict[Tower, Content | Place]()
    for tower, value in zip(wanted.towers, values, strict=False):
        content = _READ[tower](place, value)
        if content is None:
            return Item(name, {}, metadata, f"no {tower}")
        contents[tower] = content
    return Item(name, contents, metadata)


def _image(place: str, value: Any) -> Content | Place | None:
    if isinstance(value, dict):  # as `datasets` writes them
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return Place(beside(place, value))
    return value if isinstance(value, bytes) and value else None


def _text(place: str, value: Any) -> Content | None:
    return value.strip() if isinstance(value, str) else None


_READ: dict[Tower, Callable[[str, Any], Content | Place | None]] = {
    Tower.IMAGE: _image,
    Tower.TEXT: _text,
}


def _string(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
