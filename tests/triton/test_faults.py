"""Whatever Triton answers, a caller gets right numbers or one of our errors."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from diptych.contract import Tower
from diptych.engines.base import EMBEDS, PIXELS, TOKENS, Array
from diptych.engines.triton import TritonEngine
from diptych.errors import DeadlinePassed, EngineFailed, EngineUnavailable, Overloaded
from diptych.gateway.opening import open_engine
from diptych.repository import ModelFiles
from tests.serving import SHAPES, local
from tests.triton.far_end import Context, FarEnd, answer

WIDTH = SHAPES.spec.embed_dim
TEXT = EMBEDS[Tower.TEXT]
OK = grpc.StatusCode


def texts(rows: int = 3) -> dict[str, Array]:
    return {TOKENS: np.ones((rows, 8), dtype=np.int64)}


async def ask(engine: TritonEngine, rows: int = 3, timeout_s: float | None = 2.0) -> Array:
    answered = await engine.run(Tower.TEXT, texts(rows), [TEXT], timeout_s=timeout_s)
    return answered[TEXT]


def with_rows(rows: int, value: float = 1.0, kind: type = np.float32) -> Any:
    return answer(**{TEXT: np.full((rows, WIDTH), value, kind)})


def nonsense() -> dict[str, tuple[Any, str]]:
    """Answers that must never become a vector, and why."""
    half = pb.ModelInferResponse(raw_output_contents=[np.ones((3, WIDTH), np.float16).tobytes()])
    half.outputs.add(name=TEXT, datatype="FP16", shape=[3, WIDTH])
    empty = pb.ModelInferResponse(raw_output_contents=[b""])
    empty.outputs.add(name=TEXT, datatype="FP32", shape=[3, WIDTH])
    one_zero = np.ones((3, WIDTH), np.float32)
    one_zero[1] = 0
    return {
        "NaN": (with_rows(3, np.nan), "holds NaN"),
        "infinity": (with_rows(3, np.inf), "holds NaN or infinity"),
        "zeros": (with_rows(3, 0.0), "a row of zeros"),
        "one row of zeros": (answer(**{TEXT: one_zero}), "a row of zeros"),
        "too few rows": (with_rows(2), "for 3 inputs"),
        "too many rows": (with_rows(4), "for 3 inputs"),
        "too narrow": (answer(**{TEXT: np.ones((3, WIDTH - 1), np.float32)}), "for 3 inputs"),
        "a single row": (answer(**{TEXT: np.ones(WIDTH, np.float32)}), "for 3 inputs"),
        "another type": (half, "is float16"),
        "zero bytes": (empty, "has 0 bytes"),
        "no outputs": (pb.ModelInferResponse(), "left out"),
        "another output": (answer(other=np.ones((3, WIDTH), np.float32)), "left out"),
    }


@pytest.mark.parametrize("kind", nonsense())
async def test_nonsense_is_never_a_vector(
    kind: str, near_end: TritonEngine, far_end: FarEnd
) -> None:
    response, reason = nonsense()[kind]

    async def say(request: Any, context: Context) -> Any:
        return response

    far_end.answer = say
    with pytest.raises(EngineFailed, match=reason):
        await ask(near_end)
    far_end.answer = far_end.ones
    assert (await ask(near_end)).shape == (3, WIDTH)


@pytest.mark.parametrize(
    ("code", "words", "error"),
    [
        (OK.INTERNAL, "in ensemble, /models/secret: CUDA error", EngineFailed),
        (OK.INVALID_ARGUMENT, "unexpected shape for input", EngineFailed),
        (OK.UNKNOWN, "std::exception", EngineFailed),
        (OK.RESOURCE_EXHAUSTED, "message larger than max", EngineFailed),
        (OK.INTERNAL, "Stub process 'x_0_0' is not healthy.", EngineUnavailable),
        (OK.NOT_FOUND, "unknown model: 'x'", EngineUnavailable),
        (OK.UNAVAILABLE, "Server not ready", EngineUnavailable),
        (OK.UNAVAILABLE, "[request id: x] Exceeds maximum queue size", Overloaded),
        (OK.UNAVAILABLE, "Request timeout expired", DeadlinePassed),
    ],
)
async def test_errors_are_told_in_our_words(
    code: grpc.StatusCode,
    words: str,
    error: type[Exception],
    near_end: TritonEngine,
    far_end: FarEnd,
    caplog: pytest.LogCaptureFixture,
) -> None:
    far_end.answer = far_end.says(code, words)
    with caplog.at_level(logging.WARNING), pytest.raises(error) as caught:
        await ask(near_end)
    assert words not in str(caught.value)
    assert words in caplog.text


async def test_only_the_outputs_asked_for_are_asked_for(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    await ask(near_end)
    [request] = far_end.requests
    assert [output.name for output in request.outputs] == [TEXT]
    assert request.model_version == str(SHAPES.spec.version)


async def test_a_large_batch_goes_in_parts_and_comes_back_in_order(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    async def number(request: Any, context: Context) -> Any:
        ids = np.frombuffer(request.raw_input_contents[0], np.int64).reshape(-1, 8)
        await asyncio.sleep(0.001 * (200 - ids[0, 0]))  # the last part answers first
        return answer(**{TEXT: np.repeat(ids[:, :1], WIDTH, axis=1).astype(np.float32)})

    far_end.answer = number
    ids = np.repeat(np.arange(1, 151)[:, None], 8, axis=1)
    answered = await near_end.run(Tower.TEXT, {TOKENS: ids}, [TEXT])
    assert [r.inputs[0].shape[0] for r in far_end.requests] == [64, 64, 22]
    np.testing.assert_array_equal(answered[TEXT][:, 0], np.arange(1, 151))


async def test_one_bad_part_fails_the_batch_with_its_own_error(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    far_end.answer = far_end.says(OK.INTERNAL, "broken", times=1)
    with pytest.raises(EngineFailed):
        await ask(near_end, rows=150)


async def test_a_hanging_server_holds_its_callers_for_their_own_time_only(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    far_end.answer = far_end.hang
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        await ask(near_end, timeout_s=0.3)
    assert 0.29 < time.monotonic() - started < 0.8
    [request] = far_end.requests
    assert 200_000 < request.parameters["timeout"].int64_param <= 300_000


async def test_a_server_that_lets_calls_wait_is_busy_and_one_that_is_gone_is_not(
    files: ModelFiles,
) -> None:
    async with FarEnd(files).serving() as far_end:
        engine = await TritonEngine.connect(far_end.address, files)
        far_end.answer = far_end.hang
        waiting = asyncio.create_task(ask(engine))
        await asyncio.sleep(0.1)
        assert await engine.is_well()
        waiting.cancel()
        far_end.answer = far_end.says(OK.INTERNAL, "Stub process 'x_0_0' is not healthy.")
        with pytest.raises(EngineUnavailable):
            await ask(engine)
        assert not await engine.is_well()  # it is there, and a stub of it is dead
        far_end.answer = far_end.ones
        await ask(engine)
        assert await engine.is_well()
    assert not await engine.is_well()
    await engine.close()


async def test_no_time_left_is_no_call(near_end: TritonEngine, far_end: FarEnd) -> None:
    with pytest.raises(DeadlinePassed):
        await ask(near_end, timeout_s=-0.1)


async def test_a_broken_connection_is_tried_once_more(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    far_end.answer = far_end.says(OK.UNAVAILABLE, "connection reset", times=1)
    assert (await ask(near_end)).shape == (3, WIDTH)
    assert len(far_end.requests) == 2


async def test_large_requests_are_tried_once_more_too(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    """gRPC forgets requests over 256 KiB unless told otherwise."""
    size = SHAPES.spec.image.size
    pixels = np.zeros((64, size, size, 3), np.uint8)
    assert pixels.nbytes > 1 << 17
    far_end.answer = far_end.says(OK.UNAVAILABLE, "connection reset", times=1)
    await near_end.run(Tower.IMAGE, {PIXELS: pixels}, [EMBEDS[Tower.IMAGE]])
    assert len(far_end.requests) == 2


async def test_second_tries_add_a_tenth_to_the_load_at_most(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    """Every second call fails at first: without a budget half of the load were second tries."""
    calls, flip = 60, [False]

    async def sometimes(request: Any, context: Context) -> Any:
        flip[0] = not flip[0]
        if flip[0]:
            await context.abort(OK.UNAVAILABLE, "connection reset")
        return await far_end.ones(request, context)

    far_end.answer = sometimes
    for _ in range(calls):
        try:
            await ask(near_end)
        except EngineUnavailable:
            continue
    assert len(far_end.requests) - calls <= 5 + calls // 10


async def test_a_tower_that_is_gone_is_left_alone_and_found_again(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    async def no_texts(request: Any, context: Context) -> Any:
        if request.outputs[0].name == TEXT:
            await context.abort(OK.UNAVAILABLE, "away")
        return await far_end.ones(request, context)

    far_end.answer = no_texts
    for _ in range(20):
        with pytest.raises(EngineUnavailable):
            await ask(near_end)
    assert len(far_end.requests) <= 10  # 5 in a row, with their second tries
    await near_end.run(Tower.IMAGE, *images())  # the other tower is not concerned
    far_end.answer = far_end.ones
    deadline = time.monotonic() + 5
    while True:
        try:
            await ask(near_end)
            break
        except EngineUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


def images() -> tuple[dict[str, Array], list[str]]:
    size = SHAPES.spec.image.size
    return {PIXELS: np.zeros((1, size, size, 3), np.uint8)}, [EMBEDS[Tower.IMAGE]]


async def test_replicas_share_the_load(files: ModelFiles) -> None:
    async with FarEnd(files).serving() as one, FarEnd(files).serving() as two:
        target = f"ipv4:{one.address},{two.address}"
        engine = await TritonEngine.connect(target, files)
        await asyncio.gather(*(ask(engine) for _ in range(20)))  # until both are connected
        one.requests.clear()
        two.requests.clear()
        await asyncio.gather(*(ask(engine) for _ in range(100)))
        await engine.close()
    assert abs(len(one.requests) - len(two.requests)) <= 10


async def test_the_gateway_keeps_all_replicas_busy(far_end: FarEnd, files: ModelFiles) -> None:
    settings = local(engine=f"triton://{far_end.address}", triton_replicas=3)
    engine = await open_engine(files, settings, 5)
    assert engine.in_flight == 6
    await engine.close()


async def test_a_lost_replica_is_not_noticed_by_callers(files: ModelFiles) -> None:
    async with FarEnd(files).serving() as one:
        async with FarEnd(files).serving() as two:
            engine = await TritonEngine.connect(f"ipv4:{one.address},{two.address}", files)
            await asyncio.gather(*(ask(engine) for _ in range(20)))
        for _ in range(20):
            await ask(engine)
        await engine.close()
