"""Inputs under which batches failed or the engine died, remembered by content."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MAX = 1024  # the one longest without a new reason is forgotten first
_DEATHS = 2  # while it ran alone, with no answer between: once may be an accident of another kind
_REFUSED_S = 600.0  # then it is tried again: the fault may have been mended


@dataclass(frozen=True, slots=True)
class _Past:
    deaths: int  # of the engine, while it worked on this input alone
    at: float  # of the clock, when it was last suspected


class Suspects:
    """What must not run with neighbours, and what must not run at all.

    An input that fails alone, where its neighbours do not, runs alone from then on. When the
    engine dies, every input it was working on is suspected and runs alone next time; one under
    which it then dies again, alone, is refused. An answer clears an input of everything.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, _Past] = {}  # in the order they were last suspected

    def __bool__(self) -> bool:
        """Whether there are any: nearly never, and then no digest needs to be made."""
        return bool(self._known)

    def __contains__(self, digest: bytes) -> bool:
        """Whether this input has to run alone."""
        return digest in self._known

    def is_refused(self, digest: bytes) -> bool:
        past = self._known.get(digest)
        if past is None or past.deaths < _DEATHS:
            return False
        return self._clock() - past.at < _REFUSED_S

    def failed(self, digest: bytes) -> None:
        """It got an error for an answer, alone."""
        self._suspect(digest, 0)

    def engine_died(self, digests: Sequence[bytes]) -> None:
        """The engine went away while it worked on these together, or on the only one."""
        for digest in digests:
            self._suspect(digest, 1 if len(digests) == 1 else 0)

    def answered(self, digest: bytes) -> None:
        self._known.pop(digest, None)

    def _suspect(self, digest: bytes, deaths: int) -> None:
        past = self._known.pop(digest, None)
        self._known[digest] = _Past((past.deaths if past else 0) + deaths, self._clock())
        if len(self._known) > _MAX:
            del self._known[next(iter(self._known))]
