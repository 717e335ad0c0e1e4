"""The client. Needs grpcio, protobuf and numpy; importing it never imports the gateway."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import chain
from types import TracebackType

from diptych import wire
from diptych.client_access import PLAIN as PLAIN
from diptych.client_access import Credentials as Credentials
from diptych.client_access import open_aio_channel, open_channel
from diptych.client_channel import channel_options, typed_errors
from diptych.client_conditioning import AsyncConditioningCalls, ConditioningCalls
from diptych.client_moderation import AsyncModerationCalls, ModerationCalls
from diptych.v1 import conditioning_pb2_grpc as conditioning
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import embedding_pb2_grpc as rpc
from diptych.v1 import moderation_pb2_grpc as moderation
from diptych.wire import (
    DEFAULTS,
    EmbedReply,
    Input,
    MeasureName,
    Options,
    ScoreReply,
    ServerInfo,
    Space,
    StreamResult,
)


class Client(ModerationCalls, ConditioningCalls):
    """Talks to one gateway, or to all replicas behind one name. Safe to share among threads.

    with Client("localhost:50051") as client:
        vectors = client.embed([Path("cat.jpg"), "a photo of a cat"]).vectors  # [2, D]

    Every call raises the errors of `diptych.errors`, as the protos list their statuses.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 30.0,
        retries: bool = True,
        credentials: Credentials = PLAIN,
    ) -> None:
        """`timeout_s` is the deadline of each unary call; its retries happen within it.

        Raises:
            ValueError: the key would travel for all to read.
            OSError: a file of the credentials cannot be read.
        """
        self._channel = open_channel(address, credentials, channel_options(retries))
        self._stub = rpc.EmbeddingServiceStub(self._channel)
        self._moderation = moderation.ModerationServiceStub(self._channel)
        self._conditioning = conditioning.ConditioningServiceStub(self._channel)
        self._timeout_s = timeout_s

    def embed(
        self, inputs: Sequence[Input], options: Options = DEFAULTS, *, half: bool = False
    ) -> EmbedReply:
        """Embed a batch. `half`: vectors travel and come back as float16."""
        request = wire.embed_request(inputs, options, half=half)
        with typed_errors():
            return wire.embed_reply(self._stub.Embed(request, timeout=self._timeout_s))

    def embed_stream(
        self,
        inputs: Iterable[tuple[str, Input]],
        options: Options = DEFAULTS,
        *,
        half: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[StreamResult]:
        """Embed any number of (id, input), read as fast as the server answers.

        Yields results as they finish, in any order.
        """
        first = _first(options, half)
        requests = chain([first], map(_stream_request, inputs))
        with typed_errors():
            space, kind = pb.Space(), first.options.data_type
            for reply in self._stub.EmbedStream(requests, timeout=timeout_s):
                if reply.HasField("space"):
                    space = reply.space
                yield from _stream_results(reply, space, kind)

    def score(
        self,
        queries: Sequence[Input],
        candidates: Sequence[Input] = (),
        options: Options = DEFAULTS,
        *,
        label_set: str = "",
        templates: Sequence[str] = (),
        measure: MeasureName = "default",
        pairwise: bool = False,
        top_k: int = 0,
    ) -> ScoreReply:
        """Score queries against candidates or a label set."""
        request = wire.score_request(
            queries,
            candidates,
            options,
            label_set=label_set,
            templates=templates,
            measure=measure,
            pairwise=pairwise,
            top_k=top_k,
        )
        with typed_errors():
            return wire.score_reply(self._stub.Score(request, timeout=self._timeout_s))

    def models(self) -> ServerInfo:
        """What is served, and within which limits."""
        with typed_errors():
            reply = self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout_s)
        return ServerInfo(tuple(reply.models), reply.limits)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(AsyncModerationCalls, AsyncConditioningCalls):
    """As `Client`, for asyncio.

    async with AsyncClient("localhost:50051") as client:
        vectors = (await client.embed([Path("cat.jpg"), "a photo of a cat"])).vectors  # [2, D]
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 30.0,
        retries: bool = True,
        credentials: Credentials = PLAIN,
    ) -> None:
        """As of `Client`."""
        self._channel = open_aio_channel(address, credentials, channel_options(retries))
        self._stub: rpc.EmbeddingServiceAsyncStub = rpc.EmbeddingServiceStub(self._channel)
        self._moderation: moderation.ModerationServiceAsyncStub = moderation.ModerationServiceStub(
            self._channel
        )
        self._conditioning: conditioning.ConditioningServiceAsyncStub = (
            conditioning.ConditioningServiceStub(self._channel)
        )
        self._timeout_s = timeout_s

    async def embed(
        self, inputs: Sequence[Input], options: Options = DEFAULTS, *, half: bool = False
    ) -> EmbedReply:
        """As `Client.embed`."""
        request = wire.embed_request(inputs, options, half=half)
        with typed_errors():
            return wire.embed_reply(await self._stub.Embed(request, timeout=self._timeout_s))

    async def embed_stream(
        self,
        inputs: AsyncIterable[tuple[str, Input]],
        options: Options = DEFAULTS,
        *,
        half: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[StreamResult, None]:
        """As `Client.embed_stream`."""
        first = _first(options, half)

        async def requests() -> AsyncIterator[pb.EmbedStreamRequest]:
            yield first
            async for item in inputs:
                yield _stream_request(item)

        with typed_errors():
            space, kind = pb.Space(), first.options.data_type
            async for reply in self._stub.EmbedStream(requests(), timeout=timeout_s):
                if reply.HasField("space"):
                    space = reply.space
                for result in _stream_results(reply, space, kind):
                    yield result

    async def score(
        self,
        queries: Sequence[Input],
        candidates: Sequence[Input] = (),
        options: Options = DEFAULTS,
        *,
        label_set: str = "",
        templates: Sequence[str] = (),
        measure: MeasureName = "default",
        pairwise: bool = False,
        top_k: int = 0,
    ) -> ScoreReply:
        """As `Client.score`."""
        request = wire.score_request(
            queries,
            candidates,
            options,
            label_set=label_set,
            templates=templates,
            measure=measure,
            pairwise=pairwise,
            top_k=top_k,
        )
        with typed_errors():
            return wire.score_reply(await self._stub.Score(request, timeout=self._timeout_s))

    async def models(self) -> ServerInfo:
        """As `Client.models`."""
        with typed_errors():
            reply = await self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout_s)
        return ServerInfo(tuple(reply.models), reply.limits)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _first(options: Options, half: bool) -> pb.EmbedStreamRequest:
    given = pb.EmbedStreamOptions(options=options.message(), data_type=wire.data_type(half))
    return pb.EmbedStreamRequest(options=given)


def _stream_request(item: tuple[str, Input]) -> pb.EmbedStreamRequest:
    found = pb.EmbedStreamInput(id=item[0], input=wire.to_input(item[1]))
    return pb.EmbedStreamRequest(inputs=[found])


def _stream_results(
    reply: pb.EmbedStreamResponse, space: pb.Space, kind: pb.DataType
) -> Iterator[StreamResult]:
    named = Space.of(space)
    for message in reply.results:
        yield StreamResult(message.id, wire.embed_result(message.result, kind), named)
