"""Pictures for tests and for `make demo`: drawn plainly, not by what drew the training set.

`python -m tests.drawing` writes the ones that are shipped into tests/pictures and beside the
demonstration's policy.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

PICTURES = Path(__file__).parent / "pictures"
JUDGED = Path(__file__).parents[1] / "deploy/examples/policies/pictures"


def circle(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: str) -> None:
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def square(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: str) -> None:
    draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)


def polygon(draw: ImageDraw.ImageDraw, x: float, y: float, radii: list[float], colour: str) -> None:
    """A closed figure whose corners lie at `radii` around a centre, the first one on top."""
    turn = 2 * math.pi / len(radii)
    corners = [
        (x + r * math.sin(i * turn), y - r * math.cos(i * turn)) for i, r in enumerate(radii)
    ]
    draw.polygon(corners, fill=colour)


def triangle(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: str) -> None:
    polygon(draw, x, y, [r] * 3, colour)


def star(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: str) -> None:
    polygon(draw, x, y, [r, r * 0.4] * 5, colour)


def canvas(size: tuple[int, int] = (256, 256)) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, "white")
    return image, ImageDraw.Draw(image)


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def red_circle() -> Image.Image:
    image, draw = canvas()
    circle(draw, 128, 128, 70, "red")
    return image


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Something a JPEG encoder finds as hard as a photo: gradients, edges and grain."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / width * a + y / height * b) for a, b in random.uniform(2, 30, (3, 2))]
    grain = random.normal(0, 6, (height, width, 1)).astype(np.float32)
    values = 127 + 90 * np.stack(waves, axis=-1) + grain
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def shipped() -> dict[str, bytes]:
    """The demonstration's pictures, by file name."""
    pictures: dict[str, bytes] = {"red_circle.png": encoded(red_circle())}
    image, draw = canvas()
    square(draw, 128, 128, 60, "blue")
    pictures["blue_square.jpg"] = encoded(image, "JPEG", quality=90)
    image, draw = canvas((320, 240))
    triangle(draw, 160, 130, 70, "green")
    pictures["green_triangle.webp"] = encoded(image, "WEBP", lossless=True)
    image, draw = canvas((240, 320))
    star(draw, 120, 160, 80, "yellow")
    pictures["yellow_star.png"] = encoded(image)
    image, draw = canvas()
    circle(draw, 128, 70, 42, "red")
    square(draw, 128, 186, 38, "blue")
    pictures["red_circle_above_blue_square.png"] = encoded(image)
    return pictures


def judged() -> dict[str, bytes]:
    """The examples of the demonstration's policy, by file name."""
    pictures: dict[str, bytes] = {}
    for name, radius in (("small", 40), ("large", 90)):
        image, draw = canvas()
        triangle(draw, 128, 136, radius, "red")
        pictures[f"{name}_red_triangle.png"] = encoded(image)
    image, draw = canvas()
    triangle(draw, 66, 128, 46, "green")
    circle(draw, 192, 128, 40, "red")
    pictures["green_triangle_beside_red_circle.png"] = encoded(image)
    image, draw = canvas()
    star(draw, 128, 128, 80, "red")
    pictures["red_star.png"] = encoded(image)
    return pictures


if __name__ == "__main__":
    for folder, drawn in ((PICTURES, shipped()), (JUDGED, judged())):
        folder.mkdir(exist_ok=True)
        for name, data in drawn.items():
            (folder / name).write_bytes(data)
