"""What a person sees while a job runs: how many, how fast, how long still, how many rejected."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from diptych.job.destination import Standing, standing
from diptych.job.launch import Totals

_EVERY_S = 30.0  # between lines where no terminal is attached
_GUESS_EVERY_S = 10.0  # where only parts that are done tell how many inputs there may be


class Progress:
    """One line, written over on a terminal; elsewhere a line now and then."""

    def __init__(self, destination: Path, console: Console) -> None:
        self._destination = destination
        self._console = console
        self._before = standing(destination)
        self._known = self._before
        self._started = self._shown = self._guessed = time.monotonic()

    def show(self, counts: Totals) -> None:
        """Called now and then, from one thread."""
        now = time.monotonic()
        if self._known.inputs is None and now - self._guessed >= _GUESS_EVERY_S:
            self._guessed = now
            self._known = standing(self._destination)
        if self._console.is_terminal:
            line = self._line(*counts.totals(), now - self._started)
            self._console.file.write(f"\r{line}\x1b[K")  # rich would drop the carriage return
            self._console.file.flush()
        elif now - self._shown >= _EVERY_S:
            self._shown = now
            line = self._line(*counts.totals(), now - self._started)
            self._console.print(line, markup=False)

    def end(self) -> None:
        """Called when the work has ended."""
        if self._console.is_terminal:
            self._console.print()

    def pace(self, found: Standing) -> dict[str, Any]:
        """Of this run, for its summary."""
        elapsed_s = time.monotonic() - self._started
        done = found.ok + found.rejected - self._before.ok - self._before.rejected
        return {
            "embedded_now": done,
            "seconds": round(elapsed_s, 1),
            "per_second": round(done / elapsed_s, 1),
        }

    def _line(self, ok: int, rejected: int, elapsed_s: float) -> str:
        return progress_line(self._before, self._known, ok, rejected, elapsed_s)


def progress_line(
    before: Standing, known: Standing, ok: int, rejected: int, elapsed_s: float
) -> str:
    """Of a run that began at `before` and has added `ok` and `rejected` inputs since."""
    now = ok + rejected
    done, rate = before.ok + before.rejected + now, now / max(elapsed_s, 1e-9)
    line = f"{done:,}"
    if known.about is not None:
        line += f" of {'' if known.inputs is not None else 'about '}{known.about:,}"
    line += f" inputs, {rate:,.0f}/s, {before.rejected + rejected:,} rejected"
    if known.about is not None and now:
        line += f", {_duration(max(known.about - done, 0) / rate)} left"
    return line


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
