"""Training progress in, a bar on a terminal and JSON lines in a file out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diptych_export.train import Step

_EVERY = 250  # steps between lines where nobody watches a bar


@contextmanager
def reporting(steps: int, log: Path, console: Console) -> Iterator[Callable[[Step], None]]:
    """Show each step on `console`, and write it as one line of JSON to `log`, replacing it."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as lines,
        Progress(*columns, console=console, disable=not console.is_terminal) as bars,
    ):
        bar = bars.add_task("training", total=steps, loss=float("nan"))

        def report(step: Step) -> None:
            lines.write(json.dumps(asdict(step)) + "\n")
            bars.update(bar, completed=step.number, loss=step.loss)
            if not console.is_terminal and step.number % _EVERY == 0:
                lines.flush()
                console.print(
                    f"step {step.number} of {steps}: loss {step.loss:.3f}, {step.seconds:.0f} s"
                )

        yield report
