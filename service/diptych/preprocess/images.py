"""Encoded image in, pixels out: the same pixels the image tower saw in training."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.Image import Resampling, Transpose

from diptych.contract import ImageSpec, Pixels
from diptych.errors import BadInput

Format: TypeAlias = Literal["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"]
Size: TypeAlias = tuple[int, int]  # width, height
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

FORMATS: tuple[Format, ...] = get_args(Format)

Image.init()  # registers Pillow's plugins; only those of the allowed formats are ever asked


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a caller may send. Checked by the file's header, before a pixel is decoded."""

    max_bytes: int = 20 * 2**20  # of the encoded file
    max_pixels: int = 64_000_000  # width times height; decoding takes 4 to 12 bytes for each
    formats: tuple[Format, ...] = FORMATS  # others are not even looked at
    max_side: int = 65_535  # pixels, as in JPEG; the tables for resampling grow with it

    def __post_init__(self) -> None:
        if unknown := set(self.formats) - set(FORMATS):
            raise ValueError(f"unknown image formats: {', '.join(sorted(unknown))}")


LIMITS = ImageLimits()


def decode_image(
    data: bytes,
    spec: ImageSpec,
    limits: ImageLimits = LIMITS,
    *,
    exif: bool = True,
    exact: bool = False,
) -> Pixels:
    """Decode, turn upright, shrink and crop as `spec` says: uint8 RGB, [S, S, 3], C-contiguous.

    Of an animation or a multi-page file, the first picture. Equal, pixel for pixel, to what the
    checkpoint's own processor makes of the same file, but for this:

    - Where the short side is at least four times `resize_to`, a JPEG is decoded at a reduced
      scale that keeps at least twice `resize_to`, and other formats are averaged down before
      they are resampled. On photo-like pictures that is 0.2 to 1.3 levels of 255 away on
      average and 10 at most. `exact` turns it off.
    - `exif` applies the EXIF orientation, which the reference processors ignore. (A TIFF's
      Pillow applies by itself, for them too.)
    - 16-bit grey keeps its high byte, as Pillow does for 16-bit colour; the references saturate
      nearly all of it to white.
    - A picture so long and thin that resizing would exceed `limits.max_pixels` is resampled only
      where it is kept, which rounds differently.

    Raises:
        BadInput: at `image`; empty, over a limit, of another format, or not decodable.
    """
    _hush_pillow()
    image = _opened(data, limits)
    try:
        return np.asarray(_squared(_loaded(image, spec, exif, exact), spec, limits))
    except Exception as error:  # Pillow's decoders raise nearly every kind there is
        raise _bad(f"is a truncated or corrupt {image.format} image") from error


def check_pixels(array: npt.NDArray[Any], spec: ImageSpec) -> Pixels:
    """Take ready pixels as they are: uint8 RGB, [S, S, 3]; C-contiguous in the answer.

    Raises:
        BadInput: at `pixels`; another shape or dtype.
    """
    expected = (spec.size, spec.size, 3)
    if array.shape != expected or array.dtype != np.uint8:
        problem = f"is {array.dtype} {list(array.shape)}; this model takes uint8 {list(expected)}"
        raise BadInput.at("pixels", problem)
    return np.ascontiguousarray(array)


def _bad(problem: str) -> BadInput:
    return BadInput.at("image", problem)


