"""Our way from bytes and strings to vectors, beside the source's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch

from diptych.contract import Tower
from diptych.engines.base import PACKED
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer, pad_tokens
from diptych_export.errors import BadCheckpoint
from diptych_export.graph import ImageTower, TextTower
from diptych_export.parity import lowest_cosine
from diptych_export.sources.base import Array, Source
from diptych_export.sources.opening import open_source
from tests.export.sources.vocabularies import TEXTS
from tests.preprocess.pictures import file

Inputs: TypeAlias = Mapping[str, npt.NDArray[np.generic]]
Run: TypeAlias = Callable[[Tower, Inputs], dict[str, Array]]

LEAST = 0.99999

PICTURES = [
    file("jpeg", 131, 97),
    file("jpeg cmyk", 60, 90),
    file("png", 48, 48),
    file("png grey", 200, 41),
    file("png palette, one colour transparent", 77, 101),
    file("png rgba", 53, 300),
    file("webp", 64, 49),
    file("gif", 33, 52),
]


def in_torch(source: Source) -> Run:
    """The towers as modules."""
    towers: dict[Tower, ImageTower | TextTower] = {
        Tower.IMAGE: source.image_tower,
        Tower.TEXT: source.text_tower,
    }

    def run(tower: Tower, inputs: Inputs) -> dict[str, Array]:
        module = towers[tower]
        with torch.inference_mode():
            answers = module(*(torch.tensor(values) for values in inputs.values()))
        arrays = (answer.numpy() for answer in answers)
        return dict(zip(module.outputs, arrays, strict=True))

    return run


def check(source: Source, run: Run, texts: Sequence[str] = TEXTS) -> None:
    """Every output of every picture and text is the source's, in a batch and alone."""
    pixels = np.stack([decode_image(p, source.image, exif=False, exact=True) for p in PICTURES])
    right = [source.reference.image(picture) for picture in PICTURES]
    _check_rows(run(Tower.IMAGE, {"pixel_values": pixels}), right)
    _check_rows(run(Tower.IMAGE, {"pixel_values": pixels[3:4]}), right[3:4])
    _check_spread([answer["image_embeds"] for answer in right])

    right = [source.reference.text(text) for text in texts]
    _check_rows(run(Tower.TEXT, tokens(source, texts)), right)
    _check_rows(run(Tower.TEXT, tokens(source, texts[2:3])), right[2:3])
    _check_spread([answer["text_embeds"] for answer in right])


def tokens(source: Source, texts: Sequence[str]) -> Inputs:
    """What the serving side makes of texts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(source.tokenizer_json, encoding="utf-8")
        tokenizer = TextTokenizer(path, source.text)
    ids, mask = pad_tokens(
        [tokenizer.tokenize(text, truncate=True).tokens for text in texts], source.text
    )
    inputs = {"input_ids": ids}
    return inputs | {"attention_mask": mask} if source.text.attention_mask else inputs


def refusal(where: Path, blamed: Path | None = None) -> str:
    """The one line with which a checkpoint is refused; it names `where`, or what is to blame."""
    with pytest.raises(BadCheckpoint) as caught:
        open_source(str(where))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(blamed or where))
    return message


def _check_rows(ours: Mapping[str, Array], right: Sequence[Mapping[str, Array]]) -> None:
    for output, found in ours.items():
        name, rows = ("text_embeds", found[:, 0]) if output == PACKED else (output, found)
        for row, answer in zip(rows, right, strict=True):
            present = row[: len(answer[name])]  # padding left out
            assert lowest_cosine(present, answer[name]) >= LEAST, name
            np.testing.assert_allclose(present, answer[name], rtol=1e-3, atol=1e-4, err_msg=name)


def _check_spread(vectors: Sequence[Array]) -> None:
    """Agreement says nothing where all inputs have one vector."""
    stacked = np.stack(vectors)
    unit = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
    assert (unit @ unit.T).min() < 0.98
