"""Results in, one HTML file out that needs nothing else: pictures inside, no script at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import Protocol

import numpy as np

from diptych.contract import ModelSpec
from diptych_export.data.pairs import Reject, Shard
from diptych_export.errors import BadData
from diptych_export.evaluation.labelled import Labels
from diptych_export.evaluation.page import data_uri, facts, figure, page, table
from diptych_export.evaluation.retrieval import Retrieval
from diptych_export.evaluation.zero_shot import ZeroShot, worst

_MISTAKES = 24
_QUERIES = 12  # texts whose images are shown
_CLASSES = 100  # in the table, the worst ones
_CONFUSED = 20  # pairs of classes
_REJECTS = 50  # of those skipped


class _Shown(Protocol):
    @property
    def id(self) -> str: ...

    def encoded(self) -> bytes: ...


def render(
    spec: ModelSpec,
    engine: str,
    zero_shot: tuple[ZeroShot, Labels] | None,
    retrieval: tuple[Retrieval, Sequence[Shard]] | None,
    further: Sequence[str] = (),
) -> str:
    """The whole page, with `further` sections, which are HTML already.

    Pictures are read again, so that none had to be kept.
    """
    parts = []
    if zero_shot:
        parts.append(_zero_shot(*zero_shot))
    if retrieval:
        parts.append(_retrieval(*retrieval))
    parts += further
    about = {
        "model": f"{spec.name} version {spec.version}",
        "fingerprint": spec.fingerprint,
        "engine": engine,
        "source": spec.source,
        "precision": spec.precision,
    }
    title = f"{spec.name} version {spec.version}"
    return page(title, facts(about), parts)


def _zero_shot(found: ZeroShot, data: Labels) -> str:
    shown = worst(found.mistakes, _MISTAKES)
    pictures = _pictures(data, {mistake.id for mistake in shown})
    figures = []
    for mistake in shown:
        lines = [f"is <b>{escape(found.classes[mistake.label])}</b>, taken for"]
        lines += [f"{escape(found.classes[k])} {score:.2f}" for k, score in mistake.answers]
        figures.append(figure(pictures.get(mistake.id), mistake.id, "<br>".join(lines)))
    summary = found.as_dict()
    summary["templates"] = " · ".join(found.templates)
    return "\n".join(
        [
            "<h2>Zero-shot classification</h2>",
            facts(summary),
            "<h3>Classes, the worst first</h3>",
            _classes(found),
            "<h3>Most often confused</h3>",
            _confused(found),
            "<h3>Mistakes, the most confident first</h3>",
            f"<div class=grid>{''.join(figures)}</div>",
            _rejects(found.rejects),
        ]
    )


def _classes(found: ZeroShot) -> str:
    seen = np.flatnonzero(found.pictures)
    share = found.top1[seen] / found.pictures[seen]
    rows = []
    for place in np.argsort(share, kind="stable")[:_CLASSES]:
        index = seen[place]
        bar = f"<div class=bar style='width:{100 * share[place]:.0f}%'></div>"
        rows.append([escape(found.classes[index]), found.pictures[index], share[place], bar])
    return table(("class", "pictures", "top-1", ""), rows)


def _confused(found: ZeroShot) -> str:
    rows = [
        [escape(found.classes[true]), escape(found.classes[taken]), times]
        for (true, taken), times in found.confused.most_common(_CONFUSED)
    ]
    return table(("is", "taken for", "times"), rows)


def _retrieval(found: Retrieval, shards: Sequence[Shard]) -> str:
    """The texts whose image is furthest down, and what came before it."""
    gallery = found.gallery
    queries = np.argsort(-found.image_ranks, kind="stable")[:_QUERIES]
    scores = found.text_vectors[queries] @ found.image_vectors.T
    answers = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    own = [gallery.images_of[text][0] for text in queries.tolist()]
    wanted = {gallery.images[index] for index in {*answers.ravel().tolist(), *own}}
    pictures = _pictures((item for shard in shards for item in shard.read(0)), wanted)
    rows = []
    for place, text in enumerate(queries.tolist()):
        cells = [_cell(gallery.images[own[place]], "its own", False, pictures)]
        for index in answers[place].tolist():
            is_right = index in gallery.images_of[text]
            note = f"{scores[place, index]:.3f}"
            cells.append(_cell(gallery.images[index], note, is_right, pictures))
        rank = found.image_ranks[text] + 1
        head = f"<p><b>{escape(gallery.texts[text])}</b>, its image is number {rank}</p>"
        rows.append(f"{head}<div class=grid>{''.join(cells)}</div>")
    return "\n".join(
        [
            "<h2>Retrieval</h2>",
            facts(found.as_dict()),
            "<h3>Texts whose image is furthest down</h3>",
            *rows,
            _rejects(found.rejects),
        ]
    )


def _cell(name: str, note: str, is_right: bool, pictures: Mapping[str, str]) -> str:
    return figure(pictures.get(name), name, note, "right" if is_right else "")


def _pictures(items: Iterable[_Shown | Reject], wanted: set[str]) -> dict[str, str]:
    """Small pictures of the wanted items, as data URIs."""
    found: dict[str, str] = {}
    for item in items:
        if len(found) == len(wanted):
            break
        if not isinstance(item, Reject) and item.id in wanted and item.id not in found:
            with suppress(BadData):  # gone since: the report does without
                found[item.id] = data_uri(item.encoded())
    return found


def _rejects(rejects: Sequence[Reject]) -> str:
    if not rejects:
        return ""
    rows = [[escape(reject.id), escape(reject.reason)] for reject in rejects[:_REJECTS]]
    return f"<h3>Skipped: {len(rejects)}</h3>{table(('sample', 'reason'), rows)}"
