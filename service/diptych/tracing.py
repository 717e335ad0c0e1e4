"""Where a call's time went, for whoever traces it; nothing, and for nothing, where nobody does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol


class Span(Protocol):
    """A call that is being traced, or a batch with inputs of some.

    Implemented by `gateway.tracing`, the only one that knows OpenTelemetry.
    """

    @property
    def traceparent(self) -> str:
        """W3C's header, for whoever is asked next."""
        ...

    def stage(self, name: str, began: float, ended: float) -> None:
        """Something within it that is over; times of `time.perf_counter`."""
        ...

    def batch(
        self, others: Sequence[Span], name: str, facts: dict[str, int | str]
    ) -> AbstractContextManager[Span]:
        """Work that is done for this one and these others together."""
        ...


# Of what runs at present; None where it is not traced.
SPAN: ContextVar[Span | None] = ContextVar("diptych_span", default=None)


@contextmanager
def batched(spans: Sequence[Span], name: str, facts: dict[str, int | str]) -> Iterator[None]:
    """Within this, work is done for all of these at once; for none of them is as good."""
    if not spans:
        yield
        return
    with spans[0].batch(spans[1:], name, facts) as span:
        token = SPAN.set(span)
        try:
            yield
        finally:
            SPAN.reset(token)


def headers() -> tuple[tuple[str, str], ...] | None:
    """The metadata of a call to another server, made for what is traced at present."""
    return None if (span := SPAN.get()) is None else (("traceparent", span.traceparent),)
