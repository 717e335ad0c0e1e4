"""What a person sees while a job runs: how many, how fast, how long still, how many rejected."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from diptych.job.destination import Standing
from diptych.job.launch import Counts

_EVERY_S = 30.0  # between lines where no terminal is attached


class Progress:
    """One line, written over on a terminal; elsewhere a line now and then."""

    def __init__(self, before: Standing, console: Console) -> None:
        self._done_before = before.ok + before.rejected
        self._inputs = before.inputs
        self._console = console
        self._started = self._shown = time.monotonic()

    def show(self, counts: Counts) -> None:
        ok, rejected = counts.totals()
        now = time.monotonic()
        if self._console.is_terminal:
            line = self.line(ok, rejected, now - self._started)
            self._console.print(f"\r{line}", end="\x1b[K", markup=False)
        elif now - self._shown >= _EVERY_S:
            self._shown = now
            self._console.print(self.line(ok, rejected, now - self._started), markup=False)

    def line(self, ok: int, rejected: int, elapsed_s: float) -> str:
        """Of this run: `ok` and `rejected` so far, in `elapsed_s`."""
        done = self._done_before + ok + rejected
        rate = (ok + rejected) / elapsed_s if elapsed_s > 0 else 0.0
        of_all = "" if self._inputs is None else f" of {self._inputs:,}"
        left = ""
        if self._inputs is not None and rate > 0:
            left = f", {_duration(max(self._inputs - done, 0) / rate)} left"
        return f"{done:,}{of_all} inputs, {rate:,.0f}/s, {rejected:,} rejected{left}"

    def end(self) -> None:
        if self._console.is_terminal:
            self._console.print()

    def pace(self, found: Standing) -> dict[str, Any]:
        """Of this run, for its summary."""
        elapsed_s = time.monotonic() - self._started
        done = found.ok + found.rejected - self._done_before
        return {
            "embedded_now": done,
            "seconds": round(elapsed_s, 1),
            "per_second": round(done / elapsed_s, 1),
        }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
