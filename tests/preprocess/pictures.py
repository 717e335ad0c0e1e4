"""Pictures and files of every kind the decoder meets, made by code."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from diptych.contract import ImageSpec

Array = npt.NDArray[np.uint8]

ORIENTATION = 0x0112


def image_spec(size: int = 64, **changes: Any) -> ImageSpec:
    """Preprocessing as CLIP's in transformers, but for `changes`."""
    base = {
        "size": size,
        "resize": "shortest",
        "resize_to": size,
        "interpolation": "bicubic",
        "rgb": "before_resize",
        "rounding": "huggingface",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    return ImageSpec.model_validate(base | changes)


@cache
def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Photo-like: detail falls off with frequency as in nature, plus a few hard edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    bands = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
        band = np.fft.irfft2(spectrum, s=(height, width))
        bands.append(band / max(float(band.std()), 1e-9))
    canvas = 128 + 45 * bands[0][..., None] + 18 * np.stack(bands, axis=-1)
    for _ in range(8):
        x, y = rng.integers(0, width), rng.integers(0, height)
        canvas[y : y + height // 5 + 1, x : x + width // 5 + 1] += rng.uniform(-80, 80, 3)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The same picture in one of Pillow's modes; alpha, where there is one, is noise."""
    if mode == "I;16":
        high = np.asarray(picture.convert("L")).astype(np.uint16)
        return Image.fromarray(high * 256 + (255 - high))
    if mode == "P":
        return picture.quantize(32)
    if mode in ("RGBA", "LA"):
        noise = np.random.default_rng(1).integers(0, 256, picture.size[::-1], dtype=np.uint8)
        picture = picture.convert(mode[:-1])
        picture.putalpha(Image.fromarray(noise))
        return picture
    return picture.convert(mode)


def encode(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """As a user of the reference would open a file."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block.tobytes()


KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name: mode, format, options of the encoder
    "jpeg": ("RGB", "JPEG", {"quality": 85}),
    "jpeg 4:4:4": ("RGB", "JPEG", {"subsampling": 0}),
    "jpeg progressive": ("RGB", "JPEG", {"progressive": True}),
    "jpeg grey": ("L", "JPEG", {}),
    "jpeg cmyk": ("CMYK", "JPEG", {}),
    "png": ("RGB", "PNG", {}),
    "png grey": ("L", "PNG", {}),
    "png 1-bit": ("1", "PNG", {}),
    "png palette": ("P", "PNG", {}),
    "png palette, one colour transparent": ("P", "PNG", {"transparency": 3}),
    "png palette with alpha": ("P", "PNG", {"transparency": bytes(range(0, 256, 8))}),
    "png colour key": ("RGB", "PNG", {"transparency": (128, 128, 128)}),
    "png grey key": ("L", "PNG", {"transparency": 128}),
    "png rgba": ("RGBA", "PNG", {}),
    "png grey with alpha": ("LA", "PNG", {}),
    "webp": ("RGB", "WEBP", {"quality": 80}),
    "webp lossless": ("RGB", "WEBP", {"lossless": True}),
    "webp rgba": ("RGBA", "WEBP", {"lossless": True}),
    "avif": ("RGB", "AVIF", {"speed": 10}),
    "avif rgba": ("RGBA", "AVIF", {"speed": 10}),
    "gif": ("P", "GIF", {}),
    "gif transparent": ("P", "GIF", {"transparency": 3}),
    "gif grey": ("L", "GIF", {}),
    "bmp": ("RGB", "BMP", {}),
    "bmp 1-bit": ("1", "BMP", {}),
    "bmp palette": ("P", "BMP", {}),
    "tiff": ("RGB", "TIFF", {}),
    "tiff lzw": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("RGB", "TIFF", {"compression": "jpeg"}),
    "tiff fax": ("1", "TIFF", {"compression": "group4"}),
    "tiff palette": ("P", "TIFF", {}),
    "tiff rgba": ("RGBA", "TIFF", {}),
    "tiff cmyk": ("CMYK", "TIFF", {}),
    "tiff lab": ("LAB", "TIFF", {}),
    "tiff float": ("F", "TIFF", {}),
    "tiff 32-bit": ("I", "TIFF", {}),
}


@cache
def file(kind: str, width: int, height: int) -> bytes:
    """A photo encoded as one of `KINDS`, or as a YCCK JPEG, which Pillow reads but never writes."""
    if kind == "jpeg ycck":
        return _declared_ycck(file("jpeg cmyk", width, height))
    mode, format, options = KINDS[kind]
    return encode(in_mode(photo(width, height), mode), format, **options)


def _declared_ycck(cmyk: bytes) -> bytes:
    """Other colours, but a true YCCK file: the last byte of Adobe's marker names the transform."""
    at = cmyk.index(b"Adobe") + 11
    assert cmyk[at] == 0
    return cmyk[:at] + b"\2" + cmyk[at + 1 :]


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    """A 1-bit PNG of any size, with `body` for its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@cache
def png_bomb(width: int, height: int) -> bytes:
    """A valid PNG, all black, in about a thousandth of a bit for each pixel."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png_header(width, height, body)
