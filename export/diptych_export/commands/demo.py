"""`diptych-export demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Column, Table

from diptych.contract import ModelSpec
from diptych_export.evaluate import Figures, measure

out = Console(highlight=False)
progress = Console(highlight=False, stderr=True)  # so that stdout is for results alone

STEPS = 4500  # that the shipped model was trained for
SCENES = 1000  # for each figure

AtLeastOne = Annotated[int, Parameter(validator=validators.Number(gte=1))]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object.")]


def demo(
    *,
    repository: Path = Path("model_repository"),
    run: Path = Path("runs/shapes"),
    steps: AtLeastOne = STEPS,
    seed: int = 0,
    scenes: AtLeastOne = SCENES,
    evaluate: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw scenes, train the demonstration model `shapes` on them, export it, measure it.

    Takes about 20 minutes on two cores. The same seed draws the same scenes and starts from the
    same weights. Interrupted, it goes on where it was.

    Example: diptych-export demo --evaluate --json

    Parameters
    ----------
    repository
        Where the model is published, as one more version.
    run
        Folder of the run: checkpoints, in OpenCLIP's layout, metrics.jsonl and curves.png.
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
        _print(*measure(repository, scenes), as_json=as_json)
        return
    from diptych_export.demo import demonstrate  # torch takes seconds to import

    found = demonstrate(repository, run, steps=steps, seed=seed, scenes=scenes, console=progress)
    _print(*found, as_json=as_json)


def _print(spec: ModelSpec, figures: Figures, *, as_json: bool) -> None:
    found: dict[str, Any] = {
        "model": spec.name,
        "version": spec.version,
        "fingerprint": spec.fingerprint,
        **figures.as_dict(),
    }
    if as_json:
        print(json.dumps(found))  # noqa: T201 (rich would wrap it)
        return
    table = Table("figure", Column("value", overflow="fold"))
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    out.print(table)
