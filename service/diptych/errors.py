"""Everything that can go wrong on purpose.

DiptychError
├── BadInput              the caller can fix it; trying again will not help
├── NotFound              the caller named something this server does not have
├── SpaceMismatch         the caller expects vectors of another space
├── Overloaded            a bound is reached; trying again later will help
├── DeadlinePassed        the caller's time is up; the work was dropped
├── EngineError
│   ├── EngineUnavailable the engine is away, unhealthy or stopping
│   └── EngineFailed      the engine answered, with an error or with nonsense
├── BadRepository         the model repository cannot be served; start-up stops
├── BadData               data for a job or for training cannot be read
└── BadJob                a job cannot start, or not go on, where it is asked to

Names say what happened, never which protocol reports it: gateway/status.py
decides that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class DiptychError(Exception):
    """Base of all of the above. The message is safe to show to a caller."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field of a request."""

    field: str  # path in the request, with indexes: "inputs[3].image"
    problem: str  # what was wrong and what is allowed


class BadInput(DiptychError):
    """One or more inputs cannot be decoded, or break a documented limit."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.problem}" for v in violations))
        self.violations = tuple(violations)

    @classmethod
    def at(cls, field: str, problem: str) -> BadInput:
        return cls([Violation(field, problem)])

    def within(self, place: str) -> BadInput:
        """The same problems, of fields inside `place`: `text` becomes `inputs[3].text`."""
        return BadInput([Violation(f"{place}.{v.field}", v.problem) for v in self.violations])


class NotFound(DiptychError):
    """The model, label set, policy or profile named in a request is not served here."""


class SpaceMismatch(DiptychError):
    """The fingerprint a caller expects is not the one of the space served."""


class Overloaded(DiptychError):
    """Admitting this work would exceed a bound."""


class DeadlinePassed(DiptychError):
    """The caller's deadline passed before its work began."""


class EngineError(DiptychError):
    """Base for failures past the gateway."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached, is not ready, or is stopping."""

    def __init__(self, message: str, *, midway: bool = False) -> None:
        super().__init__(message)
        self.midway = midway  # it was well when it was given the work, and then it was not


class EngineFailed(EngineError):
    """The engine took the batch and failed it, or answered what cannot be right."""


class BadRepository(DiptychError):
    """A model repository is missing, incomplete, or disagrees with itself."""


class BadData(DiptychError):
    """A data set is missing, unreadable, or holds nothing that can be used."""

    def __init__(self, message: str, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged  # a file, from some place on, however often it is tried


class BadJob(DiptychError):
    """An offline job's destination belongs to another job, or cannot be written."""


@contextmanager
def one_reason() -> Iterator[None]:
    """Let the first error of a task group out alone: one caller gets one reason, of our kind."""
    try:
        yield
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
