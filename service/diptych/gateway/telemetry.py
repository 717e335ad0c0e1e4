"""What is known of the call that runs at present, for its log line and its span."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import cached_property
from random import getrandbits
from typing import TypeAlias

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
Fact: TypeAlias = str | int | float

# Statuses that are our fault, whatever the caller sent; as the promises of deploy/monitoring count.
FAULTS = frozenset({"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "UNKNOWN", "DATA_LOSS"})

# OpenTelemetry's own variables: with an address in one of them, calls are traced.
_ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_SANE_ID = re.compile(r"[A-Za-z0-9._:/=+-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Call:
    """One call. Holds nothing of what was sent: sizes and names of ours only."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self.request_bytes = 0
        self.response_bytes = 0
        self.facts: dict[str, Fact] = {}

    @cached_property
    def request_id(self) -> str:
        """The caller's own `x-request-id`, where that is a sane one; else one of ours."""
        given = self.header("x-request-id")
        return given if _SANE_ID.fullmatch(given) else f"{getrandbits(64):016x}"

    @cached_property
    def trace_id(self) -> str:
        """Of the trace that the caller says this call belongs to; or nothing."""
        found = _TRACEPARENT.fullmatch(self.header("traceparent"))
        return found[1] if found else ""

    def header(self, name: str) -> str:
        """The first value of this name; or nothing."""
        for key, value in self._metadata:
            if key == name and isinstance(value, str):
                return value
        return ""


# Set by the first of our interceptors. gRPC has a task for every call, in which its messages are
# parsed, its handler runs and its answers are written.
CALL: ContextVar[Call | None] = ContextVar("diptych_call", default=None)


def is_traced(env: Mapping[str, str] = os.environ) -> bool:
    """Whether there is somewhere to send traces to, and nobody has said not to."""
    is_off = env.get("OTEL_SDK_DISABLED", "").lower() == "true"
    is_off |= env.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    return not is_off and any(env.get(name) for name in _ADDRESSES)


def note(**facts: Fact) -> None:
    """Tell something of the call that runs at present: never anything that a caller sent."""
    if (call := CALL.get()) is not None:
        call.facts.update(facts)
