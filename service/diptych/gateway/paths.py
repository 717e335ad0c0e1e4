"""A grpc.aio server that outlives a path that is no text, and has a loop for each method.

grpc 1.85 decodes the path of a call to no registered method in the loop that serves all calls:
one request with `:path: /\\xff` ends that loop and with it the server, whoever sent it. Here such
calls are taken out of that loop, and answered without looking at their paths.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import grpc

# Nothing public reaches there, and nothing there has types.
from grpc._cython import cygrpc
from grpc.aio import _server

Handler: TypeAlias = Any

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


class _Handlers:
    """What gRPC asks for the handler of a call."""

    def __init__(self, known: Mapping[str, Handler]) -> None:
        self._known = known

    def resolve_handler(self, call: grpc.HandlerCallDetails) -> Handler | None:
        return self._known.get(call.method)


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """Overrides the one method that asks for the next call.

    The base's loop asks it again after each call, and waits for the next calls of all methods at
    once: 15 futures are given a callback each, and have it taken away again, for every call. Here
    each method has a loop of its own, and the base's loop waits for the end of these.
    """

    gates: tuple[grpc.aio.ServerInterceptor, ...]

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._known: dict[str, Handler] = {}
        self._calls = set[asyncio.Task[None]]()

    def add_registered_method_handlers(self, handlers: dict[str, Handler]) -> None:
        self._known |= handlers
        super().add_registered_method_handlers(handlers)

    def _make_request_call_future(self, method: bytes | None) -> Any:
        if method is None:
            calls = self._answer(self._request_call, UNKNOWN, _Handlers({}))
        else:
            ask = partial(self._request_registered_call, method)
            calls = self._answer(ask, method.decode(), _Handlers(self._known))
        return asyncio.get_running_loop().create_task(calls)

    async def _answer(
        self, ask: Callable[[], Awaitable[Any]], method: str, handlers: _Handlers
    ) -> None:
        """Answer calls of one method, or those to unknown paths, until the server stops."""
        loop = asyncio.get_running_loop()
        while self.is_running():
            call = await ask()  # fails when the server stops, which ends this
            answer = cygrpc._handle_rpc(method, handlers, self.gates, call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, method))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        await loop.create_future()  # cancelled by the loop that serves
