"""Tables in, pairs out: CSV, TSV and parquet with paths or bytes of images, and texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diptych_export.data.pairs import Item, Keys, Pair, Reject
from diptych_export.data.places import beside, open_binary
from diptych_export.errors import BadData

_IMAGES = ("image", "filepath", "image_path", "file_name", "filename", "path", "image_url", "url")
_TEXTS = ("caption", "text", "title")
_ROWS = 256  # read at once; images may be inside


@dataclass(frozen=True, slots=True)
class CsvShard:
    """One CSV file, or TSV by its name, with a first line of column names. UTF-8."""

    place: str
    keys: Keys

    def read(self, start: int) -> Iterator[Item]:
        delimiter = "\t" if ".tsv" in self.place.rsplit("/", 1)[-1].lower() else ","
        with open_binary(self.place) as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
            try:
                rows = csv.DictReader(lines, delimiter=delimiter)
                image, text = _columns(self.place, rows.fieldnames or [], self.keys)
                for number, row in enumerate(rows):
                    if number >= start:
                        yield _pair(self.place, number, row.get(image), row.get(text))
            except csv.Error as error:
                raise BadData(f"{self.place}: line {rows.line_num}: {error}") from error


@dataclass(frozen=True, slots=True)
class ParquetShard:
    """One parquet file; images are paths, bytes, or structs of both as `datasets` writes them."""

    place: str
    keys: Keys

    def read(self, start: int) -> Iterator[Item]:
        with open_binary(self.place) as stream:
            try:
                yield from self._rows(pq.ParquetFile(stream), start)
            except pa.ArrowException as error:
                raise BadData(f"{self.place}: {str(error).splitlines()[0]}") from error

    def _rows(self, file: Any, start: int) -> Iterator[Item]:
        columns = list(_columns(self.place, file.schema_arrow.names, self.keys))
        first = 0  # row of the current group; whole groups before `start` stay unread
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first + rows > start:
                number = first
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
                    images, texts = (batch.column(name).to_pylist() for name in columns)
                    for image, text in zip(images, texts, strict=True):
                        if number >= start:
                            yield _pair(self.place, number, image, text)
                        number += 1
            first += rows


def _pair(place: str, number: int, image: Any, text: Any) -> Item:
    name = f"{place}:{number}"  # rows count from 0, the line of column names left out
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if not image or not isinstance(image, str | bytes):
        return Reject(name, "no image")
    if not isinstance(text, str):
        return Reject(name, "no text")
    return Pair(name, beside(place, image) if isinstance(image, str) else image, text.strip())


def _columns(place: str, names: Sequence[str], keys: Keys) -> tuple[str, str]:
    return _column(place, names, keys.image, _IMAGES), _column(place, names, keys.text, _TEXTS)


def _column(place: str, names: Sequence[str], key: str | None, usual: Sequence[str]) -> str:
    for name in [key] if key else usual:
        if name in names:
            return name
    wanted = repr(key) if key else f"any of {', '.join(usual)}"
    raise BadData(f"{place}: no column {wanted}; there are: {', '.join(names) or 'none'}")
