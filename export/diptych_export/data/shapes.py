"""Scenes and captions in batches that can only be told apart by colour, shape, size and place.

A caption describes its whole scene, and within one batch it is true of its own scene
only: a caption that also fits a neighbour would be punished as if it were wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from random import Random
from typing import TypeAlias

from diptych_export.data import captions
from diptych_export.data.scenes import (
    COLOURS,
    OPPOSITE,
    SHAPES,
    TRAINING,
    Pair,
    Relation,
    Scene,
    one,
    two,
)

Example: TypeAlias = tuple[Scene, str]
Family: TypeAlias = Callable[[Random], list[Example]]

_FEW, _MANY = 36, 104  # scenes a group: of one thing each there are only so many apart
LESSON = _MANY + 2 * len(SHAPES) + len(COLOURS)  # scenes, once two things are shown
_TEXTS = 256  # captions drawn at a time
_RELATIONS: tuple[Relation, ...] = ("left", "right", "above", "below")


def lesson(seed: int, step: int, *, is_alone: bool) -> list[list[Example]]:
    """The groups of batch number `step` of what the demonstration learns from, not drawn yet.

    Beside groups in which whole captions differ, each batch has groups of one scene per shape of
    which only the shape is told, and likewise for colours: so that a word means the same beside
    every other word, in pairs never shown together too. If `is_alone`, each scene shows one thing.
    """
    rng = Random(f"lessons/{seed}/{step}")
    if is_alone:
        found = [_apart(_FEW, rng, _ALONE) for _ in range(2)]
        found += [_partly(rng, colour=False) for _ in range(4)]
        return found + [_partly(rng, colour=True) for _ in range(2)]
    found = [_apart(_MANY, rng, _ALL)]
    return found + [_partly(rng, colour=False) for _ in range(2)] + [_partly(rng, colour=True)]


def examples(size: int, seed: int, step: int, *, is_alone: bool) -> list[Example]:
    """The scenes and captions of batch number `step`, not drawn yet."""
    rng = Random(f"shapes/{seed}/{step}")
    if is_alone:
        return _apart(min(size, len(TRAINING)), rng, _ALONE)
    return _apart(size, rng, _ALL)


def texts(seed: int, number: int) -> list[str]:
    """Captions alone, `number` of them, as a tokenizer needs them."""
    found: list[Example] = []
    for step in range(ceil(number / _TEXTS)):
        found += _apart(_TEXTS, Random(f"texts/{seed}/{step}"), _ALL)
    return [text for _, text in found[:number]]


def _apart(size: int, rng: Random, families: Mapping[Family, float]) -> list[Example]:
    """Families of scenes; no two families share a set of pairs, members differ by what is said."""
    makers, weights = list(families), list(families.values())
    seen: set[frozenset[Pair]] = set()
    found: list[Example] = []
    while len(found) < size:
        family = rng.choices(makers, weights)[0](rng)
        keys = {frozenset(thing.pair for thing in scene.things) for scene, _ in family}
        if not keys & seen:
            seen |= keys
            found += family
    return found[:size]


def _partly(rng: Random, *, colour: bool) -> list[Example]:
    """One scene of each colour, or of each shape, of which only that is told."""
    place, names = (0, tuple(COLOURS)) if colour else (1, SHAPES)
    scenes = [one(rng, rng.choice([p for p in TRAINING if p[place] == name])) for name in names]
    return [(scene, captions.partly(rng, scene, colour=colour)) for scene in scenes]


def _single(rng: Random) -> list[Example]:
    scene = one(rng, rng.choice(TRAINING))
    return [(scene, captions.single(rng, scene))]


def _sizes(rng: Random) -> list[Example]:
    """Small and large of the same thing: the size word decides."""
    pair = rng.choice(TRAINING)
    scenes = [one(rng, pair, size="small"), one(rng, pair, size="large")]
    return [(scene, captions.single(rng, scene, size=True)) for scene in scenes]


def _placed(rng: Random) -> list[Example]:
    """The same thing on all four sides: the place decides."""
    pair = rng.choice(TRAINING)
    scenes = [one(rng, pair, place=place) for place in _RELATIONS]
    return [(scene, captions.placed(rng, scene)) for scene in scenes]


def _both(rng: Random) -> list[Example]:
    first, second = rng.sample(TRAINING, 2)
    scene = two(rng, first, second, rng.choice(_RELATIONS))
    return [(scene, captions.both(rng, scene))]


def _mirrored(rng: Random) -> list[Example]:
    """The same two things either way round: the relation decides."""
    first, second = rng.sample(TRAINING, 2)
    relation = rng.choice(_RELATIONS)
    return _either_way(rng, first, second, relation)


def _turned(rng: Random) -> list[Example]:
    """The same two things in all four relations."""
    first, second = rng.sample(TRAINING, 2)
    return _either_way(rng, first, second, "left") + _either_way(rng, first, second, "above")


def _crossed(rng: Random) -> list[Example]:
    """Colours exchanged between the shapes: which colour belongs to which shape decides."""
    while True:
        first, second = rng.sample(TRAINING, 2)
        crossed = (second[0], first[1]), (first[0], second[1])
        if first[0] != second[0] and first[1] != second[1] and set(crossed) <= set(TRAINING):
            break
    relation = rng.choice(_RELATIONS)
    return _either_way(rng, first, second, relation) + _either_way(rng, *crossed, relation)


def _either_way(rng: Random, first: Pair, second: Pair, relation: Relation) -> list[Example]:
    scenes = [two(rng, first, second, relation), two(rng, first, second, OPPOSITE[relation])]
    return [(scene, captions.related(rng, scene)) for scene in scenes]


# Families by how often they are drawn.
_ALONE: dict[Family, float] = {_single: 0.86, _sizes: 0.06, _placed: 0.08}
_ALL: dict[Family, float] = {
    _single: 0.30,
    _sizes: 0.05,
    _placed: 0.08,
    _both: 0.12,
    _mirrored: 0.20,
    _turned: 0.10,
    _crossed: 0.15,
}
