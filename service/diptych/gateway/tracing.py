"""Spans of calls and batches, sent by OpenTelemetry. The only module that knows it.

Imported where traces have an address to go to, and nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from diptych import tracing
from diptych.gateway.telemetry import FAULTS, Call

_HEADERS = ("traceparent", "tracestate")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Traces:
    """Starts the span of a call. All of OTEL_* holds: address, headers, sampler, names, limits."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        """
        Raises:
            ValueError: another protocol than gRPC is asked for.
        """
        for name in _PROTOCOLS:
            if (protocol := env.get(name, "grpc")) != "grpc":
                raise ValueError(f"{name} is {protocol!r}: spans are sent by grpc only")
        name = env.get("OTEL_SERVICE_NAME", "diptych")
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("diptych")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, call: Call, method: str) -> Traced | None:
        """The span of a call, in the trace its caller says; None where it is not sampled."""
        carrier = {name: value for name in _HEADERS if (value := call.header(name))}
        path = method.removeprefix("/")
        service, _, name = path.partition("/")
        span = self._tracer.start_span(
            path,
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        return Traced(self._tracer, span) if span.is_recording() else None

    def close(self) -> None:
        """Send what was not sent yet; takes as long as the receiver, ten seconds at most."""
        self._provider.shutdown()


class Traced:
    """A span that is open, and the way to those within it."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = trace.set_span_in_context(span)
        self._zero_ns = time.time_ns() - time.perf_counter_ns()
        self._batch: Link | None = None  # the newest that this one had an input in

    @property
    def trace_id(self) -> str:
        return format(self._span.get_span_context().trace_id, "032x")

    @property
    def traceparent(self) -> str:
        own = self._span.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def stage(self, name: str, began: float, ended: float) -> None:
        links = [self._batch] if name == "engine" and self._batch else []
        start, end = (self._zero_ns + round(when * 1e9) for when in (began, ended))
        span = self._tracer.start_span(name, self._context, links=links, start_time=start)
        span.end(max(start, end))

    @contextmanager
    def batch(
        self, others: Sequence[tracing.Span], name: str, facts: dict[str, int | str]
    ) -> Iterator[Traced]:
        members = [self, *(other for other in others if isinstance(other, Traced))]
        links = [Link(member._span.get_span_context()) for member in dict.fromkeys(members)]
        span = self._tracer.start_span(name, self._context, links=links, attributes=facts)
        for member in members:
            member._batch = Link(span.get_span_context())
        try:
            yield Traced(self._tracer, span)
        except BaseException as exc:  # its words may quote what was sent
            span.set_status(Status(StatusCode.ERROR, type(exc).__name__))
            raise
        finally:
            span.end()

    def end(self, code: str, number: int, call: Call) -> None:
        """The call has ended with this status."""
        sizes = {"request": call.request_bytes, "response": call.response_bytes}
        self._span.set_attributes({f"diptych.{name}_bytes": size for name, size in sizes.items()})
        self._span.set_attributes({f"diptych.{name}": fact for name, fact in call.facts.items()})
        self._span.set_attribute("diptych.request_id", call.request_id)
        self._span.set_attribute("rpc.grpc.status_code", number)
        if code in FAULTS:
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()
