"""What every call gets, whatever it asks for."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from diptych.errors import BadInput, DiptychError
from diptych.gateway.access_log import AccessLog, trace_of
from diptych.gateway.status import code_of, reason_of, to_status, trailing, unexpected
from diptych.gateway.telemetry import CALL, Call, note
from diptych.metrics import MethodMetrics, Metrics
from diptych.tracing import SPAN

if TYPE_CHECKING:  # generic in the stubs, not at run time
    from diptych.gateway.tracing import Traced, Traces

    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

log = logging.getLogger(__name__)

OURS = "/diptych.v1."
_MALFORMED = object()  # stands in for a message that is no protobuf of its type


class Calls(grpc.aio.ServerInterceptor):
    """Errors become their status; calls are counted, timed, traced and have their line in the log.
    Ours only: not health, reflection.

    gRPC itself would answer a malformed message and an unforeseen exception with UNKNOWN and
    Python's own text; here the first is a BadInput and the second a bare INTERNAL with an id.
    """

    def __init__(
        self,
        metrics: Metrics,
        access_log: AccessLog | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.metrics = metrics
        self.access_log = access_log or AccessLog(is_on=False)
        self.traces = traces
        self._handlers: dict[str, Handler] = {}  # by method; gRPC asks for one at every call
        self._open = 0
        self._last = 0.0  # when a call began
        metrics.open.set_function(lambda: self._open)
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is open."""
        await self._idle.wait()

    async def quiet(self, for_s: float, within_s: float) -> None:
        """Wait until no call has begun for so long, but no longer than `within_s`."""
        end = time.monotonic() + within_s
        while True:
            left_s = min(end, self._last + for_s) - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        method = handler_call_details.method
        CALL.set(Call(handler_call_details.invocation_metadata))
        if (known := self._handlers.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(OURS):
            return handler
        self._handlers[method] = self._wrapped(handler, method)
        return self._handlers[method]

    def began(self) -> None:
        """One call more is open."""
        self._last = time.monotonic()
        self._open += 1
        self._idle.clear()

    def ended(self) -> None:
        """One call less is open."""
        self._open -= 1
        if not self._open:
            self._idle.set()

    def _wrapped(self, handler: Handler, method: str) -> Handler:
        parse, write = _tolerant(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary is not None:
            call = self._unary(handler.unary_unary, method, write or bytes)
            return grpc.unary_unary_rpc_method_handler(call, parse)
        call = self._stream(handler.stream_stream, method)
        return grpc.stream_stream_rpc_method_handler(call, parse, _measured(write))

    def _unary(self, answer: Any, method: str, write: Callable[[Any], bytes]) -> Any:
        metrics = self.metrics.of_method("unary", method)

        async def call(request: Any, context: Context) -> bytes:
            with _Watched(self, metrics, method, context) as watched:
                try:
                    _check_parsed(request)
                    # Written here, so that it is part of the call's time and size.
                    data = write(await answer(request, context))
                    watched.call.response_bytes = len(data)
                    return data
                except Exception as exc:
                    await abort(context, watched.failed(exc))

        return call

    def _stream(self, answer: Any, method: str) -> Any:
        metrics = self.metrics.of_method("bidi_stream", method)

        async def call(requests: AsyncIterator[Any], context: Context) -> None:
            with _Watched(self, metrics, method, context) as watched:
                try:
                    await answer(_checked(requests), context)
                except Exception as exc:
                    await abort(context, watched.failed(exc))

        return call


class _Watched:
    """One call from its beginning to its end. A class: a generator would cost each call more."""

    __slots__ = ("_calls", "_code", "_context", "_method", "_metrics", "_span", "_started", "call")

    def __init__(self, calls: Calls, metrics: MethodMetrics, method: str, context: Context) -> None:
        self._calls = calls
        self._metrics = metrics
        self._method = method
        self._context = context
        self._code: grpc.StatusCode | None = None  # of what was raised
        self._span: Traced | None = None
        self.call = CALL.get() or Call(())

    def __enter__(self) -> _Watched:
        self._metrics.started.inc()
        self._calls.began()
        if self._calls.traces is not None:
            self._span = self._calls.traces.begin(self.call, self._method)
            if self._span is not None:
                self.call.trace_id = self._span.trace_id
                SPAN.set(self._span)
        self._started = time.perf_counter()
        return self

    def failed(self, error: Exception) -> status_pb2.Status:
        """What the caller is to be told of what was raised."""
        status = _status_of(error, self._method)
        self._code = code_of(status)
        reason = reason_of(error)
        self._calls.metrics.rejected("call", reason)
        note(reason=reason)
        return status

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        usual = grpc.StatusCode.OK if kind is None else grpc.StatusCode.CANCELLED
        code, duration_s = self._code or usual, time.perf_counter() - self._started
        self._calls.ended()
        self._metrics.ended(code.name, duration_s)
        self._calls.access_log.ended(self._method, code.name, duration_s, self._context)
        if self._span is not None:
            self._span.end(code.name, code.value[0], self.call)


def _status_of(exc: Exception, method: str) -> status_pb2.Status:
    if isinstance(exc, DiptychError):
        return to_status(exc)
    error_id = uuid.uuid4().hex[:12]
    note(error_id=error_id)
    facts = {"error_id": error_id, "traceback": trace_of(exc)}
    kind = type(exc).__name__
    log.error("%s failed: %s, error id %s", method, kind, error_id, extra={"facts": facts})
    return unexpected(error_id)


async def abort(context: Context, status: status_pb2.Status) -> NoReturn:
    """End the call with `status`. Never returns: what follows is for calls that go on."""
    try:
        # Not abort_with_status: OpenTelemetry's wrapper would record it as OK.
        await context.abort(code_of(status), status.message, trailing(status) + _request_id())
    except grpc.aio.InternalError:  # the caller hung up in this very moment
        log.debug("a call ended before its status was sent", exc_info=True)
        raise asyncio.CancelledError from None
    raise AssertionError("grpc's abort raises")


def _request_id() -> tuple[tuple[str, str], ...]:
    call = CALL.get()
    return () if call is None else (("x-request-id", call.request_id),)


def _measured(write: Any) -> Any:
    def written(message: Any) -> bytes:
        data: bytes = write(message)
        if (call := CALL.get()) is not None:
            call.response_bytes += len(data)
        return data

    return written


def _tolerant(parse: Any) -> Any:
    def parsed(data: bytes) -> Any:
        if (call := CALL.get()) is not None:
            call.request_bytes += len(data)
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
