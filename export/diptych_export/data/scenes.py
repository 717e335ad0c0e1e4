"""What a scene is made of, and where things may lie in it. Drawn and put into words elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

Rgb: TypeAlias = tuple[int, int, int]
Pair: TypeAlias = tuple[str, str]  # colour, shape
Relation: TypeAlias = Literal["left", "right", "above", "below"]
SizeName: TypeAlias = Literal["small", "medium", "large"]

SIDE_PX = 64  # of a finished picture; every length below is in these pixels

# Several anchors a colour, HTML's own names among them, because that is what people draw with.
COLOURS: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (220, 20, 40), (200, 10, 10)),
    "orange": ((255, 165, 0), (255, 140, 0), (245, 125, 20)),
    "yellow": ((255, 255, 0), (250, 220, 30), (255, 235, 70)),
    "green": ((0, 128, 0), (0, 255, 0), (40, 170, 60), (50, 205, 50)),
    "blue": ((0, 0, 255), (30, 80, 220), (20, 40, 160), (65, 105, 225)),
    "purple": ((128, 0, 128), (147, 50, 200), (110, 30, 160)),
    "pink": ((255, 192, 203), (255, 105, 180), (250, 140, 185)),
    "brown": ((139, 69, 19), (150, 50, 40), (120, 72, 30)),
    "black": ((0, 0, 0), (25, 25, 25)),
    "white": ((255, 255, 255), (242, 242, 242)),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
PAIRS: tuple[Pair, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)

OPPOSITE: dict[Relation, Relation] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
}

_DIAMETER_PX: dict[SizeName, tuple[float, float]] = {
    "small": (16, 20),
    "medium": (22, 27),
    "large": (29, 52),
}
_ONE_SIZES: tuple[SizeName, ...] = ("small", "medium", "large", "large")
_PLACED_SIZES: tuple[SizeName, ...] = ("small", "medium")
_TWO_SIZES: tuple[SizeName, ...] = ("small", "medium", "medium", "large")
_LARGEST_OF_TWO_PX = 29.0  # two of these still fit side by side
_OUTLINES: tuple[Rgb, ...] = ((0, 0, 0), (60, 60, 60), (255, 255, 255))
_OUTLINED_PX = 19.0  # smaller things would be all outline
_TOWARDS_PX = 11.0  # least distance from the middle of a thing that lies to one side
_COLOUR_JITTER = 14
_CONTRAST = 95.0  # least distance in RGB between a thing and what is behind it


def _held_out() -> frozenset[Pair]:
    """One fifth of all pairs: two colours of every shape, one shape of every colour."""
    colours = tuple(COLOURS)
    return frozenset(
        (colours[row], shape)
        for column, shape in enumerate(SHAPES)
        for row in range(len(colours))
        if (row + row // 5 + 2 * column) % 5 == 4
    )


HELD_OUT = _held_out()
TRAINING: tuple[Pair, ...] = tuple(pair for pair in PAIRS if pair not in HELD_OUT)


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene. x grows to the right, y downwards, both in pixels."""

    pair: Pair
    size: SizeName
    rgb: Rgb
    x: float
    y: float
    diameter: float
    angle: float  # degrees, counter-clockwise
    slimness: float  # 0..1: how thin a ring, a cross or a star's points are
    outline: Rgb | None


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two things on a plain background."""

    things: tuple[Thing, ...]
    relation: Relation | None  # where the first thing lies: seen from the second, or in the picture
    background: Rgb
    background_name: str | None  # None where no single word would be honest
    zoom: int  # drawn at this many times the size, then reduced: smooth edges, or at 1 ragged ones


def one(
    rng: Random, pair: Pair, *, size: SizeName | None = None, place: Relation | None = None
) -> Scene:
    """A scene of one thing, often but not always in the middle; or clearly towards `place`."""
    sizes = _ONE_SIZES if place is None else _PLACED_SIZES
    chosen = rng.choice(sizes) if size is None else size
    diameter = rng.uniform(*_DIAMETER_PX[chosen])
    room = (SIDE_PX - diameter) / 2 - 1
    if place is None:
        spread = room * rng.choice((0.1, 0.3, 1.0))
        x, y = (rng.uniform(-spread, spread) for _ in range(2))
    else:
        along = rng.uniform(_TOWARDS_PX, room) * (-1 if place in ("left", "above") else 1)
        across = rng.uniform(-0.45, 0.45) * abs(along)
        x, y = (along, across) if place in ("left", "right") else (across, along)
    middle = SIDE_PX / 2
    return _scene(rng, (_thing(rng, pair, chosen, middle + x, middle + y, diameter),), place)


def two(rng: Random, first: Pair, second: Pair, relation: Relation) -> Scene:
    """A scene in which `first` lies at `relation` of `second`, clearly along one axis."""
    sizes = [rng.choice(_TWO_SIZES) for _ in range(2)]
    widths = [min(rng.uniform(*_DIAMETER_PX[size]), _LARGEST_OF_TWO_PX) for size in sizes]
    along = _apart(rng, widths)
    across = _beside(rng, widths, 0.45 * (along[1] - along[0]))
    if relation in ("right", "below"):
        along = [SIDE_PX - place for place in along]
    xs, ys = (along, across) if relation in ("left", "right") else (across, along)
    things = tuple(
        _thing(rng, pair, size, x, y, width)
        for pair, size, x, y, width in zip((first, second), sizes, xs, ys, widths, strict=True)
    )
    return _scene(rng, things, relation)


def _apart(rng: Random, widths: list[float]) -> list[float]:
    """Two places along one axis, the first the lesser, that keep the things from touching."""
    low, high = widths[0] / 2 + 1, SIDE_PX - widths[1] / 2 - 1
    least = min(sum(widths) / 2 + 2, high - low)
    gap = rng.uniform(least, high - low)
    start = rng.uniform(low, high - gap)
    return [start, start + gap]


def _beside(rng: Random, widths: list[float], most: float) -> list[float]:
    """Two places along the other axis, at most `most` apart: no doubt which relation holds."""
    room = (SIDE_PX - max(widths)) / 2 - 1
    middle = SIDE_PX / 2 + rng.uniform(-room, room)
    places = [middle + rng.uniform(-most, most) / 2 for _ in widths]
    return [
        min(max(place, width / 2 + 1), SIDE_PX - width / 2 - 1)
        for place, width in zip(places, widths, strict=True)
    ]


def _thing(rng: Random, pair: Pair, size: SizeName, x: float, y: float, diameter: float) -> Thing:
    outlined = rng.random() < 0.1 and diameter > _OUTLINED_PX
    return Thing(
        pair=pair,
        size=size,
        rgb=_jittered(rng, rng.choice(COLOURS[pair[0]])),
        x=x,
        y=y,
        diameter=diameter,
        angle=rng.choice((0.0, rng.uniform(-12, 12))),
        slimness=rng.random(),
        outline=rng.choice(_OUTLINES) if outlined else None,
    )


def _scene(rng: Random, things: tuple[Thing, ...], relation: Relation | None) -> Scene:
    while True:  # a few tries: most backgrounds are far from most colours
        background, name = _background(rng)
        if all(math.dist(background, thing.rgb) > _CONTRAST for thing in things):
            return Scene(things, relation, background, name, rng.choice((1, 2, 3, 4)))


def _background(rng: Random) -> tuple[Rgb, str | None]:
    kind = rng.random()
    if kind < 0.35:
        return (255, 255, 255), "white"
    if kind < 0.47:
        return (0, 0, 0), "black"
    if kind < 0.67:
        grey = rng.randrange(60, 226)
        return (grey, grey, grey), rng.choice(("grey", "gray"))
    low = 195 if kind < 0.9 else 0  # a pastel, or any colour at all
    return (rng.randint(low, 255), rng.randint(low, 255), rng.randint(low, 255)), None


def _jittered(rng: Random, rgb: Rgb) -> Rgb:
    red, green, blue = (
        min(max(value + rng.randint(-_COLOUR_JITTER, _COLOUR_JITTER), 0), 255) for value in rgb
    )
    return red, green, blue
