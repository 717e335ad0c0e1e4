"""Embed through a real socket, on the shipped model and the real engine."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from PIL import Image

from diptych.client import AsyncClient, Client
from diptych.errors import BadInput, DiptychError, NotFound, SpaceMismatch
from diptych.gateway.server import gateway
from diptych.preprocess.images import decode_image
from diptych.wire import Options, Vectors
from tests.drawing import PICTURES, encoded, photo, red_circle
from tests.serving import SHAPES, local, served

SPEC = SHAPES.spec
CIRCLE = encoded(red_circle())


def bomb() -> bytes:
    """A small PNG of 178 megapixels."""
    return encoded(Image.new("1", (13_400, 13_300)), compress_level=9)


def bad_input(result: object) -> BadInput:
    assert isinstance(result, BadInput)
    return result


async def test_vectors_come_back_in_order_and_of_unit_length() -> None:
    async with served() as client:
        together = await client.embed([CIRCLE, "a red circle", "a blue square"])
        alone = [(await client.embed([item])).vectors[0] for item in (CIRCLE, "a blue square")]
    assert together.vectors.shape == (3, SPEC.embed_dim)
    assert together.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(together.vectors[[0, 2]], alone, atol=1e-5)


async def test_a_reply_says_of_which_space_it_is() -> None:
    async with served() as client:
        space = (await client.embed(["a"])).space
        pinned = await client.embed(
            ["a"], Options("shapes", expected_fingerprint=space.fingerprint)
        )
        with pytest.raises(SpaceMismatch, match="cannot be compared"):
            await client.embed(["a"], Options(expected_fingerprint="0" * 64))
    assert pinned.space == space
    assert space.fingerprint == SPEC.fingerprint
    assert (space.model, space.version) == ("shapes", SPEC.version)


async def test_dimensions_are_cut_and_scaled_to_unit_length_again() -> None:
    async with served() as client:
        [whole] = (await client.embed(["a star"])).vectors
        reply = await client.embed(["a star"], Options(dimensions=16))
        with pytest.raises(BadInput, match=r"options.dimensions: 10000 of a model with"):
            await client.embed(["a star"], Options(dimensions=10_000))
    [short] = reply.vectors
    np.testing.assert_allclose(short, whole[:16] / np.linalg.norm(whole[:16]), atol=1e-6)
    assert reply.space.dimensions == 16


async def test_float16_vectors_are_the_float32_ones_rounded() -> None:
    async with served() as client:
        whole = (await client.embed(["a star", CIRCLE])).vectors
        half = (await client.embed(["a star", CIRCLE], half=True)).vectors
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, whole, atol=1e-3)


async def test_ready_pixels_are_the_picture_they_were_cut_from() -> None:
    pixels = decode_image(CIRCLE, SPEC.image)
    async with served() as client:
        decoded, ready = (await client.embed([CIRCLE, pixels])).vectors
        wrong = (await client.embed([pixels[:-1], CIRCLE])).results
    np.testing.assert_allclose(decoded, ready, atol=1e-6)
    assert bad_input(wrong[0]).violations[0].field == "inputs[0].pixels"
    assert not isinstance(wrong[1], DiptychError)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (b"", "image"),
        (b"not an image", "image"),
        (encoded(photo(300, 200), "JPEG")[:4000], "image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "image"),
        (" ".join(["circle"] * 300), "text"),
        ("x" * 20_001, "text"),
    ],
    ids=["empty", "no image", "truncated JPEG", "broken PNG", "too many tokens", "too long"],
)
async def test_a_bad_input_is_named_and_its_neighbours_are_answered(
    bad: bytes | str, field: str
) -> None:
    async with served() as client:
        results = (await client.embed(["a star", bad, CIRCLE])).results
        [alone] = (await client.embed(["a star"])).vectors
    [violation] = bad_input(results[1]).violations
    assert violation.field == f"inputs[1].{field}"
    for secret in ("Pillow", "PIL", "Traceback", "0x", "/"):
        assert secret not in violation.problem
    assert not isinstance(results[0], DiptychError)
    assert not isinstance(results[2], DiptychError)
    np.testing.assert_allclose(results[0], alone, atol=1e-5)


async def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    data = bomb()
    process = psutil.Process()
    async with served() as client:
        await client.embed([CIRCLE])
        before, started = process.memory_info().rss, time.perf_counter()
        [result] = (await client.embed([data])).results
        spent_s, added = time.perf_counter() - started, process.memory_info().rss - before
    assert "pixels" in bad_input(result).violations[0].problem
    assert spent_s < 0.1
    assert added < 64 * 2**20


async def test_a_twelve_megapixel_photo_is_embedded() -> None:
    data = encoded(photo(4000, 3000), "JPEG", quality=85)
    async with served() as client:
        [vector] = (await client.embed([data])).vectors
    np.testing.assert_allclose(np.linalg.norm(vector), 1.0, rtol=1e-5)


async def test_an_over_long_text_is_cut_only_when_asked() -> None:
    text = " ".join(["circle"] * 300)
    async with served() as client:
        [refused] = (await client.embed([text])).results
        reply = await client.embed([text], Options(truncate=True))
    assert "tokens" in bad_input(refused).violations[0].problem
    assert reply.tokens_dropped[0] > 0
    assert reply.vectors.shape == (1, SPEC.embed_dim)


async def test_what_a_request_names_must_exist() -> None:
    async with served() as client:
        with pytest.raises(NotFound, match="model 'dalle' is not served; there are: shapes"):
            await client.embed(["a"], Options(model="dalle"))
        with pytest.raises(NotFound, match="label_set 'animals' is not served; there are: none"):
            await client.score(["a"], label_set="animals")


async def test_every_broken_rule_of_a_request_is_named_at_once() -> None:
    async with served(max_inputs=2) as client:
        with pytest.raises(BadInput) as empty:
            await client.embed([])
        with pytest.raises(BadInput) as several:
            await client.score(["a"] * 3, ["b"], templates=["no slot"])
    assert [v.field for v in empty.value.violations] == ["inputs"]
    assert [v.field for v in several.value.violations] == ["queries", "templates[0]"]


@pytest.mark.parametrize("method", ["Embed", "Score", "ListModels"])
async def test_a_malformed_message_is_our_own_error(method: str) -> None:
    async with served() as client:
        call: Any = client._channel.unary_unary(f"/diptych.v1.EmbeddingService/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a protobuf message" in str(caught.value.details())


async def test_sixty_four_callers_get_the_vectors_they_would_get_alone() -> None:
    captions = [
        f"a {size} {c} {s}"
        for size in ("small", "large")
        for c in ("red", "blue", "green")
        for s in ("circle", "square", "star", "cross")
    ]
    pictures = [path.read_bytes() for path in sorted(PICTURES.iterdir()) if path.is_file()]
    items: list[bytes | str] = [*captions, *pictures]
    async with served() as client:
        alone = [(await client.embed([item])).vectors[0] for item in items]
        work = iter(range(2000))
        worst: list[float] = []

        async def caller() -> None:
            for number in work:
                index = number % len(items)
                [vector] = (await client.embed([items[index]])).vectors
                worst.append(float(vector @ alone[index]))

        await asyncio.gather(*(caller() for _ in range(64)))
    assert len(worst) == 2000
    assert min(worst) >= 0.9999


def test_the_plain_client_answers_as_the_async_one() -> None:
    async def both() -> None:
        async with gateway(local()) as running, AsyncClient(running.address) as client:
            theirs = await client.embed(["a star", CIRCLE])
            ours = await asyncio.to_thread(_plain, running.address)
        np.testing.assert_allclose(ours, theirs.vectors, atol=1e-5)

    asyncio.run(both())


def _plain(address: str) -> Vectors:
    with Client(address) as client:
        assert client.models().models[0].space.model == "shapes"
        assert client.score([CIRCLE], ["a red circle", "a blue square"]).scores.argmax() == 0
        streamed = {r.id: r.vector for r in client.embed_stream([("s", "a star"), ("c", CIRCLE)])}
        np.testing.assert_allclose(
            [streamed["s"], streamed["c"]], client.embed(["a star", CIRCLE]).vectors, atol=1e-5
        )
        return client.embed(["a star", PICTURES / "red_circle.png"]).vectors


async def test_a_deterministic_server_answers_alike_to_the_last_bit_in_any_company() -> None:
    texts = [f"a red circle number {number}" * (1 + number % 3) for number in range(40)]
    async with served(deterministic=True, text_cache_bytes=0, image_cache_bytes=0) as client:
        alone = [(await client.embed([text])).vectors[0] for text in texts[:8]]
        together = (await client.embed(texts)).vectors
    for vector, other in zip(alone, together, strict=False):
        assert (vector == other).all()


async def test_exact_images_are_decoded_pixel_for_pixel() -> None:
    data, spec = encoded(photo(800, 600), "JPEG", quality=85), SPEC.image
    async with served(exact_images=True) as client:
        exact = (await client.embed([decode_image(data, spec, exact=True), data])).vectors
    async with served() as client:
        quick = (await client.embed([decode_image(data, spec), data])).vectors
    assert (exact[0] == exact[1]).all()
    assert (quick[0] == quick[1]).all()
    assert not (exact[0] == quick[0]).all()
