"""The gate: every call is its caller's, and allowed, before a byte of its messages is read."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf import descriptor_pool

from diptych.errors import BadInput, DiptychError, NotAllowed, Overloaded, Unidentified
from diptych.gateway.identity import Admitted, Identity
from diptych.gateway.interceptors import abort
from diptych.gateway.status import code_of, reason_of, to_status
from diptych.metrics import Metrics
from diptych.quotas import OF_CALL

if TYPE_CHECKING:  # generic in the stubs, not at run time
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

# For probes and for clients that leave out replicas which are not well. No other method is open.
OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})

_KINDS = {  # of go-grpc-middleware, by whether requests and answers are streams
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}
_QUIET_S = 1.0  # between two lines about the same reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Method:
    """What the gate knows of a method."""

    kind: str
    takes_inputs: bool  # at once: streams are slowed, and what takes none has no quota


def methods_of(services: Iterable[str]) -> dict[str, Method]:
    """By path, what the services of these full names have."""
    found: dict[str, Method] = {}
    for service in services:
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            kind = _KINDS[method.client_streaming, method.server_streaming]
            takes = bool(method.input_type.fields) and not method.client_streaming
            found[f"/{service}/{method.name}"] = Method(kind, takes)
    return found


class Gate(grpc.aio.ServerInterceptor):
    """Goes before every other interceptor. Whatever is not open needs a known caller.

    Paths that are not served are refused to whoever has not the right to everything, in the
    words of those that are: nobody learns from an answer what there is.
    """

    def __init__(
        self, identity: Identity, methods: Mapping[str, Method], metrics: Metrics, *, mutual: bool
    ) -> None:
        """`mutual`: callers show certificates when they connect."""
        self._identity = identity
        self._methods = methods
        self._metrics = metrics
        self._mutual = mutual
        self._said: dict[str, tuple[float, int]] = {}  # when last, and how many since, by reason

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        path = handler_call_details.method
        if path in OPEN:
            return await continuation(handler_call_details)
        try:
            admitted = self._identity.by_key(handler_call_details.invocation_metadata, path)
            if admitted is not None:
                self._let_in(admitted, path)
            elif not self._mutual:
                raise Unidentified("no key was sent: `authorization: Bearer KEY`", "no_credentials")
        except DiptychError as exc:
            return self._refusing(exc, path)
        handler = await continuation(handler_call_details)
        return handler if admitted is not None else self._asking(handler, path)

    def _let_in(self, admitted: Admitted, path: str) -> None:
        method = self._methods.get(path)
        if method is not None and method.takes_inputs:
            admitted.quota.check()
        OF_CALL.set(admitted)  # each call has a task of its own, and this is it

    def _refusing(self, error: DiptychError, path: str) -> Handler:
        # Of any method: a handler of streams reads nothing unless it asks for it.
        async def refuse(_: AsyncIterator[Any], context: Context) -> None:
            await self._refuse(error, path, context)

        return grpc.stream_stream_rpc_method_handler(refuse)

    async def _refuse(self, error: DiptychError, path: str, context: Context) -> NoReturn:
        status, reason = to_status(error), reason_of(error)
        self._metrics.rejected("call", reason)
        if (method := self._methods.get(path)) is not None:
            counted = self._metrics.of_method(method.kind, path)
            counted.started.inc()
            counted.ended(code_of(status).name, 0.0)
        self._log(reason, path if method else "an unknown path", context)
        await abort(context, status)

    def _log(self, reason: str, path: str, context: Context) -> None:
        """One line a second for each reason: whoever knocks must not fill the disk."""
        now = time.monotonic()
        last, more = self._said.get(reason, (-_QUIET_S, 0))
        if now - last < _QUIET_S:
            self._said[reason] = last, more + 1
            return
        self._said[reason] = now, 0
        log.warning("refused %s to %s: %s (%d more before)", path, context.peer(), reason, more)

    def _asking(self, handler: Handler | None, path: str) -> Handler:
        """As `handler`, for whoever shows the certificate of a caller: gRPC tells of it only here.

        Takes a stream of requests, of which a unary handler is given the first, so that nothing
        is read before the caller is known.
        """

        async def admit(context: Context) -> None:
            try:
                admitted = self._identity.by_certificate(context.auth_context(), path)
                self._let_in(admitted, path)
            except (Unidentified, NotAllowed, Overloaded) as exc:
                await self._refuse(exc, path, context)

        if handler is None:

            async def nothing(_: AsyncIterator[Any], context: Context) -> None:
                await admit(context)
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

            return grpc.stream_stream_rpc_method_handler(nothing)
        inner, streams = _behaviour(handler), handler.request_streaming

        if not handler.response_streaming:

            async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
                await admit(context)
                return await inner(requests if streams else await _only(context), context)

            return grpc.stream_unary_rpc_method_handler(
                answer, handler.request_deserializer, handler.response_serializer
            )

        async def write(requests: AsyncIterator[Any], context: Context) -> None:
            await admit(context)
            given = requests if streams else await _only(context)
            if inspect.iscoroutinefunction(inner):
                await inner(given, context)
                return
            async for message in inner(given, context):
                await context.write(message)

        return grpc.stream_stream_rpc_method_handler(
            write, handler.request_deserializer, handler.response_serializer
        )


def _behaviour(handler: Handler) -> Any:
    return (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )


async def _only(context: Context) -> Any:
    """The one message of a unary request."""
    if (message := await context.read()) is grpc.aio.EOF:
        await abort(context, to_status(BadInput.at("request", "is missing")))
    return message
