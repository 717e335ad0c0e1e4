"""Condition through a real socket: what a request may ask for, and what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diptych.client import AsyncClient
from diptych.errors import BadInput, BadRepository, DeadlinePassed, NotFound, SpaceMismatch
from diptych.gateway.server import gateway
from diptych.prompts import weigh
from diptych.wire import Options
from diptych.wire_conditioning import Conditioning, ConditionReply, Prompt
from tests.conditioning import pipelines
from tests.conditioning.conftest import IMAGE, LONG, TEXT, TEXT_2
from tests.drawing import encoded, red_circle
from tests.serving import SHAPES, faulty, local, served

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

CIRCLE = encoded(red_circle())
BOTH = Conditioning(models=(TEXT, TEXT_2))
TWICE = Conditioning(models=(TEXT_2, TEXT_2))


def embeds(reply: ConditionReply) -> np.ndarray[Any, Any]:
    return reply.tensors["prompt_embeds"]


async def test_a_batch_is_as_each_prompt_alone_and_padded_to_one_length(
    client: AsyncClient,
) -> None:
    prompts = ["a red dog", LONG, ""]
    together = await client.condition("sd15", prompts, ["the photo", "a", ""])
    assert embeds(together).shape == (3, 3 * 77, 32)
    assert together.tensors["negative_prompt_embeds"].shape == (3, 3 * 77, 32)
    alone = await client.condition("sd15", prompts[0], "the photo")
    np.testing.assert_allclose(embeds(together)[0, :77], embeds(alone)[0], atol=1e-5)
    [first, long, empty] = [one.prompt[0] for one in together.readings]
    assert (first.tokens, first.chunks) == (3, 1)
    assert (long.tokens, long.chunks, long.tokens_dropped) == (200, 3, 0)
    assert (empty.tokens, empty.chunks) == (0, 1)
    assert together.chunks == 3


async def test_what_is_over_the_context_is_reported_or_refused(client: AsyncClient) -> None:
    cut = await client.condition("sd15", LONG, how=Conditioning(long_prompt="cut"))
    [reading] = cut.readings[0].prompt
    assert (reading.tokens, reading.tokens_dropped) == (75, 125)
    assert LONG.endswith(reading.dropped)
    assert len(reading.dropped.split()) == 125
    refuse = Conditioning(long_prompt="refuse")
    with pytest.raises(BadInput, match=r"prompts\[1\].text: is 202 tokens long"):
        await client.condition("sd15", ["a", LONG], how=refuse)
    with pytest.raises(BadInput, match=r"prompts\[0\].negative: is 202 tokens long"):
        await client.condition("sd15", "a", LONG, how=refuse)
    longest = await client.condition("sd15", f"{LONG} " * 4)
    assert longest.chunks == 8
    assert longest.readings[0].prompt[0].tokens_dropped == 800 - 8 * 75
    with pytest.raises(BadInput, match="long_prompt: profile 'unclip' takes prompts of one chunk"):
        await client.condition(
            "unclip", LONG, how=Conditioning(long_prompt="chunks"), options=Options(model=TEXT_2)
        )
    usual = await client.condition("unclip", LONG, options=Options(model=TEXT_2))
    assert usual.readings[0].prompt[0].tokens_dropped == 125


async def test_a_weight_is_that_of_its_words_and_the_mean_stays(client: AsyncClient) -> None:
    plain = embeds(await client.condition("sd15", "a red dog"))[0]
    heavy = embeds(await client.condition("sd15", "a (red:1.5) dog"))[0]
    weights = np.ones(77, np.float32)
    weights[2] = 1.5  # behind the start and "a"
    right = plain.copy()
    weigh(right, weights)
    np.testing.assert_allclose(heavy, right, rtol=1e-5)
    np.testing.assert_allclose(heavy[2], plain[2] * 1.5 * heavy[1, 0] / plain[1, 0], rtol=1e-4)
    literal = await client.condition("sd15", "a (red:1.5) dog", how=Conditioning(literal=True))
    escaped = await client.condition("sd15", r"a \(red:1.5\) dog")
    np.testing.assert_array_equal(embeds(literal), embeds(escaped))
    assert literal.readings[0].prompt[0].tokens > 3
    with pytest.raises(BadInput, match=r"prompts\[0\].text: weighs words 200 times"):
        await client.condition("sd15", "(red:200)")


async def test_negatives_are_as_the_profile_says(client: AsyncClient) -> None:
    missing = await client.condition("sdxl", ["a", "b"], how=BOTH)
    assert not missing.tensors["negative_prompt_embeds"].any()
    assert not missing.tensors["negative_pooled_prompt_embeds"].any()
    assert missing.readings[0].negative == ()
    mixed = await client.condition(
        "sdxl", [Prompt("a", "b"), Prompt("b")], how=Conditioning(models=(TEXT, TEXT_2))
    )
    assert mixed.tensors["negative_prompt_embeds"][0].any()
    assert not mixed.tensors["negative_prompt_embeds"][1].any()
    assert list((await client.condition("flux", "a")).tensors) == ["pooled_prompt_embeds"]
    flux = await client.condition("flux", ["a", "b"], "c")
    assert flux.tensors["negative_pooled_prompt_embeds"].shape == (2, 32)
    unguided = Conditioning(unguided=True)
    assert list((await client.condition("sd15", "a", how=unguided)).tensors) == ["prompt_embeds"]
    with pytest.raises(BadInput, match=r"prompts\[0\].negative: must be left out"):
        await client.condition("sd15", "a", "b", how=unguided)


async def test_stable_diffusion_3_gets_its_half_padded(client: AsyncClient) -> None:
    half = await client.condition("sd3", "a red dog", how=TWICE)
    assert embeds(half).shape == (1, 77, 4096)
    assert embeds(half)[..., :64].any()
    assert not embeds(half)[..., 64:].any()
    assert half.tensors["pooled_prompt_embeds"].shape == (1, 64)
    alone = await client.condition("sd3-without-t5", "a red dog", how=TWICE)
    np.testing.assert_array_equal(embeds(alone)[:, :77], embeds(half))
    assert embeds(alone).shape == (1, 77 + 256, 4096)
    assert not embeds(alone)[:, 77:].any()


async def test_the_mask_is_heeded_where_the_generator_heeds_it(client: AsyncClient) -> None:
    """Stable Cascade's encoder is given a mask: its states at the padding differ without."""
    encoder = pipelines.text_encoder_2()
    inputs = pipelines.tokenizer("!")(
        "a red dog", padding="max_length", max_length=77, return_tensors="pt"
    )
    with torch.inference_mode():
        right = encoder(**inputs, output_hidden_states=True)
        blind = encoder(inputs.input_ids, output_hidden_states=True)
    reply = await client.condition("cascade", "a red dog", options=Options(model=TEXT_2))
    np.testing.assert_allclose(embeds(reply), right.hidden_states[-1], atol=1e-3)
    assert not np.allclose(embeds(reply), blind.hidden_states[-1], atol=1e-2)
    assert reply.tensors["prompt_embeds_pooled"].shape == (1, 1, 32)
    np.testing.assert_allclose(
        reply.tensors["prompt_embeds_pooled"][:, 0], right.text_embeds, atol=1e-3
    )


