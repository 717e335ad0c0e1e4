"""Who gets in, and how: TLS and callers, as the settings have them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from diptych.gateway.identity import Identity
from diptych.gateway.identity_interceptor import Gate, methods_of
from diptych.gateway.paths import make_server
from diptych.gateway.tls import Tls, TlsFiles
from diptych.gateway.watching import look_again
from diptych.metrics import Metrics
from diptych.settings import Settings


class Access:
    """Makes the server and opens its port. Certificates and callers may change while it runs."""

    def __init__(self, settings: Settings, services: Sequence[str], metrics: Metrics) -> None:
        """`services`: full names of all that need a caller, where callers are known."""
        self._settings = settings
        self._tls: Tls | None = None
        self._identity: Identity | None = None
        self._credentials: grpc.ServerCredentials | None = None
        self._gates: list[grpc.aio.ServerInterceptor] = []
        if settings.tls_certificate and settings.tls_key:
            files = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
            self._tls = Tls(files, metrics)
        if settings.api_keys:
            methods = methods_of(services)
            self._identity = Identity(settings.api_keys, methods, metrics)
            mutual = settings.tls_client_ca is not None
            self._gates = [Gate(self._identity, methods, metrics, mutual=mutual)]

    @asynccontextmanager
    async def watched(self, look: asyncio.Event) -> AsyncIterator[None]:
        """Read what there is, and again whenever it changes.

        Raises:
            BadAccess: a certificate or the file of callers cannot be used.
        """
        grpc_log = logging.getLogger("grpc._cython.cygrpc")
        grpc_log.addFilter(_no_header)
        if self._tls:
            self._credentials = await self._tls.start()
        if self._identity:
            await self._identity.start()
        watch = asyncio.create_task(look_again(self._settings.refresh_s, look, self._look))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            grpc_log.removeFilter(_no_header)

    def server(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, Any]],
    ) -> grpc.aio.Server:
        """A server whose calls pass the gate before these interceptors."""
        return make_server([*self._gates, *interceptors], options)

    def listen(self, server: grpc.aio.Server, address: str) -> int:
        """Open the port.

        Raises:
            OSError: it is taken.
        """
        try:
            if self._credentials is not None:
                return server.add_secure_port(address, self._credentials)
            return server.add_insecure_port(address)
        except RuntimeError as exc:
            raise OSError(f"cannot listen on {address}") from exc

    async def _look(self) -> None:
        for one in (self._tls, self._identity):
            if one is not None:
                await one.refresh()


def _no_header(record: logging.LogRecord) -> bool:
    """gRPC logs the value of a header that is not UTF-8, whole: it may be a key."""
    return not str(record.msg).startswith("Invalid encoding on")
