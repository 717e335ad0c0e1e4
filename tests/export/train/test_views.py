"""What training sees of a picture is a part of what serving would make of it."""

from __future__ import annotations

import io
from random import Random

import numpy as np
import pytest
from PIL import Image

from diptych.contract import ImageSpec
from diptych.errors import BadInput
from diptych.preprocess.images import decode_image
from diptych_export.data.views import view
from tests.drawing import PICTURES, encoded, red_circle
from tests.export.train.files import picture

SHORTEST = ImageSpec(
    size=32,
    resize="shortest",
    resize_to=32,
    interpolation="bicubic",
    rgb="before_resize",
    rounding="huggingface",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
SQUASH = SHORTEST.model_copy(update={"resize": "squash"})
NEARLY = 1 - 1e-12  # of the area: the whole picture, but by the code of random views


def modes() -> dict[str, bytes]:
    circle = red_circle().resize((48, 48))
    upright = Image.Exif()
    upright[0x0112] = 6
    see_through = circle.copy()
    see_through.putalpha(Image.linear_gradient("L").resize((48, 48)))
    grey = Image.fromarray((np.arange(48 * 48).reshape(48, 48) * 28).astype(np.uint16))
    return {
        "rgb": encoded(circle),
        "grey": encoded(circle.convert("L")),
        "palette": encoded(circle.convert("P")),
        "transparent": encoded(see_through),
        "16-bit": encoded(grey),
        "turned": encoded(circle, "JPEG", exif=upright),
        "cmyk": encoded(circle.convert("CMYK"), "JPEG"),
    }


@pytest.mark.parametrize("name", modes())
@pytest.mark.parametrize("spec", [SHORTEST, SQUASH], ids=lambda spec: spec.resize)
def test_a_view_of_the_whole_picture_is_what_serving_sees(name: str, spec: ImageSpec) -> None:
    data = modes()[name]
    assert np.array_equal(view(data, spec, NEARLY, Random(0)), decode_image(data, spec))


def test_without_cropping_serving_itself_decodes() -> None:
    data = (PICTURES / "red_circle.png").read_bytes()
    assert np.array_equal(view(data, SHORTEST, 1.0, Random(0)), decode_image(data, SHORTEST))


def test_the_same_randomness_shows_the_same_part() -> None:
    data = picture(1, (60, 40))
    first, again, other = (view(data, SHORTEST, 0.5, Random(n)) for n in (1, 1, 2))
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("spec", "ratio"), [(SHORTEST, 1.0), (SQUASH, 3.0)])
def test_views_keep_the_shape_that_serving_sees(spec: ImageSpec, ratio: float) -> None:
    """On a picture whose red and green are its own coordinates, a view tells where it looked."""
    width, height = 240, 80
    rows, columns = np.indices((height, width))
    board = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)
    data = encoded(Image.fromarray(board))
    for seed in range(50):
        seen = view(data, spec, 0.5, Random(seed)).astype(float)
        across, down = np.ptp(seen[16, :, 0]), np.ptp(seen[:, 16, 1])
        assert across / down == pytest.approx(ratio, rel=0.1)
        assert 0.7 * 80 * 0.9 < down <= 80


def test_large_jpegs_are_decoded_small() -> None:
    data = encoded(red_circle().resize((2000, 2000)), "JPEG")
    near = view(data, SHORTEST, NEARLY, Random(0)).astype(int)
    assert np.abs(near - decode_image(data, SHORTEST)).mean() < 2


@pytest.mark.parametrize("least", [0.9, 1.0])
def test_what_is_no_picture_is_refused(least: float) -> None:
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    for data in (b"", b"nothing", picture(1)[:300], buffer.getvalue()):
        with pytest.raises(BadInput):
            view(data, SHORTEST, least, Random(0))