async def test_images_are_given_with_their_negatives(client: AsyncClient) -> None:
    options = Options(model=IMAGE)
    pair = await client.condition("ip_adapter", images=[CIRCLE, CIRCLE], options=options)
    [embedded] = pair.arguments()["ip_adapter_image_embeds"]
    assert embedded.shape == (2, 2, 32)
    assert not embedded[0].any()
    unguided = await client.condition(
        "ip_adapter_plus", images=[CIRCLE], how=Conditioning(unguided=True), options=options
    )
    assert unguided.tensors["ip_adapter_image_embeds"].shape == (1, 1, 17, 32)
    pixels = np.zeros((32, 32, 3), np.uint8)
    cascade = await client.condition(
        "cascade", images=[CIRCLE, pixels], how=Conditioning(models=("", IMAGE))
    )
    assert cascade.tensors["image_embeds"].shape == (1, 2, 32)
    with pytest.raises(BadInput, match=r"images\[1\].image: is of none of the formats"):
        await client.condition("ip_adapter", images=[CIRCLE, b"broken"], options=options)
    with pytest.raises(BadInput, match=r"images\[0\].pixels: is uint8 \[3, 3, 3\]"):
        await client.condition(
            "ip_adapter", images=[np.zeros((3, 3, 3), np.uint8)], options=options
        )
    with pytest.raises(BadInput, match=r"images\[0\]: image or pixels is required"):
        await client.condition("ip_adapter", images=["a text"], options=options)


