"""What a log line says of a call, and what no log says at any level."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import logging
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from diptych.client import AsyncClient
from diptych.errors import DiptychError, EngineUnavailable
from diptych.gateway.access_log import configure, trace_of
from diptych.gateway.server import gateway
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import embedding_pb2_grpc as rpc
from tests.serving import REPOSITORY, faulty, local

PICTURE = (Path(__file__).parents[1] / "pictures/red_circle.png").read_bytes()
KEY = "dpt_s3cret-key-0123456789abcdefghijklmnop"
PROMPT = "zanzibar-confidential-prompt"
TAG = "zanzibar-tag-in-a-picture"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(params=["json", "text"])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    with logging_as(request.param) as stream:
        yield stream


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    with logging_as("json") as stream:
        yield stream


@contextlib.contextmanager
def logging_as(kind: Any) -> Iterator[io.StringIO]:
    """What is written to the log at its most talkative."""
    root, ours = logging.getLogger(), logging.getLogger("diptych")
    before = root.handlers[:], root.level, ours.level
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        configure(kind, "debug")
    try:
        yield stream
    finally:
        logging.captureWarnings(False)
        root.handlers[:], level, ours_level = before
        root.setLevel(level)
        ours.setLevel(ours_level)


def parsed(stream: io.StringIO, **facts: object) -> list[dict[str, Any]]:
    """The lines that say this."""
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if facts.items() <= line.items()]


def tagged_png() -> bytes:
    """A picture with words in it, in a chunk that readers show to whoever listens."""
    data = PICTURE
    body = b"tEXtComment\0" + TAG.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


async def test_a_call_has_a_line_with_who_what_and_how_long(lines: io.StringIO) -> None:
    picture = PICTURE
    async with (
        gateway(local(access_log=True)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        request = pb.EmbedRequest(inputs=[pb.Input(image=picture), pb.Input(text="a")])
        metadata = (("x-request-id", "order-66"), ("traceparent", PARENT))
        answer = await rpc.EmbeddingServiceStub(channel).Embed(request, metadata=metadata)
    [line] = parsed(lines, logger="diptych.access")
    assert line["message"] == "/diptych.v1.EmbeddingService/Embed OK"
    assert (line["level"], line["code"], line["model"]) == ("info", "OK", "shapes")
    assert (line["request_id"], line["trace_id"]) == ("order-66", TRACE)
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert (line["inputs"], line["request_bytes"]) == (2, request.ByteSize())
    assert line["response_bytes"] == answer.ByteSize()
    assert line["engine_us"] == answer.timings.engine_us > 0
    assert line["duration_ms"] * 1000 > line["engine_us"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


async def test_a_stream_has_one_line_with_all_its_bytes(lines: io.StringIO) -> None:
    async def two() -> Any:
        for name in "ab":
            yield name, PICTURE

    async with gateway(local(access_log=True)) as running, AsyncClient(running.address) as client:
        assert len([result async for result in client.embed_stream(two())]) == 2
    [line] = parsed(lines, logger="diptych.access")
    assert line["message"] == "/diptych.v1.EmbeddingService/EmbedStream OK"
    assert line["request_bytes"] > 2 * len(PICTURE)
    assert line["response_bytes"] > 2 * 96 * 4


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, 'line\\nbreak"', "{}"])
async def test_a_request_id_that_is_none_is_replaced_and_told_with_the_error(
    lines: io.StringIO, given: str
) -> None:
    async with (
        gateway(local(access_log=True)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        call = rpc.EmbeddingServiceStub(channel).Embed(
            pb.EmbedRequest(), metadata=(("x-request-id", given),)
        )
        told = dict(await call.trailing_metadata() or ())["x-request-id"]
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    [line] = parsed(lines, code="INVALID_ARGUMENT")
    assert (line["request_id"], line["reason"]) == (told, "bad_input")
    assert re.fullmatch("[0-9a-f]{16}", str(told))


async def test_without_an_access_log_only_our_own_faults_have_lines(lines: io.StringIO) -> None:
    async with faulty() as server, server.client() as client:
        await client.embed(["a"])
        with pytest.raises(DiptychError):
            await client.embed([])
        server.engine.failure = EngineUnavailable("gone")
        with pytest.raises(EngineUnavailable):
            await client.embed(["b"])
    [line] = parsed(lines, logger="diptych.access")
    assert (line["level"], line["code"], line["reason"]) == (
        *("warning", "UNAVAILABLE"),
        "engine_unavailable",
    )


async def test_an_outage_writes_twenty_lines_a_second_and_says_how_many_more(
    lines: io.StringIO,
) -> None:
    async with faulty() as server, server.client() as client:
        server.engine.failure = EngineUnavailable("gone")
        texts = [[f"text {number}"] for number in range(100)]
        await asyncio.gather(*(client.embed(text) for text in texts), return_exceptions=True)
        told = parsed(lines, code="UNAVAILABLE")
        await asyncio.sleep(1.0)
        await asyncio.gather(client.embed(["last"]), return_exceptions=True)
    unsaid = sum(line.get("faults_without_a_line", 0) for line in parsed(lines, code="UNAVAILABLE"))
    assert len(told) <= 40  # the second may have turned
    assert len(parsed(lines, code="UNAVAILABLE")) + unsaid == 101


async def test_an_unforeseen_error_is_told_by_where_and_never_by_its_words(
    written: io.StringIO,
) -> None:
    async with faulty() as server, server.client() as client:
        server.engine.failure = RuntimeError(f"cannot make sense of {PROMPT!r}")
        with pytest.raises(DiptychError, match="internal error") as caught:
            await client.embed([PROMPT])
    text = written.getvalue()
    assert str(caught.value).split()[-1] in text  # the error id
    assert "builtins.RuntimeError" in text
    assert "testing.py" in text
    assert PROMPT not in text


def test_a_trace_has_every_cause_and_no_words() -> None:
    try:
        try:
            raise KeyError(PROMPT)
        except KeyError as exc:
            raise ValueError(PROMPT) from exc
    except ValueError as exc:
        text = trace_of(exc)
    assert text.index("builtins.ValueError") < text.index("builtins.KeyError")
    assert PROMPT not in text


async def test_no_prompt_no_key_and_no_picture_is_in_any_log_at_debug(
    written: io.StringIO, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"callers:\n  - {{name: shop, keys: [{{sha256: {digest}}}], rights: ['*']}}\n")
    settings = local(access_log=True, api_keys=keys, policies=None)
    picture = tagged_png()
    async with (
        gateway(settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        stub = rpc.EmbeddingServiceStub(channel)

        async def ask(*inputs: pb.Input, key: str = KEY, **how: Any) -> None:
            metadata = (("authorization", f"Bearer {key}"), ("x-note", PROMPT))
            request = pb.EmbedRequest(inputs=inputs, **how)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.Embed(request, metadata=metadata, timeout=10)

        text, image = pb.Input(text=PROMPT), pb.Input(image=picture)
        await ask(text, image)
        await ask(pb.Input(text=PROMPT * 50), pb.Input(image=picture[:60]))  # both refused
        await ask(pb.Input(image=PROMPT.encode()), pb.Input(text=f"{PROMPT}\ud7ff"))
        await ask(text, options=pb.Options(model=PROMPT))
        await ask(text, options=pb.Options(expected_fingerprint=PROMPT))
        await ask(text, key=KEY + "x")
        await ask(key=PROMPT)
        raw: Any = channel.unary_unary("/diptych.v1.EmbeddingService/Embed")
        with pytest.raises(grpc.aio.AioRpcError):
            await raw(PROMPT.encode(), metadata=(("authorization", f"Bearer {KEY}"),))
        await stub.Score(
            pb.ScoreRequest(queries=[image], candidates=[text, pb.Input(text="a lawn")]),
            metadata=(("authorization", f"Bearer {KEY}"),),
        )
    text_of_all = written.getvalue() + "".join(capfd.readouterr())
    assert "caller" in text_of_all
    assert "shop" in text_of_all
    for secret in (KEY, PROMPT, TAG, digest, picture.hex()[:64], repr(picture[:16])[2:-1]):
        assert secret not in text_of_all


async def test_serve_writes_json_to_standard_error_when_told() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "diptych", "serve", "--host", "127.0.0.1", "--port", "0"),
        *("--repository", str(REPOSITORY), "--log-format", "json", "--access-log"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        while not (said := (await process.stdout.readline()).decode()).startswith("listening on "):
            assert said, "the gateway ended before it listened"
        async with AsyncClient(said.split()[-1]) as client:
            await client.embed(["a"])
    finally:
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    found = [json.loads(line) for line in errors.decode().splitlines()]
    assert [line["code"] for line in found if line["logger"] == "diptych.access"] == ["OK"]
