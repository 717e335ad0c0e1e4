"""Each RPC: check, call, wrap. Nothing is computed here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from diptych.admission import Admission
from diptych.contract import Priority
from diptych.encoder import Reading
from diptych.errors import DeadlinePassed
from diptych.gateway.rules import Limits, check
from diptych.gateway.served import Catalog, Served
from diptych.gateway.stream import Stream
from diptych.gateway.translate import (
    MEASURES,
    from_limits,
    from_outcome,
    from_row,
    from_served,
    from_space,
    from_timings,
    to_inputs,
    to_measure,
    to_reading,
)
from diptych.scorer import Scored, score_all, score_label_set, score_pairwise
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import embedding_pb2_grpc as rpc

if TYPE_CHECKING:  # generic in the stubs, not at run time
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class EmbeddingServicer(rpc.EmbeddingServiceServicer):
    def __init__(self, catalog: Catalog, admission: Admission, limits: Limits) -> None:
        self._catalog = catalog
        self._admission = admission
        self._limits = limits

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        check(request, self._limits)
        model, reading = self._opened(request.options, context, Priority.INTERACTIVE)
        inputs = to_inputs(request.inputs)
        with model.in_use(), self._admit(request, len(inputs), reading):
            places = [f"inputs[{index}]" for index in range(len(inputs))]
            outcomes = await model.encoder.embed_all(inputs, reading, places)
        data_type = request.data_type or pb.DATA_TYPE_FLOAT32
        return pb.EmbedResponse(
            space=from_space(model.spec, reading.dimensions),
            data_type=data_type,
            results=[from_outcome(outcome, data_type) for outcome in outcomes],
            timings=from_timings(outcomes),
        )

    # A coroutine that writes, not a generator: a generator that gRPC abandons half-way would close
    # its task group from another task.
    async def EmbedStream(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.EmbedStreamRequest], context: Context
    ) -> None:
        first = await anext(request_iterator, None)
        if first is None:  # a stream that ended before it began
            return
        check(first, self._limits)
        options = first.options
        model, reading = self._opened(options.options, context, Priority.BULK)
        stream = Stream(model, reading, options.data_type, self._admission, self._limits)
        with model.in_use():
            await stream.answer(first, request_iterator, context.write)

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        check(request, self._limits)
        model, reading = self._opened(request.options, context, Priority.INTERACTIVE)
        measure = to_measure(request.measure, model.spec)
        count = len(request.queries) + len(request.candidates) * max(1, len(request.templates))
        with model.in_use(), self._admit(request, count, reading):
            scored = await self._score(request, model, reading, measure)
        return pb.ScoreResponse(
            space=from_space(model.spec, reading.dimensions),
            measure=measure,
            results=[from_row(row) for row in scored.rows],
            timings=from_timings(scored.embedded),
            labels=scored.labels,
        )

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        models = [from_served(model) for model in self._catalog]
        return pb.ListModelsResponse(models=models, limits=from_limits(self._limits))

    async def _score(
        self, request: pb.ScoreRequest, model: Served, reading: Reading, measure: pb.Measure
    ) -> Scored:
        queries, encoder = to_inputs(request.queries), model.encoder
        kind = MEASURES[measure]
        if request.label_set:
            labels = model.labels(request.label_set)
            return await score_label_set(
                encoder, queries, labels, reading, measure=kind, top_k=request.top_k
            )
        candidates = to_inputs(request.candidates)
        if request.pairing == pb.PAIRING_PAIRWISE:
            return await score_pairwise(
                encoder, queries, candidates, request.templates, reading, measure=kind
            )
        return await score_all(
            encoder,
            queries,
            candidates,
            request.templates,
            reading,
            measure=kind,
            top_k=request.top_k,
        )

    def _admit(
        self, request: Message, inputs: int, reading: Reading
    ) -> AbstractContextManager[None]:
        return self._admission.enter(inputs, request.ByteSize(), reading.priority)

    def _opened(
        self, options: pb.Options, context: Context, usual: Priority
    ) -> tuple[Served, Reading]:
        """The model a call names, and how its inputs are to be read, if there is time at all."""
        left_s = context.time_remaining()
        deadline = math.inf if left_s is None else asyncio.get_running_loop().time() + left_s
        if left_s is not None and left_s <= 0:
            raise DeadlinePassed("the deadline passed on arrival")
        model = self._catalog.get(options.model, options.expected_fingerprint)
        return model, to_reading(options, model.spec, deadline, usual)
