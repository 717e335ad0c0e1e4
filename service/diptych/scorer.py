"""Queries and candidates in, scores out: what `Score` does, without the protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from diptych.contract import Matrix, ModelSpec
from diptych.encoder import Embedded, Encoder, Input, Outcome, Reading
from diptych.errors import BadInput, EngineFailed
from diptych.labels import EmbeddedLabels, embed_in_templates, vector_of
from diptych.scoring import Measure, Scores, score, score_pairs, shorten, top

_INLINE_SCORES = 20_000  # fewer take less than a millisecond; more would hold up the event loop


@dataclass(frozen=True, slots=True)
class Row:
    """One query's scores."""

    values: Scores  # [C], or the best [K], or, pair by pair, [1]
    candidates: tuple[int, ...] | None  # whose each value is, when only the best are kept


RowOutcome: TypeAlias = Row | BadInput | EngineFailed


@dataclass(frozen=True, slots=True)
class Scored:
    rows: list[RowOutcome]  # one a query
    embedded: list[Embedded]  # every input that has a vector, for its timings
    labels: Sequence[str] = ()  # what was scored, where a label set was


async def score_all(
    encoder: Encoder,
    queries: Sequence[Input | BadInput],
    candidates: Sequence[Input | BadInput],
    templates: Sequence[str],
    reading: Reading,
    *,
    measure: Measure,
    top_k: int,
) -> Scored:
    """Score every query against every candidate.

    Raises:
        BadInput: a candidate cannot be read. A bad query has a row of its own.
        DiptychError: as `Encoder.embed_all`.
    """
    asked, offered = await _both(encoder, queries, candidates, templates, reading)
    with encoder.scoring():
        matrix = np.stack([vector_of(outcome) for outcome in offered])
        rows = await _score_against(encoder.spec, asked, matrix, measure=measure, top_k=top_k)
    return Scored(rows, _embedded(asked) + _embedded(offered))


async def score_label_set(
    encoder: Encoder,
    queries: Sequence[Input | BadInput],
    labels: EmbeddedLabels,
    reading: Reading,
    *,
    measure: Measure,
    top_k: int,
) -> Scored:
    """Score every query against every label of a set embedded before."""
    asked = await encoder.embed_all(queries, reading, _places(queries))
    with encoder.scoring():
        matrix = shorten(labels.vectors, reading.dimensions or encoder.spec.embed_dim)
        rows = await _score_against(encoder.spec, asked, matrix, measure=measure, top_k=top_k)
    return Scored(rows, _embedded(asked), labels.file.labels)


async def _score_against(
    spec: ModelSpec, queries: Sequence[Outcome], candidates: Matrix, *, measure: Measure, top_k: int
) -> list[RowOutcome]:
    """Score embedded queries against candidate vectors [C, D]; an error stays where it is."""
    found = _embedded(queries)

    def computed() -> list[Row]:
        vectors = np.stack([outcome.vector for outcome in found])
        scores = score(vectors, candidates, measure, scale=spec.logit_scale, bias=spec.logit_bias)
        return [_row(values, top_k) for values in scores]

    if not found:
        return [outcome for outcome in queries if not isinstance(outcome, Embedded)]
    is_small = len(found) * len(candidates) <= _INLINE_SCORES
    rows = iter(computed() if is_small else await asyncio.to_thread(computed))
    return [next(rows) if isinstance(outcome, Embedded) else outcome for outcome in queries]


async def score_pairwise(
    encoder: Encoder,
    queries: Sequence[Input | BadInput],
    candidates: Sequence[Input | BadInput],
    templates: Sequence[str],
    reading: Reading,
    *,
    measure: Measure,
) -> Scored:
    """Score query i against candidate i. A pair with a bad half has an error of its own."""
    asked, offered = await _both(encoder, queries, candidates, templates, reading)
    spec = encoder.spec
    with encoder.scoring():
        rows = [_pair(spec, *pair, measure) for pair in zip(asked, offered, strict=True)]
    return Scored(rows, _embedded(asked) + _embedded(offered))


async def _both(
    encoder: Encoder,
    queries: Sequence[Input | BadInput],
    candidates: Sequence[Input | BadInput],
    templates: Sequence[str],
    reading: Reading,
) -> tuple[list[Outcome], list[Outcome]]:
    """Embed both sides at once, so that they share batches."""
    asked, offered = await asyncio.gather(
        encoder.embed_all(queries, reading, _places(queries)),
        embed_in_templates(encoder, candidates, templates, reading, "candidates"),
    )
    return asked, offered


def _places(queries: Sequence[object]) -> list[str]:
    return [f"queries[{index}]" for index in range(len(queries))]


def _pair(spec: ModelSpec, query: Outcome, candidate: Outcome, measure: Measure) -> RowOutcome:
    if not isinstance(query, Embedded):
        return query
    if not isinstance(candidate, Embedded):
        return candidate
    values = score_pairs(
        query.vector[None],
        candidate.vector[None],
        measure,
        scale=spec.logit_scale,
        bias=spec.logit_bias,
    )
    return Row(values, None)


def _row(scores: Scores, top_k: int) -> Row:
    if not top_k:
        return Row(scores, None)
    best = top(scores, top_k)
    return Row(scores[best], tuple(best.tolist()))


def _embedded(outcomes: Sequence[Outcome]) -> list[Embedded]:
    return [outcome for outcome in outcomes if isinstance(outcome, Embedded)]
