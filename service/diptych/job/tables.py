"""Tables in, rows out: CSV, TSV, parquet and JSON lines, streamed, of a file's chosen columns."""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from diptych.errors import BadData
from diptych.job.places import open_binary

# The names of a file's columns in, those wanted out; a column that is not there raises BadData.
Choose: TypeAlias = Callable[[Sequence[str]], Sequence[str]]
# The values of the chosen columns, in their order; None where the line is not readable.
Row: TypeAlias = tuple[Any, ...] | None

_ROWS = 256  # read at once; images may be inside

csv.field_size_limit(2**24)  # characters; the module's own 131,072 would end a file at a long text


def column(place: str, names: Sequence[str], key: str | None, usual: Sequence[str]) -> str:
    """Which of `names` to read: `key` if one is given, else the first of the `usual` ones.

    Raises:
        BadData: none of them is there.
    """
    for name in [key] if key else usual:
        if name in names:
            return name
    wanted = repr(key) if key else f"any of {', '.join(usual)}"
    raise BadData(f"{place}: no column {wanted}; there are: {', '.join(names) or 'none'}")


def csv_rows(place: str, choose: Choose, start: int) -> Iterator[Row]:
    """Rows from number `start` on of a CSV file, or TSV by its name, in UTF-8, below its first
    line of column names. Values are strings; None where a line is too short.

    Raises:
        BadData: it cannot be opened, has not the columns, or is damaged.
    """
    delimiter = "\t" if ".tsv" in place.rsplit("/", 1)[-1].lower() else ","
    with open_binary(place) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        rows = csv.DictReader(lines, delimiter=delimiter)
        try:
            chosen = choose(rows.fieldnames or [])
            for number, row in enumerate(rows):
                if number >= start:
                    yield tuple(row.get(name) for name in chosen)
        except (csv.Error, EOFError, zlib.error) as error:
            raise BadData(f"{place}: line {rows.line_num}: {error}", damaged=True) from error


def json_rows(place: str, choose: Choose, start: int) -> Iterator[Row]:
    """Rows from number `start` on of a file with a JSON object a line; its first line says which
    columns there are, and lines that are no object are None.

    Raises:
        BadData: it cannot be opened, has not the columns, or is damaged.
    """
    with open_binary(place) as stream:
        chosen: Sequence[str] | None = None
        try:
            for number, line in enumerate(line for line in stream if line.strip()):
                fields = _fields(line)
                if chosen is None and fields is not None:
                    chosen = choose(list(fields))
                if number >= start:
                    yield None if fields is None else tuple(map(fields.get, chosen or ()))
        except (EOFError, zlib.error) as error:
            raise BadData(f"{place}: {error}", damaged=True) from error


def parquet_rows(place: str, choose: Choose, start: int) -> Iterator[Row]:
    """Rows from number `start` on of a parquet file; whole row groups before it stay unread.

    Raises:
        BadData: it cannot be opened, has not the columns, or is damaged.
    """
    with open_binary(place) as stream:
        try:
            file = pq.ParquetFile(stream)
            chosen = list(choose(file.schema_arrow.names))
            first = 0  # row of the current group
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first + rows > start:
                    yield from _group(file, group, chosen, max(start - first, 0))
                first += rows
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and (
                error.errno is not None or type(error) is not OSError
            ):
                raise  # the disk or the network; Arrow's own complaints are plain, with no number
            raise BadData(f"{place}: {str(error).splitlines()[0]}", damaged=True) from error


_READERS: tuple[tuple[str, Callable[[str, Choose, int], Iterator[Row]]], ...] = (
    (r"\.(csv|tsv)(\.\w+)?$", csv_rows),
    (r"\.(parquet|pq)$", parquet_rows),
    (r"\.(jsonl|ndjson)(\.\w+)?$", json_rows),
)


def reader(place: str) -> Callable[[str, Choose, int], Iterator[Row]] | None:
    """What reads a table of that name; None where it is not the name of a table."""
    return next((read for name, read in _READERS if re.search(name, place, re.IGNORECASE)), None)


def _group(file: Any, group: int, columns: list[str], start: int) -> Iterator[Row]:
    number = 0
    for batch in file.iter_batches(_ROWS, row_groups=[group], columns=list(dict.fromkeys(columns))):
        if number + len(batch) > start:
            skipped = batch.slice(max(start - number, 0))
            yield from zip(*(skipped.column(name).to_pylist() for name in columns), strict=True)
        number += len(batch)


def _fields(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
