"""The example for those who use Triton without the gateway does what it says."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np

from diptych.contract import Tower
from diptych.engines.base import EMBEDS, PIXELS, TOKENS
from diptych.engines.embedded import EmbeddedEngine
from diptych.engines.triton_server import TritonServer
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer, pad_tokens
from diptych.repository import ModelFiles
from diptych.scoring import unit
from tests.triton.conftest import ROOT

TEXTS = ["a red circle", "a blue square", "a green triangle"]
PICTURES = sorted((ROOT / "tests" / "pictures").glob("*.*"))


async def test_its_cosines_are_the_embedded_engines(
    triton: TritonServer, files: ModelFiles, embedded: EmbeddedEngine
) -> None:
    place = files.tokenizer.parents[2] / files.spec.name
    script = ROOT / "deploy" / "examples" / "triton_only.py"
    command = [sys.executable, script, triton.address, place, *TEXTS, "--", *PICTURES]
    done = await asyncio.to_thread(
        subprocess.run, [*map(str, command)], capture_output=True, text=True, check=True
    )
    printed = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in printed] == [str(picture) for picture in PICTURES]
    there = np.array([line[1:] for line in printed], dtype=np.float32)

    spec, tokenizer = files.spec, TextTokenizer(files.tokenizer, files.spec.text)
    pixels = np.stack([decode_image(p.read_bytes(), spec.image) for p in PICTURES])
    tokens = pad_tokens([tokenizer.tokenize(text).tokens for text in TEXTS], spec.text)[0]
    image, text = EMBEDS[Tower.IMAGE], EMBEDS[Tower.TEXT]
    images = await embedded.run(Tower.IMAGE, {PIXELS: pixels}, [image])
    texts = await embedded.run(Tower.TEXT, {TOKENS: tokens}, [text])
    np.testing.assert_allclose(there, unit(images[image]) @ unit(texts[text]).T, atol=1e-4)
