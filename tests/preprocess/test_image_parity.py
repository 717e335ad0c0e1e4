"""The decoder's pixels are the reference processors' pixels, one for one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diptych.contract import ImageSpec
from diptych.preprocess.images import ImageLimits, decode_image
from tests.preprocess import references
from tests.preprocess.pictures import (
    KINDS,
    Array,
    encode,
    file,
    image_spec,
    in_mode,
    opened,
    photo,
)

OPENAI: dict[str, Any] = {"rgb": "after_resize", "rounding": "torchvision"}
SIZES = [(131, 97), (90, 160), (64, 65), (23, 17)]  # above S and below, odd and even
SLIVERS = [(1, 1), (1, 37), (37, 1), (3000, 7), (7, 3000)]


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def same(ours: Array, theirs: Array, spec: ImageSpec) -> bool:
    assert ours.shape == (spec.size, spec.size, 3)
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    return np.array_equal(ours, theirs)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "jpeg ycck"])
def test_every_kind_of_file_matches_transformers(kind: str, size: tuple[int, int]) -> None:
    data, spec = file(kind, *size), image_spec()
    assert same(decode_image(data, spec), references.clip(opened(data), spec), spec)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "jpeg ycck"])
def test_every_kind_of_file_matches_openai(kind: str, size: tuple[int, int]) -> None:
    data, spec = file(kind, *size), image_spec(**OPENAI)
    assert same(decode_image(data, spec), references.torchvision(opened(data), spec), spec)


@pytest.mark.parametrize("size", SLIVERS, ids=str)
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_slivers_match(format: str, size: tuple[int, int]) -> None:
    data, spec, openai = encode(noise(*size), format), image_spec(224), image_spec(224, **OPENAI)
    assert same(decode_image(data, spec), references.clip(opened(data), spec), spec)
    theirs = references.torchvision(opened(data), openai)
    assert same(decode_image(data, openai), theirs, openai)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (895, 1000), (1000, 895)], ids=str)
def test_common_photos_match_at_clips_own_size(size: tuple[int, int]) -> None:
    data, spec = encode(photo(*size), "JPEG", quality=90), image_spec(224)
    assert same(decode_image(data, spec), references.clip(opened(data), spec), spec)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(1, 80),
    st.integers(1, 80),
    st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    st.sampled_from(["RGB", "L", "1", "P", "RGBA", "LA"]),
)
def test_any_size_crop_filter_and_mode_match(
    size: tuple[int, int], crop: int, resize_to: int, interpolation: str, mode: str
) -> None:
    data = encode(in_mode(noise(*size), mode), "PNG")
    spec = image_spec(crop, resize_to=resize_to, interpolation=interpolation)
    ours = decode_image(data, spec, exact=True)
    assert same(ours, references.clip(opened(data), spec), spec)
    spec = spec.model_copy(update=OPENAI)
    ours = decode_image(data, spec, exact=True)
    assert same(ours, references.torchvision(opened(data), spec), spec)


@pytest.mark.parametrize("size", [(333, 251), (100, 180), (3, 200)], ids=str)
def test_siglip_squashes_both_sides(size: tuple[int, int]) -> None:
    data, spec = encode(photo(*size), "PNG"), image_spec(resize="squash", interpolation="bilinear")
    assert same(decode_image(data, spec), references.siglip(opened(data), spec), spec)


@pytest.mark.parametrize("size", [(333, 251), (100, 180), (30, 20)], ids=str)
def test_align_squashes_and_then_crops(size: tuple[int, int]) -> None:
    data = encode(photo(*size), "PNG")
    spec = image_spec(289, resize="squash", resize_to=346, interpolation="bilinear")
    assert same(decode_image(data, spec), references.align(opened(data), spec), spec)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("rgb", ["before_resize", "after_resize"])
def test_16_bit_grey_keeps_its_high_byte(format: str, rgb: str) -> None:
    data, spec = encode(in_mode(photo(131, 97), "I;16"), format), image_spec(rgb=rgb)
    values = np.asarray(opened(data))
    assert values.dtype == np.uint16
    in_8_bits = Image.fromarray((values >> 8).astype(np.uint8))
    assert same(decode_image(data, spec), references.clip(in_8_bits, spec), spec)


def test_16_bit_grey_equals_the_same_picture_in_16_bit_colour() -> None:
    grey = in_mode(photo(131, 97), "I;16")
    high = Image.fromarray((np.asarray(grey) >> 8).astype(np.uint8)).convert("RGB")
    spec = image_spec()
    ours = decode_image(encode(grey, "PNG"), spec)
    assert np.array_equal(ours, decode_image(encode(high, "PNG"), spec))


def test_a_transparent_16_bit_value_becomes_white_and_its_neighbours_do_not() -> None:
    values = np.full((64, 64), 0x4080, dtype=np.uint16)
    values[:, 32:] = 0x4081
    data = encode(Image.fromarray(values), "PNG", transparency=0x4080)
    pixels = decode_image(data, image_spec())
    assert (pixels[:, :32] == 255).all()
    assert (pixels[:, 32:] == 0x40).all()


def test_what_is_transparent_is_white_for_transformers_and_bare_for_openai() -> None:
    data = encode(Image.new("RGBA", (64, 64), (200, 0, 0, 0)), "PNG")
    assert (decode_image(data, image_spec()) == 255).all()
    # Pillow resizes premultiplied alpha; at its own size the picture keeps what it hid.
    assert (decode_image(data, image_spec(**OPENAI)) == (200, 0, 0)).all()


@pytest.mark.parametrize("size", [(5, 700), (256, 256), (40, 257)], ids=str)
def test_transparency_is_blended_alike_in_every_band_of_rows(size: tuple[int, int]) -> None:
    """Opaque ones are not blended at all."""
    picture = in_mode(photo(*size), "RGBA")
    picture.paste((9, 8, 7, 255), (0, 0, size[0], 260))
    data, spec = encode(picture, "PNG"), image_spec(16)
    ours = decode_image(data, spec, exact=True)
    assert same(ours, references.clip(opened(data), spec), spec)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_only_the_first_of_several_pictures_counts(format: str) -> None:
    first, second = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    data = encode(first, format, save_all=True, append_images=[second])
    pixels = decode_image(data, image_spec()).astype(int)
    assert np.abs(pixels - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 5000), (5000, 3)], ids=str)
def test_what_resizing_would_blow_up_is_computed_only_where_it_is_kept(
    size: tuple[int, int],
) -> None:
    smooth = noise(4, 4).resize(size)
    data, spec = encode(smooth, "PNG"), image_spec()
    whole = decode_image(data, spec).astype(int)
    part = decode_image(data, spec, ImageLimits(max_pixels=100_000)).astype(int)
    assert np.abs(part - whole).max() <= 1


def test_a_part_of_a_sliver_still_gets_its_black_margin() -> None:
    data, spec = encode(Image.new("RGB", (2000, 2), "white"), "PNG"), image_spec(64, resize_to=32)
    pixels = decode_image(data, spec, ImageLimits(max_pixels=20_000))
    assert np.array_equal(pixels, decode_image(data, spec))
    assert (pixels[16:48] == 255).all()
    assert not pixels[:16].any()
    assert not pixels[48:].any()


def test_many_threads_decode_alike() -> None:
    spec = image_spec(224)
    files = [file(kind, 131, 97) for kind in KINDS] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_image(data, spec), files))
    for data, pixels in zip(files, together, strict=True):
        assert np.array_equal(pixels, decode_image(data, spec))
