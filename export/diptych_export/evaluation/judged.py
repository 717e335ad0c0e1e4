"""Tables of images and texts of which is said, concept by concept, whether they are of it."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from diptych.contract import Tower
from diptych_export.errors import BadData

_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_NAMES = {Tower.IMAGE: "image", Tower.TEXT: "text"}


@dataclass(frozen=True, slots=True)
class Row:
    """One image or text."""

    id: str  # file and line
    tower: Tower
    value: str  # the image's file, or the text
    truths: Mapping[str, bool]  # by concept; those not said are left out
    group: str = ""  # that it is of, where groups are compared

    def read(self) -> bytes | str:
        """What is to be embedded.

        Raises:
            BadData: the image's file cannot be read.
        """
        if self.tower is Tower.TEXT:
            return self.value
        try:
            return Path(self.value).read_bytes()
        except OSError as exc:
            raise BadData(f"{self.value}: {exc.strerror}") from exc


def read_rows(path: Path, concepts: Collection[str], *, group: str | None = None) -> list[Row]:
    """A CSV file with a column `image` (files, from its own folder) or `text` or both, one of
    them filled in each row, and a column named as each concept to calibrate: 1 or 0, true or
    false, yes or no; empty where it is not known. Other columns are not looked at.

    With `group`, the column of that name says of which group a row is, and it is enough.

    Raises:
        BadData: naming the line and column that is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            columns = table.fieldnames or []
            if not {*_NAMES.values()} & {*columns}:
                raise BadData(f"{path}: no column image and no column text")
            if group is not None and group not in columns:
                raise BadData(f"{path}: no column {group!r} that names groups")
            if group is None and not {*concepts} & {*columns}:
                wanted = ", ".join(concepts)
                raise BadData(f"{path}: no column is named as a concept of the policy: {wanted}")
            return list(_rows(path, table, concepts, group))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise BadData(f"{path}: {exc}") from exc


def _rows(
    path: Path, table: csv.DictReader[str], concepts: Collection[str], group: str | None
) -> Iterator[Row]:
    for row in table:
        place = f"{path}:{table.line_num}"
        given = {tower: row.get(name) or "" for tower, name in _NAMES.items()}
        filled = [tower for tower, value in given.items() if value]
        if len(filled) != 1:
            raise BadData(f"{place}: one of image and text must be filled, not {len(filled)}")
        [tower] = filled
        value = given[tower]
        if tower is Tower.IMAGE:
            value = str(path.parent / value)
        truths = {}
        for concept in concepts:
            if said := (row.get(concept) or "").strip().lower():
                if said not in _TRUTHS:
                    raise BadData(f"{place}: {concept}: {said[:40]!r} is neither 1 nor 0")
                truths[concept] = _TRUTHS[said]
        named = (row.get(group) or "").strip() if group is not None else ""
        yield Row(place, tower, value, truths, named)
