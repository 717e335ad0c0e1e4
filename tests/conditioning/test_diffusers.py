"""Real pipelines of diffusers make the same picture from our tensors as from their own encoders."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from transformers import CLIPTextModel

from diptych.client import AsyncClient
from diptych.wire import Options
from diptych.wire_conditioning import Conditioning, ConditionReply, Prompt
from tests.conditioning import pipelines
from tests.conditioning.conftest import IMAGE, LONG, TEXT, TEXT_2
from tests.conditioning.pipelines import CONTEXT, furthest, picture
from tests.drawing import encoded, red_circle

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),  # the first waits for three builds
]

STEP = 1 / 255  # the furthest that any channel of any pixel may be off
PROMPT, NEGATIVE = "A photo of THE red circle, above a blue square!", "two dogs; at night?"
OTHER = "the quick brown fox"
BOTH = (TEXT, TEXT_2)


@pytest.fixture(autouse=True)
def flat_text_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clip-skip diffusers 0.42 looks for `text_model`, which transformers 5 flattened."""
    monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda own: own), raising=False)


@pytest.fixture(scope="module")
def sd15() -> Any:
    return pipelines.stable_diffusion()


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return pipelines.stable_diffusion_xl()


@pytest.fixture(scope="module")
def unclip() -> Any:
    return pipelines.unclip()


def fed(pipeline: Any, reply: ConditionReply, **settings: Any) -> pipelines.Image:
    """The picture of a pipeline that has no text encoder to fall back on."""
    own = {name: module for name, module in pipeline.components.items() if "text_encoder" in name}
    pipeline.register_modules(**dict.fromkeys(own))
    try:
        return picture(pipeline, **reply.arguments(torch=True), **settings)
    finally:
        pipeline.register_modules(**own)


@pytest.mark.parametrize("skip", [0, 1])
async def test_stable_diffusion_with_a_negative_prompt_and_a_clip_skip(
    client: AsyncClient, sd15: Any, skip: int
) -> None:
    reply = await client.condition("sd15", PROMPT, NEGATIVE, how=Conditioning(clip_skip=skip))
    right = picture(sd15, PROMPT, negative_prompt=NEGATIVE, clip_skip=skip or None)
    assert furthest(fed(sd15, reply), right) <= STEP
    assert furthest(picture(sd15, OTHER, negative_prompt=NEGATIVE), right) > 20 * STEP


async def test_without_a_negative_prompt_the_empty_one_is_meant(
    client: AsyncClient, sd15: Any
) -> None:
    reply = await client.condition("sd15", PROMPT)
    assert furthest(fed(sd15, reply), picture(sd15, PROMPT)) <= STEP


async def test_a_prompt_of_200_tokens_in_chunks_and_cut(client: AsyncClient, sd15: Any) -> None:
    chunked = await client.condition("sd15", LONG, NEGATIVE)
    assert chunked.chunks == 3
    right = picture(
        sd15,
        prompt_embeds=in_chunks(sd15, LONG, 3),
        negative_prompt_embeds=in_chunks(sd15, NEGATIVE, 3),
    )
    assert furthest(fed(sd15, chunked), right) <= STEP
    how = Conditioning(long_prompt="cut")
    cut = await client.condition("sd15", LONG, NEGATIVE, how=how)
    truncated = picture(sd15, LONG, negative_prompt=NEGATIVE)
    assert furthest(fed(sd15, cut), truncated) <= STEP
    assert furthest(truncated, right) > 20 * STEP


def in_chunks(pipeline: Any, text: str, count: int) -> torch.Tensor:
    """[1, 77 * count, H]: 75 tokens at a time through the pipeline's own encoder."""
    ids = pipeline.tokenizer(text).input_ids[1:-1]
    start, end = pipeline.tokenizer.bos_token_id, pipeline.tokenizer.eos_token_id
    rows = [ids[75 * row : 75 * (row + 1)] for row in range(count)]
    framed = [[start, *row, end, *[end] * (CONTEXT - 2 - len(row))] for row in rows]
    with torch.inference_mode():
        states = pipeline.text_encoder(torch.tensor(framed)).last_hidden_state
    return torch.as_tensor(states).reshape(1, CONTEXT * count, -1)


@pytest.mark.parametrize(
    ("negative", "skip"), [(NEGATIVE, None), (None, None), (NEGATIVE, 1)], ids=repr
)
async def test_stable_diffusion_xl_with_its_two_encoders_and_two_paddings(
    client: AsyncClient, sdxl: Any, negative: str | None, skip: int | None
) -> None:
    how = Conditioning(models=BOTH, clip_skip=skip or 0)
    reply = await client.condition("sdxl", PROMPT, negative, how=how)
    right = picture(sdxl, PROMPT, negative_prompt=negative, clip_skip=skip)
    assert furthest(fed(sdxl, reply), right) <= STEP
    assert furthest(picture(sdxl, OTHER, negative_prompt=negative), right) > 20 * STEP


