"""What a job would do: the source counted and sampled, nothing embedded, nothing written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diptych.contract import Tower
from diptych.errors import BadData
from diptych.job.items import Content, Item, Place, Unreadable, load
from diptych.job.plan import Form, Wanted
from diptych.job.sources import read_line, survey

_SAMPLES = 5
_SHOWN = 60  # characters of a text


@dataclass(slots=True)
class Preview:
    """What was found."""

    form: Form
    files: int = 0
    bytes: int = 0  # of the files whose places tell
    inputs: int = 0
    problems: int = 0  # inputs that could not be embedded, as far as reading tells
    samples: list[tuple[str, str]] | None = None  # id, and what it is


def preview(source: str, wanted: Wanted) -> Preview:
    """Read the whole source, or up to the limit; files of one input each are counted unread.

    Raises:
        BadData: it is not there.
    """
    form, lines = survey(source, wanted)
    found, samples = Preview(form), list[tuple[str, str]]()
    resolved = replace(wanted, form=form)
    for line in lines:
        found.files += 1
        found.bytes += line.bytes or 0
        for item in read_line(line, resolved):
            found.inputs += 1
            found.problems += bool(item.problem)
            if len(samples) < _SAMPLES:
                samples.append((item.id, _described(item)))
    found.samples = samples
    return found


def _described(item: Item) -> str:
    if item.problem:
        return item.problem
    return ", ".join(_glimpse(tower, content) for tower, content in item.contents.items())


def _glimpse(tower: Tower, content: Content | Place) -> str:
    try:
        found = load(content, tower)
    except (Unreadable, BadData) as error:
        return f"{tower}: {error}"
    if isinstance(found, bytes):
        return f"{tower} of {len(found):,} bytes"
    return f"{tower} {found[:_SHOWN]!r}" + ("…" if len(found) > _SHOWN else "")
