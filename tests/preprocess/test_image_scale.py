"""Turning by EXIF, and what decoding at a reduced scale may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from diptych.preprocess.images import decode_image
from tests.preprocess import references
from tests.preprocess.pictures import Array, encode, exif, image_spec, opened, photo

ALL_WAYS = range(1, 9)  # the values of the EXIF tag
CORRUPT = {
    "empty": b"Exif\0\0",
    "no header": b"Exif\0\0nonsense",
    "offset past the end": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "cut short": exif(6)[:16],
    "no such orientation": exif(9),
    "orientation of another type": exif(6).replace(b"\x01\x12\0\x03", b"\x01\x12\0\x02"),
}


def difference(ours: Array, theirs: Array) -> Array:
    return np.abs(ours.astype(int) - theirs)


@pytest.mark.parametrize("orientation", ALL_WAYS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_a_picture_is_turned_upright_before_it_is_resized(format: str, orientation: int) -> None:
    data, spec = encode(photo(131, 97), format, exif=exif(orientation)), image_spec()
    upright = ImageOps.exif_transpose(opened(data))
    assert np.array_equal(decode_image(data, spec), references.clip(upright, spec))


@pytest.mark.parametrize("orientation", ALL_WAYS)
def test_an_odd_crop_of_a_turned_picture_is_the_reference_crop(orientation: int) -> None:
    spec = image_spec(63, resize_to=70, rgb="after_resize", rounding="torchvision")
    data = encode(photo(131, 97), "JPEG", exif=exif(orientation))
    upright = ImageOps.exif_transpose(opened(data))
    assert np.array_equal(decode_image(data, spec), references.torchvision(upright, spec))


@pytest.mark.parametrize("orientation", ALL_WAYS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_turning_can_be_left_out_as_the_references_do(format: str, orientation: int) -> None:
    data, spec = encode(photo(131, 97), format, exif=exif(orientation)), image_spec()
    ours = decode_image(data, spec, exif=False)
    assert np.array_equal(ours, references.clip(opened(data), spec))


@pytest.mark.parametrize("block", CORRUPT.values(), ids=CORRUPT)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_corrupt_exif_block_spoils_nothing(format: str, block: bytes) -> None:
    bare, marked = (encode(photo(131, 97), format, exif=e) for e in (exif(1), block))
    assert np.array_equal(decode_image(marked, image_spec()), decode_image(bare, image_spec()))


@pytest.mark.parametrize("format", ["JPEG", "BMP"])
def test_under_four_times_the_target_nothing_is_approximated(format: str) -> None:
    data, spec = encode(photo(400, 255), format), image_spec()
    assert np.array_equal(decode_image(data, spec), references.clip(opened(data), spec))


@pytest.mark.parametrize("format", ["JPEG", "BMP"])
@pytest.mark.parametrize("size", [(1024, 768), (1001, 523), (523, 1001)], ids=str)
def test_exact_is_exact_at_any_size(format: str, size: tuple[int, int]) -> None:
    data, spec = encode(photo(*size), format), image_spec()
    assert np.array_equal(decode_image(data, spec, exact=True), references.clip(opened(data), spec))


CASES: dict[str, dict[str, Any]] = {
    "clip": {},
    "openai": {"rgb": "after_resize", "rounding": "torchvision"},
    "squash": {"resize": "squash"},
    "crop": {"resize_to": 80},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("format", ["JPEG", "BMP"])
@pytest.mark.parametrize("size", [(1024, 768), (1001, 523), (523, 1001), (331, 700)], ids=str)
def test_a_reduced_scale_moves_pixels_by_little(
    size: tuple[int, int], format: str, case: dict[str, Any]
) -> None:
    data, spec = encode(photo(*size), format), image_spec(**case)
    moved = difference(decode_image(data, spec), decode_image(data, spec, exact=True))
    assert moved.mean() < 1.4
    assert moved.max() <= 10


@pytest.mark.parametrize("orientation", ALL_WAYS)
def test_a_reduced_scale_shifts_nothing_whichever_way_up(orientation: int) -> None:
    """A ramp shows a shift that a photo hides. No side divides by the scale, which is eight."""
    across, down = np.meshgrid(np.linspace(0, 255, 1003), np.linspace(0, 255, 907))
    ramp = Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))
    data = encode(ramp, "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    spec = image_spec(48)  # five levels to the pixel
    moved = decode_image(data, spec).astype(int) - decode_image(data, spec, exact=True)
    assert np.abs(moved).max() <= 1
    assert np.abs(moved.mean(axis=(0, 1))).max() < 0.4
