"""Where every object is made, wired, started, drained and stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server

from diptych import repository
from diptych.admission import Admission
from diptych.canary import prove
from diptych.encoder import Encoder
from diptych.engines.base import Engine
from diptych.engines.embedded import EmbeddedEngine
from diptych.errors import BadRepository
from diptych.gateway.interceptors import Calls
from diptych.gateway.rules import Limits
from diptych.gateway.served import Catalog, Served
from diptych.gateway.servicers import EmbeddingServicer
from diptych.labels import embed_label_set, read_label_sets
from diptych.metrics import Metrics
from diptych.preprocess.images import ImageLimits
from diptych.preprocess.text import TextTokenizer
from diptych.repository import ModelFiles
from diptych.settings import Settings, cores
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import embedding_pb2_grpc as rpc

SERVICES = [pb.DESCRIPTOR.services_by_name["EmbeddingService"].full_name]

_MAX_STREAMS = 256  # calls at once on one connection; more wait at the caller
_CONNECTION_AGE_MS = 5 * 60 * 1000  # then callers look up the addresses anew and find new pods
_LAST_WORDS_S = 0.1  # for the last answers to be written
_MIN_PING_MS = 10_000  # clients may send keepalive pings this often


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that is SERVING."""

    address: str
    metrics_address: str | None
    models: list[Served]


def embedded(files: ModelFiles, settings: Settings) -> Engine:
    """The engine in this process."""
    return EmbeddedEngine(
        files.spec,
        files.graphs,
        threads=settings.threads or cores(),
        provider=settings.provider,
        precision=settings.precision,
    )


@asynccontextmanager
async def gateway(
    settings: Settings, engine_for: Callable[[ModelFiles, Settings], Engine] = embedded
) -> AsyncIterator[Running]:
    """A running gateway, warmed and SERVING.

    On exit, in this order: health turns NOT_SERVING, new calls are refused, open calls get
    `drain_s` to finish, batching stops, engines are released.

    Raises:
        BadRepository: the model repository or a label set cannot be served.
        NotFound: a model named in the settings is not there.
        OSError: a port is taken.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry())
        limits = _limits(settings)
        decoders = stack.enter_context(_decoders(settings))
        models = [
            await stack.enter_async_context(
                _served(files, engine_for, settings, limits, decoders, metrics)
            )
            for files in await asyncio.to_thread(_load, settings)
        ]
        admission = Admission(
            max_inputs=settings.max_waiting_inputs, max_bytes=settings.max_waiting_bytes
        )
        metrics.inside.set_function(lambda: admission.inputs)
        servicer = EmbeddingServicer(Catalog(models), admission, limits)
        metrics_address = stack.enter_context(_metrics_server(settings, metrics))
        address = await stack.enter_async_context(_listening(settings, servicer, metrics))
        yield Running(address, metrics_address, models)


def told_to_stop() -> asyncio.Event:
    """Set by SIGTERM (Kubernetes) or SIGINT (Ctrl+C) from now on, during start-up too."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told


def _limits(settings: Settings) -> Limits:
    return Limits(
        inputs=settings.max_inputs,
        request_bytes=settings.max_request_bytes,
        text_characters=settings.max_text_characters,
        stream_inputs=settings.stream_inputs,
        templated_texts=settings.max_waiting_inputs,
        image=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
    )


def _load(settings: Settings) -> list[ModelFiles]:
    """The models to serve, read and checked, the default one first."""
    root = settings.repository
    names = list(settings.model) or repository.names(root)
    if not names:
        raise BadRepository(f"{root}: holds no model")
    if len(names) > 1 and not settings.model:
        raise BadRepository(f"{root}: holds {', '.join(names)}: name the default one with --model")
    return [repository.load(root, name) for name in names]


@contextmanager
def _decoders(settings: Settings) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(settings.decoders or cores(), thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@asynccontextmanager
async def _served(
    files: ModelFiles,
    engine_for: Callable[[ModelFiles, Settings], Engine],
    settings: Settings,
    limits: Limits,
    decoders: ThreadPoolExecutor,
    metrics: Metrics,
) -> AsyncIterator[Served]:
    """One model, its engine warm and proved, its label sets embedded, its batches forming."""
    engine = await asyncio.to_thread(engine_for, files, settings)
    try:
        for rows in (1, settings.max_batch):
            await prove(engine, files.spec, rows=rows)
        encoder = Encoder(
            files.spec,
            TextTokenizer(files.tokenizer, files.spec.text, max_chars=limits.text_characters),
            engine,
            decoders,
            image_limits=limits.image,
            max_batch=settings.max_batch,
            metrics=metrics,
        )
        async with encoder.serving():
            sets = read_label_sets(settings.labels) if settings.labels else []
            embedded = {found.name: await embed_label_set(encoder, found) for found in sets}
            spec = files.spec
            metrics.space.labels(spec.name, str(spec.version), spec.fingerprint).set(1)
            yield Served(spec, encoder, engine.description, embedded)
    finally:
        await engine.close()


@contextmanager
def _metrics_server(settings: Settings, metrics: Metrics) -> Iterator[str | None]:
    if settings.metrics_port is None:
        yield None
        return
    server, thread = start_http_server(
        settings.metrics_port, addr=settings.host, registry=metrics.registry
    )
    try:
        yield f"{settings.host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@asynccontextmanager
async def _listening(
    settings: Settings, servicer: EmbeddingServicer, metrics: Metrics
) -> AsyncIterator[str]:
    calls = Calls(metrics)
    server = grpc.aio.server(interceptors=[calls], options=_options(settings))
    healthy = health.aio.HealthServicer()
    # The library says SERVING for "" from the start: liveness too waits for a proved engine.
    await healthy.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    rpc.add_EmbeddingServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    if settings.reflection:
        names = [*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(f"{settings.host}:{settings.port}")
    except RuntimeError as exc:
        raise OSError(f"cannot listen on {settings.host}:{settings.port}") from exc
    await server.start()
    for name in ("", *SERVICES):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield f"{settings.host}:{port}"
    finally:
        await healthy.enter_graceful_shutdown()
        await _drain(server, calls, settings.drain_s)


async def _drain(server: grpc.aio.Server, calls: Calls, drain_s: float) -> None:
    """Refuse new calls, wait for open ones; not for health watches, which never end alone."""
    stopping = asyncio.create_task(server.stop(drain_s))
    idle = asyncio.create_task(calls.idle())
    await asyncio.wait([stopping, idle], return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()
    await asyncio.gather(server.stop(_LAST_WORDS_S), stopping)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),  # bounded by what a request may ask for
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", int(settings.drain_s * 1000)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_MS),
        ("grpc.so_reuseport", 0),  # a taken port is an error, not a share of its traffic
    ]