async def test_what_does_not_go_together_is_said_with_its_field(client: AsyncClient) -> None:
    async def problem(*args: Any, **settings: Any) -> str:
        with pytest.raises(BadInput) as caught:
            await client.condition(*args, **settings)
        return str(caught.value)

    assert await problem("sdxl", "a") == (
        "encoders[0].model: profile 'sdxl' has two text encoders: name a model for each"
    )
    one = Conditioning(models=(TEXT,))
    assert await problem("sdxl", "a", how=one) == (
        "encoders: has 1 entries; profile 'sdxl' has 2 encoders"
    )
    skip = Conditioning(clip_skip=3)
    assert await problem("sd15", "a", how=skip) == (
        "clip_skip: of 3 profile 'sd15' takes normed_hidden_state_3, which model 'clip-l' version "
        "1 lacks: build it again with --hidden-states 4"
    )
    assert "clip_skip: must be 0: profile 'flux'" in await problem("flux", "a", how=skip)
    assert "images: profile 'sd15' has no image encoder" in await problem(
        "sd15", "a", images=[CIRCLE]
    )
    assert "prompts: profile 'unclip' needs prompts or images" in await problem("unclip")
    assert "lone" not in await problem("unclip", "a")  # the default model projects nothing
    assert await problem("unclip", "a") == (
        "profile: profile 'unclip' takes text_embeds, which model 'clip-l' version 1 lacks: "
        "build it again, from a checkpoint that has it"
    )
    assert "needs a text tower that takes a mask" in await problem("cascade", "a")
    assert "profile: is required" in await problem("", "a")
    with pytest.raises(NotFound, match="model 'clip-x' is not served"):
        await client.condition("sd15", "a", options=Options(model="clip-x"))
    with pytest.raises(SpaceMismatch):
        await client.condition("sd15", "a", options=Options(expected_fingerprint="0" * 64))


async def test_a_lone_encoder_has_no_vectors_of_the_other_kind(client: AsyncClient) -> None:
    reply = await client.embed([CIRCLE, "a"], Options(model=TEXT))
    assert isinstance(reply.results[0], BadInput)
    assert str(reply.results[0]) == (
        "inputs[0].image: model 'clip-l' is a lone encoder: it has no image tower"
    )
    assert isinstance(reply.results[1], np.ndarray)


async def test_a_user_adds_a_profile_without_code(models: Path, tmp_path: Path) -> None:
    (tmp_path / "pair.yaml").write_text(
        "name: pair\n"
        f"encoders: [{{model: {TEXT}, pad: end}}, {{model: {TEXT_2}, pad: 0}}]\n"
        "missing_negative: none\n"
        "tensors: [{name: both, encoders: [0, 1], take: pooled}]\n"
    )
    settings = local(repository=models, model=(TEXT, TEXT_2), profiles=tmp_path, precision="fp32",
                     max_prompt_chunks=2, max_condition_bytes=100_000)  # fmt: skip
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        assert "pair" in [profile.name for profile in await client.profiles()]
        reply = await client.condition("pair", "a red dog")
        assert reply.tensors["both"].shape == (1, 64)
        assert [space.model for space in reply.spaces] == [TEXT, TEXT_2]
        assert (await client.condition("sd15", LONG)).chunks == 2
        with pytest.raises(BadInput, match="prompts: make about 157,696 bytes of tensors; at most"):
            await client.condition("sd15", ["a"] * 8)
    (tmp_path / "pair.yaml").write_text("name: pair\n")
    with pytest.raises(BadRepository, match=r"pair.yaml: profile 'pair': encoders: Field required"):
        async with gateway(settings):
            pytest.fail("served")


async def test_the_shipped_model_conditions_and_what_it_lacks_is_said() -> None:
    async with served(precision="fp32") as client:
        reply = await client.condition("sd15", "a red circle", "a cross")
        assert embeds(reply).shape == (1, 32, SHAPES.spec.text_hidden_size)
        with pytest.raises(BadInput, match=r"normed_hidden_state_1, .*'shapes'.*--hidden-states 2"):
            await client.condition("sd15", "a", how=Conditioning(clip_skip=1))
        with pytest.raises(BadInput, match="penultimate_hidden_state, which model 'shapes'"):
            await client.condition("ip_adapter_plus", images=[CIRCLE])
        with pytest.raises(BadInput, match="the zero image, which model 'shapes' version 1 lacks"):
            await client.condition("kandinsky", images=[CIRCLE])


async def test_only_the_outputs_asked_for_are_computed_and_deadlines_count() -> None:
    async with (
        faulty() as server,
        server.client() as patient,
        server.client(timeout_s=0.3) as client,
    ):
        await patient.condition("sd15", "a", "b")
        before = len(server.engine.batches)
        await patient.condition("sd15", "a", "b")  # kept by content
        assert len(server.engine.batches) == before
        server.engine.gate.clear()
        with pytest.raises(DeadlinePassed):
            await client.condition("sd15", "c")
        server.engine.gate.set()
