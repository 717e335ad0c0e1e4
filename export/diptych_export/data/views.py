"""Encoded image in, the pixels of a random view of it out: what a training step sees.

The same decoding and the same resampling as in serving; what varies is which part is seen.
Pillow is used directly because serving has no rule for a part.
"""

from __future__ import annotations

import io
import math
import warnings
from random import Random

import numpy as np
from PIL import Image, ImageOps

from diptych.contract import ImageSpec, Pixels
from diptych.errors import BadInput
from diptych.preprocess.images import FORMATS, LIMITS, decode_image

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def view(data: bytes, spec: ImageSpec, least: float, rng: Random) -> Pixels:
    """A random resized crop: uint8 [S, S, 3].

    Its shape is that of what serving sees, the largest square or, where serving squashes, the
    whole picture; its area is a random share of that, from `least` to 1; its place is anywhere
    in the picture. With `least` 1, what serving sees, by serving's own function.

    Raises:
        BadInput: at `image`; as `decode_image`.
    """
    if least >= 1:
        return decode_image(data, spec)
    image = _decoded(data, round(spec.size / math.sqrt(least)))
    width, height = image.size
    zoom = math.sqrt(rng.uniform(least, 1))
    if spec.resize == "shortest":
        width = height = min(image.size)
    width_seen, height_seen = width * zoom, height * zoom
    left = rng.uniform(0, image.width - width_seen)
    top = rng.uniform(0, image.height - height_seen)
    box = (left, top, left + width_seen, top + height_seen)
    how = _FILTERS[spec.interpolation]
    return np.asarray(image.resize((spec.size, spec.size), how, box, reducing_gap=3.0))


def _decoded(data: bytes, short: int) -> Image.Image:
    """Upright RGB, transparency on white; a JPEG much larger than `short` at a reduced scale."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of sizes that we check ourselves
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check(data, image)
                image.draft(None, (2 * short, 2 * short))
                return _rgb(ImageOps.exif_transpose(image))
        except BadInput:
            raise
        except Exception as error:  # Pillow's decoders raise nearly every kind there is
            raise BadInput.at("image", "is truncated, corrupt, or of no allowed format") from error


def _check(data: bytes, image: Image.Image) -> None:
    if len(data) > LIMITS.max_bytes:
        raise BadInput.at("image", f"has over {LIMITS.max_bytes:,} bytes")
    if image.width * image.height > LIMITS.max_pixels:
        raise BadInput.at("image", f"is {image.width} x {image.height} pixels large")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would saturate; keep the high byte, as serving
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
