"""Each RPC: check, call, wrap. Nothing is computed here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from diptych.contract import Priority
from diptych.encoder import Reading
from diptych.gateway.entrance import Entrance
from diptych.gateway.served import Served
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
)
from diptych.scorer import Scored, score_all, score_label_set, score_pairwise
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import embedding_pb2_grpc as rpc

if TYPE_CHECKING:  # generic in the stubs, not at run time
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class EmbeddingServicer(rpc.EmbeddingServiceServicer):
    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        self._entrance.check(request)
        model, reading = self._entrance.opened(request.options, context, Priority.INTERACTIVE)
        inputs = to_inputs(request.inputs)
        with model.in_use(), self._entrance.admit(request, len(inputs), reading):
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
        self._entrance.check(first)
        options = first.options
        model, reading = self._entrance.opened(options.options, context, Priority.BULK)
        stream = Stream(
            model, reading, options.data_type, self._entrance.admission, self._entrance.limits
        )
        with model.in_use():
            await stream.answer(first, request_iterator, context.write)

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        self._entrance.check(request)
        model, reading = self._entrance.opened(request.options, context, Priority.INTERACTIVE)
        measure = to_measure(request.measure, model.spec)
        count = len(request.queries) + len(request.candidates) * max(1, len(request.templates))
        with model.in_use(), self._entrance.admit(request, count, reading):
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
        models = [from_served(model) for model in self._entrance.catalog]
        return pb.ListModelsResponse(models=models, limits=from_limits(self._entrance.limits))

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
