"""One EmbedStream: inputs in as fast as they are answered, results out as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from diptych.admission import Admission
from diptych.encoder import Reading
from diptych.errors import BadInput, one_reason
from diptych.gateway.rules import Limits, check
from diptych.gateway.served import Served
from diptych.gateway.translate import from_outcome, from_space, to_inputs
from diptych.v1 import embedding_pb2 as pb


class Stream:
    """Reads on only while fewer than `limits.stream_inputs` inputs are unanswered.

    An input counts until its result has been written, so that a caller who does not read fills
    nothing but its own window.
    """

    def __init__(
        self,
        model: Served,
        reading: Reading,
        data_type: pb.DataType,
        admission: Admission,
        limits: Limits,
    ) -> None:
        self._model = model
        self._reading = reading
        self._data_type = data_type or pb.DATA_TYPE_FLOAT32
        self._admission = admission
        self._limits = limits
        self._window = asyncio.Semaphore(limits.stream_inputs)
        self._finished: list[pb.EmbedStreamResult] = []
        self._unanswered = 0
        self._is_read = False  # to the end
        self._news = asyncio.Event()  # something finished, or the end was read

    async def answer(
        self,
        first: pb.EmbedStreamRequest,
        rest: AsyncIterator[pb.EmbedStreamRequest],
        write: Callable[[pb.EmbedStreamResponse], Awaitable[None]],
    ) -> None:
        """Read `first` and `rest` to their end and write every result.

        Raises:
            DiptychError: what concerns the whole stream ends it.
        """
        space = from_space(self._model.spec, self._reading.dimensions)
        await write(pb.EmbedStreamResponse(space=space, data_type=self._data_type))
        with one_reason():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(first, rest, group))
                await self._write_all(write)

    async def _read(
        self,
        first: pb.EmbedStreamRequest,
        rest: AsyncIterator[pb.EmbedStreamRequest],
        group: asyncio.TaskGroup,
    ) -> None:
        await self._start(first, group)
        async for request in rest:
            check(request, self._limits)
            if request.HasField("options"):
                raise BadInput.at("options", "belongs into the first message only")
            await self._start(request, group)
        self._is_read = True
        self._news.set()

    async def _start(self, request: pb.EmbedStreamRequest, group: asyncio.TaskGroup) -> None:
        for message in request.inputs:
            await self._window.acquire()
            self._unanswered += 1
            group.create_task(self._embed(message))

    async def _embed(self, message: pb.EmbedStreamInput) -> None:
        size = message.ByteSize()
        async with self._admission.wait(1, size, self._reading.priority):
            [item] = to_inputs([message.input])
            encoder = self._model.encoder
            outcome = await encoder.embed_or_say_why(item, self._reading, "input")
        result = from_outcome(outcome, self._data_type)
        self._finished.append(pb.EmbedStreamResult(id=message.id, result=result))
        self._news.set()

    async def _write_all(self, write: Callable[[pb.EmbedStreamResponse], Awaitable[None]]) -> None:
        while not self._is_read or self._unanswered:
            await self._news.wait()
            self._news.clear()
            results, self._finished = self._finished, []
            if results:
                await write(pb.EmbedStreamResponse(results=results))
            self._unanswered -= len(results)
            for _ in results:
                self._window.release()
