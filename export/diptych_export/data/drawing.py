"""A scene in, a picture out: uint8 [side, side, 3], RGB."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from diptych.contract import Pixels
from diptych_export.data.scenes import SIDE_PX, Scene, Thing

Outline: TypeAlias = list[tuple[float, float]]  # corners, y downwards, within the unit circle's box


def draw(scene: Scene, side_px: int = SIDE_PX) -> Pixels:
    """The same scene gives the same bytes, with the same Pillow."""
    return np.asarray(picture(scene, side_px), dtype=np.uint8)


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
    if thing.pair[1] == "circle":
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=thing.rgb, outline=thing.outline, width=line)
        return
    turned = _turned(_OUTLINES[thing.pair[1]](thing.slimness), thing.angle)
    corners = [(x + radius * a, y + radius * b) for a, b in turned]
    pen.polygon(corners, fill=thing.rgb)
    if line:
        pen.line([*corners, corners[0]], fill=thing.outline, width=line)


def _turned(outline: Outline, degrees: float) -> Outline:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos + y * sin, y * cos - x * sin) for x, y in outline]


def _square(slimness: float) -> Outline:
    half = 0.80 + 0.12 * slimness
    return [(-half, -half), (half, -half), (half, half), (-half, half)]


def _triangle(slimness: float) -> Outline:
    half = 0.98 - 0.15 * slimness
    return [(0.0, -0.92), (half, 0.82), (-half, 0.82)]


def _cross(slimness: float) -> Outline:
    arm, end = 0.36 - 0.11 * slimness, 0.92
    quarter = [(arm, -end), (arm, -arm), (end, -arm)]
    corners: Outline = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


def _star(slimness: float) -> Outline:
    inner = 0.50 - 0.12 * slimness
    radii = [1.0 if point % 2 == 0 else inner for point in range(10)]
    turns = [math.pi * point / 5 for point in range(10)]
    return [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, turns, strict=True)]


_OUTLINES: dict[str, Callable[[float], Outline]] = {
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}
