"""Pictures and texts for the gate: made here, the same on every machine, of every kind we read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from random import Random

import numpy as np
from PIL import Image

from diptych.contract import ImageSpec
from diptych_export.data import captions
from diptych_export.data.drawing import picture
from diptych_export.data.scenes import PAIRS, one, two

PICTURES = 32
TEXTS = 64

_MODES = ("RGB", "RGB", "L", "RGBA", "P", "CMYK")
_SENTENCES = (
    "",
    " ",
    "a",
    "A Photo of  a   CAT.",
    "two dogs; one cat & 3 birds (1990's)",
    "don't we'll it's they've I'd you're I'm",
    "naïve café, Ångström, façade",
    "ein süßes Kätzchen schläft auf dem Sofa",
    "Una fotografía de un perro en la playa",
    "красный круг над синим квадратом",
    "ένας κόκκινος κύκλος, ΤΕΛΟΣ",
    "红色的圆在蓝色的方块上面",
    "赤い丸と青い四角",
    "빨간 동그라미",
    "دائرة حمراء فوق مربع أزرق",
    "עיגול אדום",
    "लाल वृत्त",
    "a 😀 smiling 👩‍👩‍👧 family 🇪🇺",
    "x^2 + y^2 = r^2 \u2260 \u221e",
    "https://example.org/?q=a+b&c=%20#top",
    "tab\tnewline\nno-break\u00a0space",
    "e\u0301 decomposed",
    "word " * 200,
    "supercalifragilisticexpialidocious" * 10,
)


def pictures(spec: ImageSpec) -> list[bytes]:
    """`PICTURES` encoded images: scenes, noise and gradients, PNG and JPEG, of many shapes."""
    return [_encoded(index, Random(f"gate/{index}"), spec.size) for index in range(PICTURES)]


def texts() -> list[str]:
    """`TEXTS` texts: many languages, odd characters, empty, over-long, and captions."""
    return list(islice(_texts(), TEXTS))


def _texts() -> Iterator[str]:
    yield from _SENTENCES
    rng = Random("gate/texts")
    while True:
        first, second = rng.sample(PAIRS, 2)
        scene = two(rng, first, second, "above")
        yield captions.related(rng, scene)


def _encoded(index: int, rng: Random, size: int) -> bytes:
    mode = _MODES[index % len(_MODES)]
    image = _picture(index, rng, size).convert(mode)
    file = io.BytesIO()
    if mode in ("L", "RGB", "CMYK") and index % 2:
        image.save(file, "JPEG", quality=90, progressive=bool(index % 4 == 1))
    else:
        image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    return file.getvalue()


def _picture(index: int, rng: Random, size: int) -> Image.Image:
    """Between a quarter and three times the tower's size a side, never square but for chance."""
    shape = (rng.randint(size // 4, 3 * size), rng.randint(size // 4, 3 * size))
    if index % 4 == 0:
        numbers = np.random.default_rng(index)
        return Image.fromarray(numbers.integers(0, 256, (*shape, 3), dtype=np.uint8))
    if index % 4 == 1:
        rows, columns = (np.linspace(0, 255, side) for side in shape)
        planes = np.broadcast_arrays(rows[:, None], columns, (rows[:, None] + columns) / 2)
        return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))
    first, second = rng.sample(PAIRS, 2)
    scene = one(rng, first) if index % 4 == 2 else two(rng, first, second, "left")
    return picture(scene, max(size, 64)).resize(shape)
