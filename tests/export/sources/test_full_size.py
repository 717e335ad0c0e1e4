"""CLIP at the size of ViT-B/32, 151 million random weights: built, served, and as at home."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from diptych.wire import Options
from diptych_export.parity import MIN_COSINE, lowest_cosine
from diptych_export.sources.opening import open_source
from tests.export.sources.building import built
from tests.export.sources.comparing import PICTURES
from tests.preprocess.references import openai_vocabulary
from tests.serving import served

TEXTS = ["a photo of a cat", "two dogs playing in the snow", "ein großer Hund"]


def tokenizer(size: int = 49_408) -> CLIPTokenizer:
    """As many tokens as OpenAI's: pairs of letters stand for its words."""
    letters = openai_vocabulary([])
    starts = [letter for letter in letters if not letter.endswith("</w>")][:-2]
    pairs = [(first, second) for first in starts for second in starts]
    merges: Any = pairs[: size - len(letters)]
    vocabulary = {token: i for i, token in enumerate(openai_vocabulary(merges))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "vit-b-32"
    own = tokenizer()
    ends = {"bos_token_id": own.bos_token_id, "eos_token_id": own.eos_token_id}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config={"vocab_size": len(own), **ends})).save_pretrained(folder)
    own.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    yield folder
    shutil.rmtree(tmp_path)  # pytest would keep over a gigabyte of three runs


@pytest.mark.timeout(900)  # about a minute on two cores that have nothing else to do
async def test_vit_b_32(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "repository"
    found = built(capsys, "--from", checkpoint, "--name", "clip", "--repository", root)
    assert sum(found["bytes"].values()) > 600_000_000
    reference = open_source(str(checkpoint)).reference
    right = [reference.image(picture)["image_embeds"] for picture in PICTURES]
    right += [reference.text(text)["text_embeds"] for text in TEXTS]
    async with served(repository=root, precision="fp32") as client:
        reply = await client.embed([*PICTURES, *TEXTS], Options(exif=False))
    vectors = np.asarray(reply.vectors)
    assert vectors.shape == (len(right), 512)
    assert min(map(lowest_cosine, vectors, right)) >= MIN_COSINE["fp32"]
