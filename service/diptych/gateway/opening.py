"""One version of one model in, something to serve out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from diptych.canary import call_items, prove
from diptych.conditioner import Conditioner, read_zero_image
from diptych.decoding import Decoders
from diptych.encoder import CacheLimits, Encoder
from diptych.engines.base import Engine
from diptych.engines.embedded import EmbeddedEngine
from diptych.engines.triton import TritonEngine
from diptych.gateway.policing import Policing
from diptych.gateway.rules import Limits
from diptych.gateway.served import Served
from diptych.labels import embed_label_set, read_label_sets
from diptych.metrics import Metrics
from diptych.preprocess.images import ImageLimits
from diptych.preprocess.text import TextTokenizer
from diptych.repository import ModelFiles
from diptych.settings import Settings, cores
from diptych.states import States
from diptych.towers import Towers

TRITON = "triton://"

_WAIT_S = 60.0  # for an engine to load the graphs

# The files of one version, how long its engine may take to have it ready, in seconds, and where it
# counts what befalls it.
EngineFor: TypeAlias = Callable[[ModelFiles, Settings, float, Metrics], Awaitable[Engine]]


async def open_engine(
    files: ModelFiles, settings: Settings, wait_s: float, metrics: Metrics | None = None
) -> Engine:
    """The engine the settings name.

    Raises:
        BadRepository: it cannot load the graphs, or serves others.
        EngineUnavailable: it does not have this version within `wait_s`.
    """
    if settings.engine.startswith(TRITON):
        return await TritonEngine.connect(
            settings.engine.removeprefix(TRITON),
            files,
            wait_s=wait_s,
            replicas=settings.triton_replicas,
            metrics=metrics,
        )
    return await asyncio.to_thread(
        EmbeddedEngine,
        files.spec,
        files.graphs,
        threads=settings.threads or cores(),
        provider=settings.provider,
        precision=settings.precision,
    )


def limits_of(settings: Settings) -> Limits:
    return Limits(
        inputs=settings.max_inputs,
        request_bytes=settings.max_request_bytes,
        text_characters=settings.max_text_characters,
        stream_inputs=settings.stream_inputs,
        templated_texts=settings.max_waiting_inputs,
        image=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
    )


class Opener:
    """Opens versions of models, all in the same way."""

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        decoders: Decoders,
        policing: Policing,
        metrics: Metrics,
        engine_for: EngineFor,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._decoders = decoders
        self._policing = policing
        self._metrics = metrics
        self._engine_for = engine_for

    @asynccontextmanager
    async def open(self, files: ModelFiles, *, wait_s: float) -> AsyncIterator[Served]:
        """One version: its engine proved, its label sets and policies embedded, its batches open.

        Raises:
            BadRepository: a graph, the tokenizer, a label set or a policy cannot be used.
            EngineError: the engine is away, or its canary is not the reference's.
        """
        spec, settings = files.spec, self._settings
        self._metrics.watch_engine(spec.name)
        engine = await self._engine_for(files, settings, wait_s, self._metrics)
        labels = (spec.name, str(spec.version), spec.fingerprint)
        try:
            for rows in (1, settings.max_batch):  # the extremes, so that both are warm
                await prove(engine, spec, rows=rows)
            most = 1 if settings.deterministic else settings.max_batch
            costs = await call_items(engine, spec)
            towers = Towers(spec, engine, self._metrics, max_batch=most, call_items=costs)
            states = States(
                spec,
                engine,
                self._metrics,
                max_batch=most,
                cache_bytes=settings.condition_cache_bytes,
            )
            tokenizer = TextTokenizer(
                files.tokenizer, spec.text, max_chars=self._limits.text_characters
            )
            encoder = self._encoder(files, towers, tokenizer)
            conditioner = self._conditioner(files, states, tokenizer)
            async with towers.serving(), states.serving():
                sets = read_label_sets(settings.labels) if settings.labels else []
                embedded = {found.name: await embed_label_set(encoder, found) for found in sets}
                policies = await self._policing.embedded(encoder)
                self._metrics.space.labels(*labels).set(1)
                yield Served(spec, encoder, engine, embedded, policies, conditioner)
                self._metrics.space.remove(*labels)
        finally:
            await engine.close()

    def _encoder(self, files: ModelFiles, towers: Towers, tokenizer: TextTokenizer) -> Encoder:
        limits, settings = self._limits, self._settings
        return Encoder(
            files.spec,
            tokenizer,
            towers,
            self._decoders,
            image_limits=limits.image,
            exact_images=settings.exact_images,
            cache_limits=CacheLimits(settings.text_cache_bytes, settings.image_cache_bytes),
            metrics=self._metrics,
        )

    def _conditioner(
        self, files: ModelFiles, states: States, tokenizer: TextTokenizer
    ) -> Conditioner:
        return Conditioner(
            states,
            tokenizer,
            self._decoders,
            image_limits=self._limits.image,
            zero_image=read_zero_image(files.zero_image),
        )


@asynccontextmanager
async def open_encoder(files: ModelFiles, settings: Settings) -> AsyncIterator[Encoder]:
    """The path of one input as a gateway has it, for whoever needs no gateway.

    Raises:
        BadRepository: a graph or the tokenizer cannot be used.
        EngineError: the engine is away, or its canary is not the reference's.
    """
    metrics, decoders = Metrics(), Decoders(settings.decoders or cores())
    policing = Policing(None, metrics)
    opener = Opener(settings, limits_of(settings), decoders, policing, metrics, open_engine)
    async with decoders.serving(), opener.open(files, wait_s=_WAIT_S) as served:
        yield served.encoder