# Pillow's warnings about odd files quote them, and Python remembers each text for ever.
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def _hush_pillow() -> None:
    """Keep one process-wide filter in front; catch_warnings() is not safe among threads."""
    if warnings.filters[0] != _QUIET:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def _opened(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    """Read the header, and refuse by it."""
    if not data:
        raise _bad("is empty")
    if len(data) > limits.max_bytes:
        raise _bad(f"has {len(data):,} bytes; at most {limits.max_bytes:,} are allowed")
    image = _identified(data, limits)
    (width, height), pixels = image.size, image.width * image.height
    if pixels > limits.max_pixels:
        raise _bad(f"has {pixels:,} pixels; at most {limits.max_pixels:,} are allowed")
    if max(width, height) > limits.max_side:
        raise _bad(f"is {width:,} by {height:,} pixels; at most {limits.max_side:,} a side")
    if image.format in ("JPEG", "MPO"):
        _check_scans(data, _SCANS * limits.max_pixels // pixels)
    return image


def _identified(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    """Let the first plugin that knows these bytes read their header.

    Not Image.open(): it warns and raises at pixel counts of its own, which are global.
    """
    for name in limits.formats:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(data[:16]) is not True:
            continue
        try:
            return factory(io.BytesIO(data), "")
        except Image.DecompressionBombError as error:  # the WebP plugin's own check
            raise _bad(f"has over {limits.max_pixels:,} pixels, the most allowed") from error
        except Exception as error:
            raise _bad(f"is a {name} image with a truncated or corrupt header") from error
    raise _bad(f"is of none of the formats allowed: {', '.join(limits.formats)}")


_SCANS = 20  # of a JPEG at the pixel cap, more where it is smaller; encoders write about ten
_SCAN = re.compile(rb"\xff\xda")  # three times as fast as bytes.count()
_MARKER = re.compile(rb"\xff+[^\x00\x01\xff\xd0-\xd7]")  # those with a length, and the end


def _check_scans(data: bytes, allowed: int) -> None:
    """Refuse a JPEG drawn over and over: 30 bytes a time buy 40 ms of work at 64 megapixels."""
    if len(_SCAN.findall(data)) <= allowed:  # counts thumbnails and appended films as well
        return
    at, scans = 2, 0
    while (marker := _MARKER.search(data, at)) and not marker[0].endswith(b"\xd9"):
        scans += marker[0].endswith(b"\xda")
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    if scans > allowed:
        raise _bad(f"is a JPEG of {scans:,} scans; at most {allowed:,} are allowed at its size")


class _Source(NamedTuple):
    """A decoded picture, perhaps at a reduced scale."""

    image: Image.Image
    size: Size  # at full scale
    box: Box  # of `image`: what the full picture covers, in fractions of its pixels
    gap: float | None  # Pillow's reducing_gap: how far plain averages may go first


def _loaded(image: ImageFile.ImageFile, spec: ImageSpec, exif: bool, exact: bool) -> _Source:
    size, keep = image.size, 2 * spec.resize_to
    shrink = not exact and min(size) >= 2 * keep
    drafted = image.draft(None, (keep, keep)) if shrink else None
    image.load()
    box = drafted[1] if drafted else (0, 0, *size)
    source = _Source(image, size, box, 3.0 if shrink else None)
    if exif:
        source = _upright(source)
    picture = _in_8_bits(source.image)
    return source._replace(image=_on_white(picture) if spec.rgb == "before_resize" else picture)


_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {  # by its value; and what the turn does to a box: swap its axes, then mirror x and y
    2: (Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: (Transpose.ROTATE_180, False, True, True),
    4: (Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: (Transpose.TRANSPOSE, True, False, False),
    6: (Transpose.ROTATE_270, True, True, False),
    7: (Transpose.TRANSVERSE, True, True, True),
    8: (Transpose.ROTATE_90, True, False, True),
}


def _upright(source: _Source) -> _Source:
    """Turn before resizing: afterwards would cost less, but rounds differently.

    A corrupt EXIF block counts as none.
    """
    turn = None
    with suppress(Exception):
        turn = _TURNS.get(source.image.getexif().get(_ORIENTATION, 1))
    if turn is None:
        return source
    method, swap, mirror_x, mirror_y = turn
    image = source.image.transpose(method)
    size, (left, top, right, bottom) = source.size, source.box
    if swap:
        size, (left, top, right, bottom) = size[::-1], (top, left, bottom, right)
    if mirror_x:
        left, right = image.width - right, image.width - left
    if mirror_y:
        top, bottom = image.height - bottom, image.height - top
    return _Source(image, size, (left, top, right, bottom), source.gap)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey, which `convert` would saturate."""
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


_BAND = 256  # rows blended at once: three more copies of a large picture would cost a gigabyte


def _on_white(image: Image.Image) -> Image.Image:
    """To RGB, what is transparent on white: transformers' image_transforms.convert_to_rgb.

    Grey stays grey: its three bands would resize alike.
    """
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image if image.mode in ("RGB", "L") else image.convert("RGB")
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height))).convert("RGBA")
        if band.getchannel("A").getextrema() != (255, 255):
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        flat.paste(band.convert("RGB"), (0, top))
    return flat


_FILTERS = {
    "bilinear": Resampling.BILINEAR,
    "bicubic": Resampling.BICUBIC,
    "lanczos": Resampling.LANCZOS,
}


def _squared(source: _Source, spec: ImageSpec, limits: ImageLimits) -> Image.Image:
    """Resize, crop the centre; make it RGB last, where the checkpoint does."""
    image, short = source.image, min(source.size)
    squash = spec.resize == "squash"
    # The long side is cut to whole pixels by transformers and torchvision alike.
    size = [spec.resize_to if squash else int(spec.resize_to * s / short) for s in source.size]
    left, top = (_corner(side, spec) for side in size)
    area = (left, top, left + spec.size, top + spec.size)
    if size[0] * size[1] <= limits.max_pixels:
        how = _FILTERS[spec.interpolation]
        square = image.resize(size, how, source.box, source.gap).crop(area)
    else:
        square = _resized_part(image, size, area, spec)
    # From here OpenAI and open_clip, too, have RGB: transparency is dropped, whatever it hid.
    return square if square.mode == "RGB" else square.convert("RGB")


def _resized_part(
    image: Image.Image, size: list[int], area: tuple[int, int, int, int], spec: ImageSpec
) -> Image.Image:
    """The `area` of `image` resized to `size`, without the rest ever existing."""
    (width, height), (left, top, right, bottom) = size, area
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    x, y = image.width, image.height
    box = (x * x0 / width, y * y0 / height, x * x1 / width, y * y1 / height)
    part = image.resize((x1 - x0, y1 - y0), _FILTERS[spec.interpolation], box)
    return part.crop((left - x0, top - y0, right - x0, bottom - y0))


def _corner(side: int, spec: ImageSpec) -> int:
    """Where the crop begins; negative where it adds a black margin.

    Halves go down in transformers (image_transforms.center_crop) and to the even neighbour in
    torchvision (transforms.functional.center_crop), whose margin is thinner on the left.
    """
    spare = side - spec.size
    if spec.rounding == "huggingface":
        return spare // 2
    return round(spare / 2) if spare >= 0 else -(-spare // 2)
