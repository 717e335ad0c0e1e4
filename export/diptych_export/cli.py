"""`diptych-export …`: training and export, down to a verified model repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from diptych.contract import ModelSpec
from diptych.errors import DiptychError
from diptych_export import demo as demonstration
from diptych_export.errors import ExportError
from diptych_export.evaluate import Figures

app = cyclopts.App(
    name="diptych-export",
    help="Train or import a dual encoder, and export it to a model repository.",
)
# Found when they are asked for: torch takes seconds to import.
app.command("diptych_export.commands.train:train")
app.command("diptych_export.commands.evaluate:evaluate")
out = Console(highlight=False)
progress = Console(highlight=False, stderr=True)  # so that stdout is for results alone

AtLeastOne = Annotated[int, Parameter(validator=validators.Number(gte=1))]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object.")]


def main() -> None:
    """One clear line for whatever a user can mend, and never a traceback for it."""
    try:
        app()
    except (DiptychError, ExportError, OSError) as exc:
        sys.exit(f"diptych-export: {exc}")  # status 1
    except KeyboardInterrupt:
        sys.exit(130)


@app.command
def demo(
    *,
    repository: Path = Path("model_repository"),
    run: Path = Path("runs/shapes"),
    steps: AtLeastOne = demonstration.RECIPE.steps,
    seed: int = 0,
    scenes: AtLeastOne = demonstration.SCENES,
    evaluate: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw scenes, train the demonstration model `shapes` on them, export it, measure it.

    Takes about half an hour on two cores. The same seed draws the same scenes and starts from
    the same weights.

    Example: diptych-export demo --evaluate --json

    Parameters
    ----------
    repository
        Where the model is published, as one more version.
    run
        Folder for the checkpoint, in OpenCLIP's layout, and for metrics.jsonl.
    steps
        Batches to train on.
    seed
        Of scenes, captions and initial weights.
    scenes
        New ones, drawn for each figure.
    evaluate
        Only measure the newest `shapes` in the repository, as it is served.
    """
    if evaluate:
        spec, figures = demonstration.measure(repository, scenes)
    else:
        spec, figures = demonstration.demonstrate(
            repository, run, steps=steps, seed=seed, scenes=scenes, console=progress
        )
    _print_figures(spec, figures, as_json)


def _print_figures(spec: ModelSpec, figures: Figures, as_json: bool) -> None:
    found: dict[str, Any] = {
        "model": spec.name,
        "version": spec.version,
        "fingerprint": spec.fingerprint,
        **figures.as_dict(),
    }
    if as_json:
        print(json.dumps(found))  # noqa: T201 (rich would wrap it)
        return
    table = Table("figure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    out.print(table)
