"""Strangers at the gate: what is refused, in which words, and what it costs (nothing)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio._server
import pytest
import pytest_asyncio

from diptych.admission import Admission
from diptych.gateway.identity_interceptor import OPEN, methods_of
from diptych.gateway.server import GUARDED
from diptych.v1 import embedding_pb2 as pb
from tests.gateway.guarding import (
    BRIEF,
    CALLERS,
    GOOD,
    KEYS,
    STRANGERS,
    Guarded,
    bearer,
    guarding,
    plain,
    sha256,
)
from tests.http2 import MESSAGE, call, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK, INVALID, DENIED, EXHAUSTED, UNIMPLEMENTED, UNAUTHENTICATED = 0, 3, 7, 8, 12, 16

METHODS = sorted(methods_of(GUARDED))
EMBED, STREAM, MODELS = (
    f"/diptych.v1.EmbeddingService/{name}" for name in ("Embed", "EmbedStream", "ListModels")
)
REFLECTION = next(path for path in METHODS if "Reflection" in path)


# Long enough that none of them stands in a log by chance.
@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    async with guarding(tmp_path_factory.mktemp("keys")) as found:
        yield found


async def test_every_method_that_is_served_is_guarded_or_health(guarded: Guarded) -> None:
    assert guarded.served == set(METHODS) | OPEN
    assert len(METHODS) >= 7


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("shown", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_is_turned_away_unheard(
    shown: list[tuple[bytes, bytes]], path: str, guarded: Guarded
) -> None:
    before = dict(guarded.spent)
    answer = await guarded.knock(path, *shown)
    assert answer.code == UNAUTHENTICATED, answer
    assert guarded.spent == before
    assert not answer.data


@pytest.mark.parametrize("path", METHODS)
async def test_a_caller_without_the_right_is_turned_away_unheard(
    path: str, guarded: Guarded
) -> None:
    before = dict(guarded.spent)
    key = KEYS["narrow" if path != MODELS else "reflect"]
    answer = await guarded.knock(path, bearer(key))
    assert (answer.code, answer.message.endswith("may not call this method")) == (DENIED, True)
    assert guarded.spent == before


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize(
    "shown",
    [
        bearer(GOOD),
        plain(GOOD),
        bearer(KEYS["new"]),
        (b"authorization", b"bEARER " + GOOD.encode()),
    ],
    ids=["bearer", "plain", "the next key", "the scheme in any letters"],
)
async def test_a_known_caller_is_heard(
    shown: tuple[bytes, bytes], path: str, guarded: Guarded
) -> None:
    answer = await guarded.call(path, shown, body=MESSAGE)
    assert answer.code in (OK, INVALID), answer


@pytest.mark.parametrize("path", sorted(OPEN))
@pytest.mark.parametrize("shown", [[], [bearer("dpt_wrong")], [bearer(KEYS["narrow"])]])
async def test_health_answers_everybody(
    shown: list[tuple[bytes, bytes]], path: str, guarded: Guarded
) -> None:
    if path.endswith("Check"):
        assert (await guarded.call(path, *shown, body=MESSAGE)).data[5:] == b"\x08\x01"  # SERVING
        return
    with pytest.raises(TimeoutError):  # a watch goes on
        async with asyncio.timeout(0.2):
            await guarded.call(path, *shown, body=MESSAGE)


ODD = {
    "unknown": b"/diptych.v1.EmbeddingService/Nothing",
    "another service": b"/a.b/C",
    "a query": b"/diptych.v1.EmbeddingService/ListModels?key=" + GOOD.encode(),
    "a slash behind": b"/diptych.v1.EmbeddingService/ListModels/",
    "two slashes": b"//diptych.v1.EmbeddingService/ListModels",
    "no slash": b"diptych.v1.EmbeddingService/ListModels",
    "small letters": b"/diptych.v1.embeddingservice/listmodels",
    "percent": b"/diptych.v1.EmbeddingService/List%4dodels",
    "upwards": b"/grpc.health.v1.Health/../diptych.v1.EmbeddingService/ListModels",
    "health and more": b"/grpc.health.v1.Health/Check/diptych.v1.EmbeddingService/ListModels",
    "health in small letters": b"/grpc.health.v1.health/check",
    "a whole address": b"http://test/diptych.v1.EmbeddingService/ListModels",
    "empty": b"",
    "a star": b"*",
    "a zero byte": b"/diptych.v1.EmbeddingService/ListModels\0",
    "no text": b"/diptych.v1.EmbeddingService/\xff\xfe",
    "long": b"/" + b"a" * 5000,
}


@pytest.mark.parametrize("path", ODD.values(), ids=ODD)
async def test_nobody_learns_from_an_answer_what_there_is(path: bytes, guarded: Guarded) -> None:
    stranger = await guarded.knock(path)
    known = await guarded.knock(MODELS)
    assert (stranger.code, stranger.headers) == (UNAUTHENTICATED, known.headers)
    narrow = await guarded.knock(path, bearer(KEYS["reflect"]))
    assert narrow.headers == (await guarded.knock(EMBED, bearer(KEYS["reflect"]))).headers
    assert (await guarded.knock(path, bearer(GOOD))).code == UNIMPLEMENTED


async def test_two_paths_in_one_request_are_one_unknown_path_at_most(guarded: Guarded) -> None:
    headers = [*request(b"/grpc.health.v1.Health/Check"), (b":path", MODELS.encode())]
    answer = await call(guarded.address, headers, MESSAGE)
    assert answer.is_reset or answer.code != OK


def embed_body(*texts: str) -> bytes:
    message = pb.EmbedRequest(inputs=[pb.Input(text=text) for text in texts]).SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


async def test_a_quota_is_told_with_the_time_to_try_again(guarded: Guarded) -> None:
    key = bearer(KEYS["slow"])
    first = await guarded.call(EMBED, key, body=embed_body("a", "b", "c", "d"))
    assert first.code == OK
    before = dict(guarded.spent)
    refused = await guarded.knock(EMBED, key)
    assert (refused.code, guarded.spent) == (EXHAUSTED, before)
    assert 0 < int(refused.headers["grpc-retry-pushback-ms"]) <= 1500
    assert (await guarded.call(MODELS, key, body=MESSAGE)).code == OK  # takes no inputs
    await asyncio.sleep(int(refused.headers["grpc-retry-pushback-ms"]) / 1000)
    assert (await guarded.call(EMBED, key, body=embed_body("a"))).code == OK


async def test_a_priority_ceiling_holds_whatever_a_call_asks_for(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    enter = Admission.enter

    def spy(self: Admission, inputs: int, size_bytes: int, priority: Any) -> Any:
        seen.append(priority)
        return enter(self, inputs, size_bytes, priority)

    monkeypatch.setattr(Admission, "enter", spy)
    message = pb.EmbedRequest(inputs=[pb.Input(text="a")])
    message.options.priority = pb.PRIORITY_INTERACTIVE
    raw = message.SerializeToString()
    body = b"\0" + len(raw).to_bytes(4, "big") + raw
    for name in ("bulk", "all"):
        assert (await guarded.call(EMBED, bearer(KEYS[name]), body=body)).code == OK
    assert seen == [pb.PRIORITY_BULK, pb.PRIORITY_INTERACTIVE]


async def _stream(guarded: Guarded, key: str) -> Any:
    channel = grpc.aio.insecure_channel(guarded.address)
    stub: Any = channel.stream_stream(
        STREAM, pb.EmbedStreamRequest.SerializeToString, pb.EmbedStreamResponse.FromString
    )
    return channel, stub(metadata=[("authorization", f"Bearer {key}")])


def _input(text: str) -> pb.EmbedStreamRequest:
    return pb.EmbedStreamRequest(inputs=[pb.EmbedStreamInput(id=text, input=pb.Input(text=text))])


async def test_a_stream_ends_at_the_next_input_once_its_key_is_taken_away(guarded: Guarded) -> None:
    await guarded.rewrite(CALLERS + BRIEF)
    channel, stream = await _stream(guarded, KEYS["brief"])
    async with channel:
        await stream.write(_input("before"))
        assert (await stream.read()).HasField("space")
        assert (await stream.read()).results[0].id == "before"
        await guarded.rewrite(CALLERS)
        assert (await guarded.knock(EMBED, bearer(KEYS["brief"]))).code == UNAUTHENTICATED
        await stream.write(_input("after"))
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await stream.read()


async def test_a_stream_ends_once_its_caller_loses_the_right(guarded: Guarded) -> None:
    await guarded.rewrite(CALLERS + BRIEF)
    channel, stream = await _stream(guarded, KEYS["brief"])
    async with channel:
        await stream.write(_input("before"))
        await stream.read()
        await stream.read()
        await guarded.rewrite(
            CALLERS + BRIEF.replace("[EmbeddingService]", "[EmbeddingService/Embed]")
        )
        await stream.write(_input("after"))
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
            await stream.read()
    await guarded.rewrite(CALLERS)


async def test_a_stream_is_slowed_to_its_callers_pace_and_not_refused(guarded: Guarded) -> None:
    faster = CALLERS.replace("{inputs: 4, inputs_per_s: 2}", "{inputs_per_s: 20}")
    await guarded.rewrite(faster)
    channel, stream = await _stream(guarded, KEYS["slow"])
    loop = asyncio.get_running_loop()
    async with channel:
        started, got = loop.time(), 0
        for number in range(30):
            await stream.write(_input(str(number)))
        await stream.done_writing()
        async for reply in stream:
            got += len(reply.results)
        assert got == 30
        assert 0.3 < loop.time() - started < 5  # 20 may be saved up, 10 more take half a second
    await guarded.rewrite(CALLERS)


BAD_FILES = ["callers: [", CALLERS.replace("rights", "wrongs"), "", f"callers: {GOOD}"]


@pytest.mark.parametrize("text", BAD_FILES)
async def test_a_bad_file_changes_nothing_and_is_told(text: str, guarded: Guarded) -> None:
    await guarded.rewrite(text, "refused")
    assert any("callers are not taken up" in line for line in guarded.log.lines)
    assert (await guarded.call(MODELS, bearer(GOOD), body=MESSAGE)).code == OK
    assert (await guarded.knock(MODELS)).code == UNAUTHENTICATED
    await guarded.rewrite(CALLERS)


async def test_what_was_refused_is_counted_by_method_status_and_reason(guarded: Guarded) -> None:
    handled = (
        'grpc_server_handled_total{grpc_code="UNAUTHENTICATED",grpc_method="Embed",'
        'grpc_service="diptych.v1.EmbeddingService",grpc_type="unary"}'
    )
    reason = 'diptych_rejects_total{reason="no_credentials",scope="call"}'
    before = await guarded.metric(handled), await guarded.metric(reason)
    for _ in range(3):
        await guarded.knock(EMBED)
    await guarded.knock("/a.b/C")
    assert await guarded.metric(handled) == before[0] + 3
    assert await guarded.metric(reason) == before[1] + 4


async def test_whoever_knocks_does_not_fill_the_log(guarded: Guarded) -> None:
    before = sum("no_credentials" in line for line in guarded.log.lines)
    for _ in range(50):
        await guarded.knock(EMBED)
    assert sum("no_credentials" in line for line in guarded.log.lines) - before <= 3


async def test_no_key_and_no_hash_stands_in_any_log(guarded: Guarded) -> None:
    """Last of all: whatever the tests above have sent and provoked, at DEBUG."""
    text = "\n".join(guarded.log.lines)
    assert "refused" in text
    for key in KEYS.values():
        assert key not in text
        assert key[8:-4] not in text
        assert sha256(key) not in text
