"""Tables in, pairs out: CSV, TSV and parquet with paths or bytes of images, and texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from diptych.job.places import beside
from diptych.job.tables import column, csv_rows, parquet_rows
from diptych_export.data.pairs import Item, Keys, Pair, Reject

_IMAGES = ("image", "filepath", "image_path", "file_name", "filename", "path", "image_url", "url")
_TEXTS = ("caption", "text", "title")


@dataclass(frozen=True, slots=True)
class CsvShard:
    """One CSV file, or TSV by its name, with a first line of column names. UTF-8."""

    place: str
    keys: Keys

    def read(self, start: int) -> Iterator[Item]:
        rows = csv_rows(self.place, partial(_columns, self.place, self.keys), start)
        for number, row in enumerate(rows, start):
            yield _pair(self.place, number, *(row or ()))


@dataclass(frozen=True, slots=True)
class ParquetShard:
    """One parquet file; images are paths, bytes, or structs of both as `datasets` writes them."""

    place: str
    keys: Keys

    def read(self, start: int) -> Iterator[Item]:
        rows = parquet_rows(self.place, partial(_columns, self.place, self.keys), start)
        for number, row in enumerate(rows, start):
            yield _pair(self.place, number, *(row or ()))


def _pair(place: str, number: int, image: Any = None, text: Any = None) -> Item:
    name = f"{place}:{number}"  # rows count from 0, the line of column names left out
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if not image or not isinstance(image, str | bytes):
        return Reject(name, "no image")
    if not isinstance(text, str):
        return Reject(name, "no text")
    return Pair(name, beside(place, image) if isinstance(image, str) else image, text.strip())


def _columns(place: str, keys: Keys, names: Sequence[str]) -> tuple[str, str]:
    return column(place, names, keys.image, _IMAGES), column(place, names, keys.text, _TEXTS)
