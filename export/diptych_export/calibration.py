"""What a person writes after --calibrate in, pictures and texts to set int8 ranges by out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from PIL import Image

from diptych.contract import ImageSpec, Pixels
from diptych.errors import BadInput
from diptych.preprocess.images import decode_image
from diptych_export.data import shapes
from diptych_export.data.drawing import draw
from diptych_export.data.pairs import Item, Keys, Pair
from diptych_export.data.shards import shards
from diptych_export.errors import BadData

DRAWN = ({"shapes"}, {"lessons"})  # as data: scenes
PAIRS = 256  # read at most; every fourth is held back for the gate
LEAST = 32  # pairs, below which extremes say little

_HELD = 4
_BATCH = 64  # scenes drawn at a time
_PATIENCE = 100  # samples looked at for each pair that is wanted


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pairs of the kind that the model is to serve."""

    pixels: list[Pixels]  # these set the ranges
    texts: list[str]
    held_pictures: list[bytes]  # PNG: these only the gate sees
    held_texts: list[str]
    skipped: int  # samples that could not be read


def read(data: Sequence[str], image: ImageSpec) -> Calibration:
    """The first pairs of every file that `data` names, as `diptych-export train` reads them.

    Pictures are decoded as the gateway decodes them.

    Raises:
        BadData: a file cannot be read, or fewer than `LEAST` pairs can.
    """
    pixels, texts, skipped = list[Pixels](), list[str](), 0
    for seen in _scenes(image) if set(data) in DRAWN else _pairs(data, image):
        if seen is None:
            skipped += 1
            continue
        pixels.append(seen[0])
        texts.append(seen[1])
        if len(texts) == PAIRS:
            break
    if len(texts) < LEAST:
        problem = f"{len(texts)} pairs that can be read ({skipped} cannot)"
        raise BadData(f"{', '.join(data)}: {problem}, at least {LEAST} are needed to calibrate")
    used = [place for place in range(len(texts)) if place % _HELD != _HELD - 1]
    return Calibration(
        pixels=[pixels[place] for place in used],
        texts=[texts[place] for place in used],
        held_pictures=[_png(own) for own in pixels[_HELD - 1 :: _HELD]],
        held_texts=texts[_HELD - 1 :: _HELD],
        skipped=skipped,
    )


def _scenes(image: ImageSpec) -> Iterator[tuple[Pixels, str]]:
    for step in range(PAIRS // _BATCH):
        for scene, text in shapes.examples(_BATCH, 0, step, is_alone=False):
            yield draw(scene, image.size), text


def _pairs(data: Sequence[str], image: ImageSpec) -> Iterator[tuple[Pixels, str] | None]:
    """From every file as many, up to where broken ones outnumber the others by far."""
    files = shards(data, Keys())
    share = -(-PAIRS // len(files))
    for shard in files:
        good = 0
        for item in islice(shard.read(0), _PATIENCE * share):
            pair = _decoded(item, image)
            good += pair is not None
            yield pair
            if good == share:
                break


def _decoded(item: Item, image: ImageSpec) -> tuple[Pixels, str] | None:
    if not isinstance(item, Pair):
        return None
    try:
        return decode_image(item.encoded(), image), item.text
    except (BadInput, BadData):
        return None


def _png(pixels: Pixels) -> bytes:
    """Decoded once: so that files which our decoder reads otherwise on purpose count for both."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
