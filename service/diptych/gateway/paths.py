"""A grpc.aio server that outlives a request for a path that is no text.

grpc 1.85 decodes the path of a call to no registered method in the loop that serves all calls:
one request with `:path: /\\xff` ends that loop and with it the server, whoever sent it. Here such
calls are taken out of that loop, and answered without looking at their paths.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

# Nothing public reaches there, and nothing there has types.
from grpc._cython import cygrpc
from grpc.aio import _server

UNKNOWN = "/unknown/Unknown"  # what interceptors hear of a path that is not served


def make_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> grpc.aio.Server:
    """As `grpc.aio.server`. Serves what is added as generated code adds it: as registered."""
    made: Any = _Server(interceptors, options)
    return made  # type: ignore[no-any-return]


class _Server(_server.Server):
    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, Any]],
    ) -> None:
        # In place of the base's own, which would make a core server that is never stopped.
        self._loop = cygrpc.get_working_loop()
        self._server = _Core(self._loop, None, (), interceptors, tuple(options), None)
        self._server.gates = tuple(interceptors)


class _NoMethods:
    def resolve_handler(self, _: object) -> None:
        """There is none."""


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """Overrides the one method that asks for the next call."""

    gates: tuple[grpc.aio.ServerInterceptor, ...]

    def _make_request_call_future(self, method: bytes | None) -> Any:
        if method is not None:
            return super()._make_request_call_future(method)
        return asyncio.get_running_loop().create_task(self._refuse_unknown())

    async def _refuse_unknown(self) -> None:
        """Answer calls to unknown paths until the server stops."""
        loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        while self.is_running():
            call = await self._request_call()  # fails when the server stops, which ends this
            answer = cygrpc._handle_rpc(UNKNOWN, _NoMethods(), self.gates, call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, UNKNOWN))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await loop.create_future()  # cancelled by the loop that serves
