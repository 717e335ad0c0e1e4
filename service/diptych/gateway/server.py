"""Where every object is made, wired, started, drained and stopped."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection

from diptych.admission import Admission
from diptych.decoding import Decoders
from diptych.gateway.access import Access
from diptych.gateway.access_log import AccessLog
from diptych.gateway.conditioning import ConditioningServicer
from diptych.gateway.entrance import Entrance
from diptych.gateway.exposition import exposed
from diptych.gateway.gauges import prepare, watch
from diptych.gateway.health import Health
from diptych.gateway.interceptors import Calls
from diptych.gateway.moderating import ModerationServicer
from diptych.gateway.opening import EngineFor, Opener, limits_of, open_engine
from diptych.gateway.policing import Policing
from diptych.gateway.probing import probing
from diptych.gateway.rollout import Rollout, served_names
from diptych.gateway.served import Catalog
from diptych.gateway.servicers import EmbeddingServicer
from diptych.gateway.telemetry import is_traced
from diptych.metrics import Metrics
from diptych.settings import Settings, cores
from diptych.threads import one_for_numpy
from diptych.v1 import (
    conditioning_pb2,
    conditioning_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    moderation_pb2,
)

if TYPE_CHECKING:
    from diptych.gateway.tracing import Traces

SERVICES = [
    embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name,
    moderation_pb2.DESCRIPTOR.services_by_name["ModerationService"].full_name,
    conditioning_pb2.DESCRIPTOR.services_by_name["ConditioningService"].full_name,
]
GUARDED = [*SERVICES, reflection.SERVICE_NAME]  # where callers are known, for them alone

_MAX_STREAMS = 256  # calls at once on one connection; more wait at the caller
_CONNECTION_AGE_MS = 5 * 60 * 1000  # then callers look up the addresses anew and find new pods
# A call that arrives in the moment a server stops is lost, whoever tries to finish it. So clients
# that have heard NOT_SERVING are given the time to go, as long as they keep calling.
_QUIET_S = 0.25
_LEAVE_S = 2.0
_LAST_WORDS_S = 0.1  # for the last answers to be written
_MIN_PING_MS = 10_000  # clients may send keepalive pings this often


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that is SERVING."""

    address: str
    metrics_address: str | None
    health_address: str | None
    models: Catalog


@asynccontextmanager
async def gateway(
    settings: Settings,
    engine_for: EngineFor = open_engine,
    *,
    look: asyncio.Event | None = None,
) -> AsyncIterator[Running]:
    """A running gateway, warmed and SERVING.

    It looks for new versions, and for changed policies, certificates and callers, every
    `refresh_s`, and when `look` is set.

    On exit, in this order: health turns NOT_SERVING, new calls are refused, open calls get
    `drain_s` to finish, batching stops, engines are released.

    Raises:
        BadAccess: a certificate or the file of callers cannot be used.
        BadRepository: the model repository, a label set or a policy cannot be served.
        NotFound: a model named in the settings is not there.
        EngineError: the engine is away, or does not answer as the reference did.
        OSError: a port is taken.
    """
    metrics, catalog, limits = Metrics(), Catalog(), limits_of(settings)
    admission = Admission(
        max_inputs=settings.max_waiting_inputs, max_bytes=settings.max_waiting_bytes
    )
    entrance, policing = Entrance(catalog, admission, limits), Policing(settings.policies, metrics)
    health, access = Health(catalog, SERVICES, metrics), Access(settings, GUARDED, metrics)
    looks = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(one_for_numpy())
        await stack.enter_async_context(_background(_relay(look or asyncio.Event(), looks)))
        await stack.enter_async_context(access.watched(looks[0]))
        decoders = Decoders(settings.decoders or cores())
        await stack.enter_async_context(decoders.serving())
        watch(metrics, settings, admission, decoders, catalog)
        prepare(metrics, SERVICES)
        opener = Opener(settings, limits, decoders, policing, metrics, engine_for)
        rollout = Rollout(settings.repository, opener, catalog, policing, metrics)
        await stack.enter_async_context(_rolling(settings, rollout, looks[1]))
        metrics_address = stack.enter_context(exposed(metrics.registry, settings))
        traces = await stack.enter_async_context(_tracing())
        listening = _listening(settings, access, entrance, health, metrics, traces)
        address = await stack.enter_async_context(listening)
        health_address = await stack.enter_async_context(probing(settings, health))
        yield Running(address, metrics_address, health_address, catalog)


def keep_imports() -> None:
    """Have no garbage collection search what is imported by now, and stays.

    A full one would hold up every call for 60 ms, 4 of which are for what serving makes.
    """
    gc.collect()
    gc.freeze()


def told_to_stop() -> asyncio.Event:
    """Set by SIGTERM (Kubernetes) or SIGINT (Ctrl+C) from now on, during start-up too."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told


def told_to_look() -> asyncio.Event:
    """Set by SIGHUP from now on."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told.set)
    return told


@asynccontextmanager
async def _rolling(
    settings: Settings, rollout: Rollout, look: asyncio.Event
) -> AsyncIterator[None]:
    """The models open, and new versions of them and changed policies taken up."""
    try:
        names = await asyncio.to_thread(served_names, settings.repository, settings.model)
        await rollout.start(names)
        async with _background(rollout.watch(settings.refresh_s, look)):
            yield
    finally:
        await rollout.stop()


async def _relay(look: asyncio.Event, others: Iterable[asyncio.Event]) -> None:
    """Set all of them whenever `look` is: each belongs to one who waits, and clears it."""
    while True:
        await look.wait()
        look.clear()
        for other in others:
            other.set()


@asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _tracing() -> AsyncIterator[Traces | None]:
    if not is_traced():
        yield None
        return
    from diptych.gateway.tracing import Traces  # OpenTelemetry is loaded by whoever uses it

    traces = Traces()
    try:
        yield traces
    finally:
        await asyncio.to_thread(traces.close)


@asynccontextmanager
async def _listening(
    settings: Settings,
    access: Access,
    entrance: Entrance,
    health: Health,
    metrics: Metrics,
    traces: Traces | None,
) -> AsyncIterator[str]:
    calls = Calls(metrics, AccessLog(is_on=settings.access_log), traces)
    server = access.server([calls], _options(settings))
    await health.start()
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(entrance), server)
    ModerationServicer(entrance, metrics).add_to(server)
    conditioning_pb2_grpc.add_ConditioningServiceServicer_to_server(
        ConditioningServicer.of(settings, entrance), server
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if settings.reflection:
        names = [*SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)
    port = access.listen(server, f"{settings.host}:{settings.port}")
    await server.start()
    await health.proved()
    try:
        async with _background(health.watch()):
            yield f"{settings.host}:{port}"
    finally:
        await health.stop()
        if health.watchers:
            await calls.quiet(_QUIET_S, min(_LEAVE_S, settings.drain_s / 4))
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
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_MS),
        # Unless asked for, a taken port is an error, not a share of its traffic.
        ("grpc.so_reuseport", int(settings.share_port)),
    ]
