"""Parts of a report in, one HTML page out that needs nothing else: pictures inside, no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from PIL import Image, ImageOps

_SIDE_PX = 112  # of a picture


def page(title: str, about: str, parts: Iterable[str]) -> str:
    """`about` and `parts` are HTML already."""
    return _PAGE.substitute(title=escape(title), about=about, parts="\n".join(parts))


def data_uri(data: bytes) -> str:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (2 * _SIDE_PX, 2 * _SIDE_PX))
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def figure(picture: str | None, name: str, caption: str, kind: str = "") -> str:
    """`caption` is HTML already."""
    seen = f'<img src="{picture}" alt="">' if picture else ""
    inside = f"{seen}<figcaption>{caption}</figcaption>"
    return f'<figure class="{kind}" title="{escape(name)}">{inside}</figure>'


def facts(named: Mapping[str, Any]) -> str:
    rows = [[escape(name), escape(_text(value))] for name, value in named.items()]
    return table((), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Cells are HTML already."""
    lines = ["<table>"]
    if head:
        lines.append(_row("th", head))
    lines += [_row("td", row) for row in rows]
    return "".join([*lines, "</table>"])


def _row(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


_PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1rem }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top }
td { overflow-wrap: anywhere }
tr { border-bottom: 1px solid #ddd }
.bar { background: #4477aa; height: .9rem; margin-top: .2rem }
td:has(.bar) { width: 16rem }
.grid { display: flex; flex-wrap: wrap; gap: .6rem }
figure { margin: 0; width: 128px; font-size: 12px; padding: 4px; border: 2px solid transparent }
figure.right { border-color: #228833 }
img { display: block; max-width: 100%; outline: 1px solid #ddd }
</style></head><body><h1>$title</h1>
$about
$parts
</body></html>
"""
)
