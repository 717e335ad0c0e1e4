"""What every call gets, whatever it asks for."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from diptych.errors import BadInput, DiptychError
from diptych.gateway.status import code_of, reason_of, to_status, trailing, unexpected
from diptych.metrics import MethodMetrics, Metrics

if TYPE_CHECKING:  # generic in the stubs, not at run time
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

log = logging.getLogger(__name__)

OURS = "/diptych.v1."
_MALFORMED = object()  # stands in for a message that is no protobuf of its type


class Calls(grpc.aio.ServerInterceptor):
    """Errors become their status, calls are counted and timed. Ours only: not health, reflection.

    gRPC itself would answer a malformed message and an unforeseen exception with UNKNOWN and
    Python's own text; here the first is a BadInput and the second a bare INTERNAL with an id.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._handlers: dict[str, Handler] = {}  # by method; gRPC asks for one at every call
        self._open = 0
        metrics.open.set_function(lambda: self._open)
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is open."""
        await self._idle.wait()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        method = handler_call_details.method
        if (known := self._handlers.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(OURS):
            return handler
        self._handlers[method] = self._wrapped(handler, method)
        return self._handlers[method]

    def _wrapped(self, handler: Handler, method: str) -> Handler:
        parse = _tolerant(handler.request_deserializer)
        if handler.unary_unary is not None:
            call = self._unary(handler.unary_unary, method)
            return grpc.unary_unary_rpc_method_handler(call, parse, handler.response_serializer)
        call = self._stream(handler.stream_stream, method)
        return grpc.stream_stream_rpc_method_handler(call, parse, handler.response_serializer)

    def _unary(self, answer: Any, method: str) -> Any:
        metrics = self._metrics.of_method("unary", method)

        async def call(request: Any, context: Context) -> Any:
            with self._counted(metrics) as ended:
                try:
                    _check_parsed(request)
                    return await answer(request, context)
                except Exception as exc:
                    await abort(context, ended(exc, method))

        return call

    def _stream(self, answer: Any, method: str) -> Any:
        metrics = self._metrics.of_method("bidi_stream", method)

        async def call(requests: AsyncIterator[Any], context: Context) -> None:
            with self._counted(metrics) as ended:
                try:
                    await answer(_checked(requests), context)
                except Exception as exc:
                    await abort(context, ended(exc, method))

        return call

    @contextmanager
    def _counted(
        self, metrics: MethodMetrics
    ) -> Iterator[Callable[[Exception, str], status_pb2.Status]]:
        metrics.started.inc()
        self._open += 1
        self._idle.clear()
        started = time.perf_counter()
        code: grpc.StatusCode | None = None  # of what was raised

        def ended(exc: Exception, method: str) -> status_pb2.Status:
            nonlocal code
            status = _status_of(exc, method)
            code = code_of(status)
            self._metrics.rejected("call", reason_of(exc))
            return status

        try:
            yield ended
            code = code or grpc.StatusCode.OK
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()
            metrics.ended((code or grpc.StatusCode.CANCELLED).name, time.perf_counter() - started)


def _status_of(exc: Exception, method: str) -> status_pb2.Status:
    if isinstance(exc, DiptychError):
        return to_status(exc)
    error_id = uuid.uuid4().hex[:12]
    log.error("%s failed, error id %s", method, error_id, exc_info=exc)
    return unexpected(error_id)


async def abort(context: Context, status: status_pb2.Status) -> None:
    try:
        # Not abort_with_status: OpenTelemetry's wrapper would record it as OK.
        await context.abort(code_of(status), status.message, trailing(status))
    except grpc.aio.InternalError:  # the caller hung up in this very moment
        log.debug("a call ended before its status was sent", exc_info=True)


def _tolerant(parse: Any) -> Any:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _MALFORMED

    return parsed


def _check_parsed(request: Any) -> None:
    if request is _MALFORMED:
        raise BadInput.at("request", "is not a protobuf message of this method's type")


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        _check_parsed(request)
        yield request
