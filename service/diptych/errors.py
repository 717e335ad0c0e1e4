"""Everything that can go wrong on purpose.

DiptychError
├── BadInput              the caller can fix it; trying again will not help
├── NotFound              the caller named something this server does not have
├── SpaceMismatch         the caller expects vectors of another space
├── Overloaded            a bound is reached; trying again later will help
├── Unidentified          the caller has not shown who it is
├── NotAllowed            the caller is known and has no right to this call
├── DeadlinePassed        the caller's time is up; the work was dropped
├── EngineError
│   ├── EngineUnavailable the engine is away, unhealthy or stopping
│   └── EngineFailed      the engine answered, with an error or with nonsense
├── BadRepository         the model repository cannot be served; start-up stops
├── BadAccess             a certificate, or the file of callers, cannot be used; likewise
├── BadData               data for a job or for training cannot be read
└── BadJob                a job cannot start, or not go on, where it is asked to

Names say what happened, never which protocol reports it: gateway/status.py
decides that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias


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


# Which bound: inputs or bytes inside, time before the deadline, the engine's own queue, a quota.
Bound: TypeAlias = Literal["no_room", "no_time", "engine_full", "over_quota"]


class Overloaded(DiptychError):
    """Admitting this work would exceed a bound."""

    def __init__(
        self, message: str, bound: Bound = "no_room", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.bound = bound
        self.retry_after_s = retry_after_s  # None: as usual


# Why: nothing was shown; what was shown is not known, or several things; it counts no longer.
Unknown: TypeAlias = Literal["no_credentials", "bad_credentials", "expired_credentials"]


class Unidentified(DiptychError):
    """The caller showed no key or certificate that counts."""

    def __init__(self, message: str, why: Unknown = "bad_credentials") -> None:
        super().__init__(message)
        self.why = why


class NotAllowed(DiptychError):
    """The caller is known, and has no right to the method it called."""


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


class BadAccess(DiptychError):
    """A certificate, its key, or the file of callers cannot be used."""


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
