"""Training steps in; a bar on a terminal, and the journal's files, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diptych_export.journal import Journal, draw_curves
from diptych_export.recipe import Step
from diptych_export.world import World

METRICS, CURVES = "metrics.jsonl", "curves.png"

_EVERY_S = 30.0  # between lines where nobody watches a bar


@contextmanager
def watching(
    folder: Path, steps: int, done: int, console: Console, world: World
) -> Iterator[Callable[[Step], None]]:
    """Show and record each step from `done` on; at the end, however it comes, draw the curves.

    Only the first process of `world` has anything to say.
    """
    if world.rank:
        yield lambda step: None
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    journal = Journal(folder, done)
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            bar = bars.add_task("training", total=steps, completed=done, loss=float("nan"))
            said = 0.0

            def show(step: Step) -> None:
                nonlocal said
                journal.write(step)
                bars.update(bar, completed=step.number, loss=step.loss)
                last = step.number == steps
                if not console.is_terminal and (last or step.seconds - said >= _EVERY_S):
                    said = step.seconds
                    console.print(
                        f"step {step.number} of {steps}: loss {step.loss:.3f}, {said:.0f} s"
                    )

            yield show
    finally:
        journal.close()
        draw_curves(folder / METRICS, folder / CURVES)
