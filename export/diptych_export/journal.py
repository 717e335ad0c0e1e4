"""Steps in, files for people and programs out: JSON lines, TensorBoard, a picture of the curves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

from diptych_export.recipe import Step

_CURVES = (  # field, title, whether its axis is logarithmic
    ("loss", "loss", True),
    ("accuracy", "accuracy within the batch", False),
    ("scale", "logit scale", False),
    ("rate", "learning rate", False),
    ("gradient_norm", "gradient norm, before clipping", True),
)
_POINTS = 2000  # of a curve in the picture


class Journal:
    """The record of a run in `folder`: metrics.jsonl and tensorboard/.

    Taken up after step `after`, what was recorded behind it is cut off: those steps come again.
    """

    def __init__(self, folder: Path, after: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        kept = [line for line in _lines(self._path) if line["number"] <= after] if after else []
        self._file: IO[str] = self._path.open("w", encoding="utf-8")
        for line in kept:
            self._file.write(json.dumps(line) + "\n")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)

    def write(self, step: Step) -> None:
        """At once on its way to disk: a killed run is to be understood."""
        record = asdict(step)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        number = record.pop("number")
        for name, value in record.items():
            self._board.add_scalar(f"training/{name}", value, number)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def draw_curves(metrics: Path, picture: Path) -> None:
    """Every curve of a metrics.jsonl over its steps, as a PNG."""
    steps = list(_lines(metrics))
    steps = steps[:: -(-len(steps) // _POINTS) or 1]
    figure = Figure(figsize=(12, 6), layout="constrained")
    for place, (field, title, logarithmic) in enumerate(_CURVES, start=1):
        axes = figure.add_subplot(2, 3, place)
        _draw(axes, [step["number"] for step in steps], [step[field] for step in steps])
        axes.set_title(title)
        axes.set_xlabel("step")
        if logarithmic and all(step[field] > 0 for step in steps):
            axes.set_yscale("log")
    figure.savefig(picture, format="png", dpi=110)


def _draw(axes: Axes, numbers: Sequence[int], values: Sequence[float]) -> None:
    """The values, and over many of them their running mean."""
    many = len(values) >= 100
    axes.plot(numbers, values, color="#4477aa", alpha=0.35 if many else 1.0, linewidth=1)
    if many:
        mean, smooth = values[0], []
        for value in values:
            mean += 0.03 * (value - mean)
            smooth.append(mean)
        axes.plot(numbers, smooth, color="#4477aa", linewidth=1.5)
    axes.grid(alpha=0.3)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; a kill may have cut the last one short."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("}\n"):
                return
            yield json.loads(line)