async def test_the_second_encoder_of_stable_diffusion_xl_may_be_told_something_else(
    client: AsyncClient, sdxl: Any
) -> None:
    prompt = Prompt(PROMPT, NEGATIVE, text_2=OTHER, negative_2="blue")
    reply = await client.condition("sdxl", [prompt], how=Conditioning(models=BOTH))
    right = picture(
        sdxl, PROMPT, prompt_2=OTHER, negative_prompt=NEGATIVE, negative_prompt_2="blue"
    )
    assert furthest(fed(sdxl, reply), right) <= STEP


async def test_a_long_prompt_for_stable_diffusion_xl_cut_as_it_does_itself(
    client: AsyncClient, sdxl: Any
) -> None:
    how = Conditioning(models=BOTH, long_prompt="cut")
    reply = await client.condition("sdxl", LONG, NEGATIVE, how=how)
    assert furthest(fed(sdxl, reply), picture(sdxl, LONG, negative_prompt=NEGATIVE)) <= STEP
    whole = await client.condition("sdxl", LONG, NEGATIVE, how=Conditioning(models=BOTH))
    assert whole.tensors["prompt_embeds"].shape == (1, 3 * CONTEXT, 64)
    np.testing.assert_allclose(  # the first chunk is what is left of the cut prompt
        whole.tensors["prompt_embeds"][:, :CONTEXT], reply.tensors["prompt_embeds"], atol=1e-4
    )


@pytest.mark.parametrize("prompt", [PROMPT.replace("!", "?"), LONG], ids=["short", "long"])
async def test_unclip_with_its_mask(client: AsyncClient, unclip: Any, prompt: str) -> None:
    reply = await client.condition("unclip", prompt, options=Options(model=TEXT_2))
    tensors = reply.arguments(torch=True)
    given = tensors["text_embeds"], tensors["text_encoder_hidden_states"]
    with_ours = picture(unclip, text_model_output=given, text_attention_mask=tensors["text_mask"])
    right = picture(unclip, prompt)
    assert furthest(with_ours, right) <= STEP
    assert furthest(picture(unclip, OTHER), right) > 20 * STEP
    # For guidance it asks its own encoder about the empty text: the same as our negative.
    empty = unclip._encode_prompt("", "cpu", 1, False)
    names = ("negative_text_embeds", "negative_text_encoder_hidden_states", "negative_text_mask")
    for name, own in zip(names, empty, strict=True):
        np.testing.assert_allclose(reply.tensors[name], own.detach(), atol=1e-4)
    assert reply.tensors["text_mask"].dtype == np.bool_


async def test_an_adapter_fed_by_our_image_embeds(client: AsyncClient) -> None:
    pipeline = pipelines.with_adapter(pipelines.stable_diffusion())
    file = encoded(red_circle())
    image = Pillow.open(io.BytesIO(file))
    how, options = Conditioning(), Options(model=IMAGE)
    reply = await client.condition("ip_adapter", images=[file], how=how, options=options)
    right = picture(pipeline, PROMPT, ip_adapter_image=image)
    assert furthest(picture(pipeline, PROMPT, **reply.arguments(torch=True)), right) <= STEP
    grey = Pillow.new("RGB", (64, 64), "grey")
    assert furthest(picture(pipeline, PROMPT, ip_adapter_image=grey), right) > 20 * STEP


async def test_the_zero_image_and_the_states_of_patches_are_the_pipelines_own(
    client: AsyncClient, sd15: Any
) -> None:
    file = encoded(red_circle())
    image = Pillow.open(io.BytesIO(file))
    states, zero_states = sd15.encode_image(image, "cpu", 1, output_hidden_states=True)
    with torch.inference_mode():
        zero = sd15.image_encoder(torch.zeros(1, 3, 32, 32)).image_embeds
    options = Options(model=IMAGE)
    plus = await client.condition("ip_adapter_plus", images=[file], options=options)
    right = torch.stack([zero_states, states]).detach()
    np.testing.assert_allclose(plus.tensors["ip_adapter_image_embeds"], right, atol=1e-4)
    kandinsky = await client.condition("kandinsky", images=[file], options=options)
    np.testing.assert_allclose(kandinsky.tensors["negative_image_embeds"], zero, atol=1e-5)
    positive, _ = sd15.encode_image(image, "cpu", 1)
    embeds = positive.detach()
    np.testing.assert_allclose(kandinsky.tensors["image_embeds"], embeds, atol=1e-4)
