"""Health on a port of its own, for probes that speak neither TLS nor keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc_health.v1 import health_pb2_grpc

from diptych.gateway.health import SERVING, Health
from diptych.gateway.paths import make_server
from diptych.settings import Settings

ALIVE = "alive"  # a name that is SERVING as long as this process answers, whatever its engine does


@asynccontextmanager
async def probing(settings: Settings, health: Health) -> AsyncIterator[str | None]:
    """The address of a server of `health` in plaintext, or None where none is asked for.

    Kubernetes' own gRPC probes cannot speak TLS. There is nothing else on this port.

    Raises:
        OSError: the port is taken.
    """
    if settings.health_port is None:
        yield None
        return
    server = make_server([], [("grpc.so_reuseport", int(settings.share_port))])
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    wanted = f"{settings.host}:{settings.health_port}"
    try:
        port = server.add_insecure_port(wanted)
    except RuntimeError as exc:
        raise OSError(f"cannot listen on {wanted}") from exc
    await health.servicer.set(ALIVE, SERVING)
    await server.start()
    try:
        yield f"{settings.host}:{port}"
    finally:
        await server.stop(None)
