"""Groups of images and texts as a user names them: folders, or a column of a table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from diptych.contract import Tower
from diptych.job.tars import IMAGES
from diptych_export.errors import BadData
from diptych_export.evaluation.judged import Row, read_rows

COLUMN = "group"  # where none is named


def read_groups(source: Path, concepts: Collection[str], column: str | None) -> list[Row]:
    """A folder with a folder of images for each group; or a CSV file as for calibration, with a
    column that names each row's group. Columns named as concepts may be missing there.

    Raises:
        BadData: naming what is wrong with it, or that it holds fewer than two groups.
    """
    if source.is_dir():
        if column is not None:
            raise BadData(f"{source}: a folder's groups are its folders; a column is a table's")
        rows = [row for folder in _folders(source) for row in _images(folder)]
    else:
        rows = read_rows(source, concepts, group=column or COLUMN)
    if len(found := sorted({row.group for row in rows if row.group})) < 2:
        there = ", ".join(found) or "none"
        raise BadData(f"{source}: two groups or more are needed to compare; there are: {there}")
    return rows


def _folders(source: Path) -> list[Path]:
    return sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Row]:
    return [
        Row(f"{folder.name}/{file.relative_to(folder)}", Tower.IMAGE, str(file), {}, folder.name)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower().removeprefix(".") in IMAGES
    ]
