"""Hostile bytes: everything that cannot be decoded is refused in our words, early and cheaply."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from diptych.errors import BadInput
from diptych.preprocess.images import FORMATS, Format, ImageLimits, check_pixels, decode_image
from tests.preprocess.pictures import (
    KINDS,
    encode,
    exif,
    file,
    image_spec,
    in_mode,
    photo,
    png_bomb,
    png_header,
)

SPEC = image_spec(32)

OUR_WORDS = re.compile(
    r"is empty"
    r"|has [\d,]+ (bytes|pixels); at most [\d,]+ are allowed"
    r"|has over [\d,]+ pixels, the most allowed"
    r"|is [\d,]+ by [\d,]+ pixels; at most [\d,]+ a side"
    r"|is of none of the formats allowed: [A-Z, ]+"
    r"|is a [A-Z]+ image with a truncated or corrupt header"
    r"|is a truncated or corrupt [A-Z]+ image"
    r"|is a JPEG of [\d,]+ scans; at most [\d,]+ are allowed at its size"
)


def worded(error: BadInput) -> str:
    """What `error` says, which must be ours from end to end."""
    [violation] = error.violations
    assert violation.field == "image"
    assert OUR_WORDS.fullmatch(violation.problem), violation.problem
    return violation.problem


def refusal(data: bytes, limits: ImageLimits | None = None) -> str:
    """Why `data` is refused."""
    with pytest.raises(BadInput) as caught:
        decode_image(data, SPEC, limits or ImageLimits())
    return worded(caught.value)


def survives(data: bytes) -> bool:
    """Whether `data` is decoded; any error but a worded BadInput fails the test."""
    try:
        pixels = decode_image(data, SPEC)
    except BadInput as error:
        worded(error)
        return False
    assert pixels.shape == (32, 32, 3)
    return True


def test_an_empty_image_is_refused() -> None:
    assert refusal(b"") == "is empty"


def test_too_many_bytes_are_refused_with_both_numbers() -> None:
    data = file("png", 64, 65)
    problem = refusal(data, ImageLimits(max_bytes=1_000))
    assert problem == f"has {len(data):,} bytes; at most 1,000 are allowed"


@pytest.mark.parametrize("data", [b"x", b"GIF", b"<svg/>", b"%PDF-1.7", b"\0" * 64], ids=str)
def test_what_is_no_image_is_refused_with_the_formats_that_are_taken(data: bytes) -> None:
    problem = "is of none of the formats allowed: JPEG, PNG, WEBP, AVIF, GIF, BMP, TIFF"
    assert refusal(data) == problem


@pytest.mark.parametrize("format", ["ICO", "ICNS", "PPM", "TGA", "JPEG2000", "PCX", "SGI", "EPS"])
def test_pillows_other_decoders_are_never_reached(format: str) -> None:
    assert "none of the formats" in refusal(encode(photo(64, 65), format))


@pytest.mark.parametrize("allowed", FORMATS)
def test_the_allow_list_can_be_shortened(allowed: Format) -> None:
    limits = ImageLimits(formats=(allowed,))
    for format in FORMATS:
        data = encode(photo(64, 65), format)
        if format == allowed:
            decode_image(data, SPEC, limits)
        else:
            assert refusal(data, limits) == f"is of none of the formats allowed: {allowed}"


def test_a_misspelt_format_stops_the_start() -> None:
    formats: Any = ("JPEG", "JPG", "HEIC")
    with pytest.raises(ValueError, match="unknown image formats: HEIC, JPG"):
        ImageLimits(formats=formats)


def test_a_bomb_is_refused_by_its_header() -> None:
    data = png_bomb(13_377, 13_378)
    assert len(data) < 22_000
    memory = psutil.Process().memory_info().rss
    start = time.thread_time()
    assert refusal(data) == "has 178,957,506 pixels; at most 64,000,000 are allowed"
    assert time.thread_time() - start < 0.1
    assert psutil.Process().memory_info().rss - memory < 2**23


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_its_pixels_counted(format: str) -> None:
    data = encode(photo(64, 65), format)
    problem = refusal(data, ImageLimits(max_pixels=4_159))
    assert problem == "has 4,160 pixels; at most 4,159 are allowed"
    decode_image(data, SPEC, ImageLimits(max_pixels=4_160))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "AVIF", "BMP"])
def test_a_raised_cap_is_not_lowered_by_pillows_own(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(photo(64, 65), format)
    for theirs in (2_081, 1_000):  # where Image.open() would warn, and where it would raise
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", theirs)
        assert survives(data)


def test_a_webp_canvas_past_pillows_own_cap_is_refused() -> None:
    data = bytearray(encode(in_mode(photo(64, 65), "RGBA"), "WEBP", exif=exif(1)))
    canvas = data.index(b"VP8X") + 12
    data[canvas : canvas + 6] = b"\xff\xff\0" * 2
    assert refusal(bytes(data)) == "has over 64,000,000 pixels, the most allowed"


@pytest.mark.parametrize("size", [(70_000, 1), (1, 70_000)], ids=str)
def test_a_side_longer_than_any_photo_is_refused(size: tuple[int, int]) -> None:
    problem = refusal(encode(Image.new("L", size), "PNG"))
    assert problem == f"is {size[0]:,} by {size[1]:,} pixels; at most 65,535 a side"


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)], ids=str)
def test_no_pixels_are_refused(size: tuple[int, int]) -> None:
    gif = b"GIF89a" + struct.pack("<HH", *size) + bytes(3) + b",\0\0\0\0"
    gif += struct.pack("<HH", *size) + b"\0\2\2D\1\0;"
    refusal(gif)
    refusal(png_header(*size))


@pytest.mark.parametrize("kind", [*KINDS, "jpeg ycck"])
def test_a_truncated_file_is_refused_or_whole(kind: str) -> None:
    data = file(kind, 64, 65)
    kept = [survives(data[:length]) for length in range(1, len(data), max(1, len(data) // 60))]
    assert not all(kept)
    assert not any(kept[: len(kept) // 2])


def test_nobody_allowed_truncated_images() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    half = file("jpeg", 131, 97)
    assert refusal(half[: len(half) // 2]) == "is a truncated or corrupt JPEG image"


def redrawn(times: int) -> bytes:
    """A progressive JPEG whose last scan comes `times` more times."""
    data = encode(Image.new("RGB", (1000, 1000)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * times + b"\xff\xd9"


def test_a_jpeg_that_is_drawn_over_and_over_is_refused() -> None:
    assert survives(redrawn(50))
    start = time.thread_time()
    problem = refusal(redrawn(100_000))
    assert problem == "is a JPEG of 100,010 scans; at most 1,280 are allowed at its size"
    assert time.thread_time() - start < 1.0


def test_bytes_behind_a_jpeg_do_not_count_as_scans() -> None:
    film = b"\xff\xda" * 5_000
    assert survives(redrawn(0) + film)
    thumbnail = b"\xff\xe5\x27\x12" + b"\xff\xda" * 5_000  # in a segment of its own
    data = redrawn(0)
    assert survives(data[:2] + thumbnail + data[2:])


def test_compressed_text_in_a_png_is_not_unpacked_without_bound() -> None:
    info = PngInfo()
    info.add_text("comment", "a" * 50_000_000, zip=True)
    assert refusal(encode(photo(64, 65), "PNG", pnginfo=info)).endswith("header")


SEEDS = [
    *(file(kind, 24, 17) for kind in [*KINDS, "jpeg ycck"]),
    *(encode(photo(24, 17), format, exif=exif(6)) for format in ("JPEG", "PNG", "WEBP", "AVIF")),
    *(
        encode(photo(24, 17), format, save_all=True, append_images=[photo(24, 17, 1)])
        for format in ("GIF", "PNG", "WEBP", "TIFF", "MPO")
    ),
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, added or lost, more often near the start, where the headers are."""
    broken = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(min(len(broken), rng.choice([64, 256, 2**20])))
        match rng.randrange(4):
            case 0:
                broken[at] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
            case 1:
                broken[at : at + 4] = rng.choice([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"])
            case 2:
                broken[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                del broken[at : at + rng.randrange(1, 9)]
        if not broken:
            return b""
    return bytes(broken)


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_no_mutation_of_a_good_file_raises_anything_else(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = {survives(mutated(SEEDS[seed], rng)) for _ in range(150)}
    assert False in outcomes


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([b"", *(seed[:length] for seed in SEEDS for length in (4, 16, 40))]),
    st.binary(max_size=200),
)
def test_no_bytes_at_all_raise_anything_else(start: bytes, rest: bytes) -> None:
    survives(start + rest)


def test_odd_files_leave_no_word_behind() -> None:
    """Neither on stderr nor in Python's memory of warnings it has shown."""
    program = """
import sys, warnings
from PIL import TiffImagePlugin
from diptych.preprocess.images import decode_image
from tests.preprocess.pictures import encode, exif, image_spec, photo
warnings.simplefilter("default")
for length in range(20, 60):
    block = exif(6)[:length] + b"\\xff" * 40
    decode_image(encode(photo(24, 17), "JPEG", exif=block), image_spec())
assert "Corrupt" not in str(vars(TiffImagePlugin).get("__warningregistry__", ""))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=root)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ready_pixels_are_taken_as_they_are() -> None:
    ready = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert check_pixels(ready, SPEC) is ready
    turned = ready.transpose(1, 0, 2)
    assert np.array_equal(check_pixels(turned, SPEC), turned)
    assert check_pixels(turned, SPEC).flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "is_"),
    [
        (np.zeros((3, 32, 32), np.uint8), "uint8 [3, 32, 32]"),
        (np.zeros((32, 31, 3), np.uint8), "uint8 [32, 31, 3]"),
        (np.zeros((1, 32, 32, 3), np.uint8), "uint8 [1, 32, 32, 3]"),
        (np.zeros((32, 32, 3), np.float32), "float32 [32, 32, 3]"),
    ],
    ids=str,
)
def test_other_pixels_are_refused_with_what_is_taken(array: npt.NDArray[Any], is_: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_pixels(array, SPEC)
    expected = f"pixels: is {is_}; this model takes uint8 [32, 32, 3]"
    assert str(caught.value) == expected
