"""A scene in, a picture out: uint8 [64, 64, 3], RGB."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from diptych.contract import Pixels
from diptych_export.data.scenes import SIDE_PX, Rgb, Scene, Thing

Outline: TypeAlias = list[tuple[float, float]]  # corners, y downwards, within the unit circle's box


def draw(scene: Scene) -> Pixels:
    """The same scene gives the same bytes, with the same Pillow."""
    return np.asarray(picture(scene, SIDE_PX), dtype=np.uint8)


def picture(scene: Scene, side_px: int) -> Image.Image:
    """Drawn at `zoom` times the size, then reduced as CLIP's own processor reduces a photo."""
    large_px = side_px * scene.zoom
    canvas = Image.new("RGB", (large_px, large_px), scene.background)
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        _paint(pen, thing, large_px / SIDE_PX)
    return canvas.resize((side_px, side_px), Image.Resampling.BICUBIC)


def _paint(pen: ImageDraw.ImageDraw, thing: Thing, scale: float) -> None:
    x, y, radius = thing.x * scale, thing.y * scale, thing.diameter / 2 * scale
    line = round(scale * max(1.0, thing.diameter / 20)) if thing.outline else 0
    shape = thing.pair[1]
    if shape in ("circle", "ring"):
        box = (x - radius, y - radius, x + radius, y + radius)
        _paint_round(pen, box, thing.rgb, thing.outline, line, _hole(thing, radius))
        return
    turned = _turned(_OUTLINES[shape](thing.slimness), thing.angle)
    corners = [(x + radius * a, y + radius * b) for a, b in turned]
    pen.polygon(corners, fill=thing.rgb)
    if line:
        pen.line([*corners, corners[0]], fill=thing.outline, width=line)


def _hole(thing: Thing, radius: float) -> float | None:
    return radius * (0.45 + 0.25 * thing.slimness) if thing.pair[1] == "ring" else None


def _paint_round(
    pen: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    fill: Rgb,
    outline: Rgb | None,
    line: int,
    hole: float | None,
) -> None:
    if hole is None:
        pen.ellipse(box, fill=fill, outline=outline, width=line)
        return
    radius = (box[2] - box[0]) / 2
    pen.ellipse(box, outline=fill, width=max(2, round(radius - hole)))
    if line:
        pen.ellipse(box, outline=outline, width=line)


def _turned(outline: Outline, degrees: float) -> Outline:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos + y * sin, y * cos - x * sin) for x, y in outline]


def _square(slimness: float) -> Outline:
    half = 0.80 + 0.12 * slimness
    return [(-half, -half), (half, -half), (half, half), (-half, half)]


def _triangle(slimness: float) -> Outline:
    half = 0.98 - 0.15 * slimness
    return [(0.0, -0.92), (half, 0.82), (-half, 0.82)]


def _diamond(slimness: float) -> Outline:
    half = 0.98 - 0.35 * slimness
    return [(0.0, -1.0), (half, 0.0), (0.0, 1.0), (-half, 0.0)]


def _cross(slimness: float) -> Outline:
    arm, end = 0.36 - 0.16 * slimness, 0.92
    quarter = [(arm, -end), (arm, -arm), (end, -arm)]
    corners: Outline = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


def _star(slimness: float) -> Outline:
    inner = 0.50 - 0.14 * slimness
    radii = [1.0 if point % 2 == 0 else inner for point in range(10)]
    turns = [math.pi * point / 5 for point in range(10)]
    return [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, turns, strict=True)]


def _heart(slimness: float) -> Outline:
    """The well-known curve x = 16 sin³ t, as wide as it is high."""
    width = 0.95 - 0.1 * slimness
    turns = [2 * math.pi * step / 40 for step in range(40)]
    return [(width * math.sin(t) ** 3, (_heart_height(t) + 2.5) / 14.5) for t in turns]


def _heart_height(t: float) -> float:
    return -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) - 5


_OUTLINES: dict[str, Callable[[float], Outline]] = {
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "star": _star,
    "heart": _heart,
}
