"""Where a call's time went, for whoever traces it; nothing, and for nothing, where nobody does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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

_NOBODYS = nullcontext()


class Owners:
    """Whose the items are that wait for a batch, or are in one: those of traced calls."""

    def __init__(self) -> None:
        self._spans: dict[int, Span] = {}  # by the item's id

    def owning(self, item: object) -> AbstractContextManager[None]:
        """Within this, `item` is of the call that runs at present."""
        return _NOBODYS if (span := SPAN.get()) is None else self._owned(item, span)

    def of(self, batch: Sequence[object]) -> list[Span]:
        """Of all items that have one."""
        if not self._spans:
            return []
        return [self._spans[id(item)] for item in batch if id(item) in self._spans]

    @contextmanager
    def _owned(self, item: object, span: Span) -> Iterator[None]:
        self._spans[id(item)] = span
        try:
            yield
        finally:
            self._spans.pop(id(item), None)


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
