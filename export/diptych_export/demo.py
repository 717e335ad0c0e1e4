"""The demonstration model `shapes`: drawn, trained, exported and measured by one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from diptych.contract import ModelSpec
from diptych_export.build import build
from diptych_export.data import shapes
from diptych_export.evaluate import NAME, Figures, measure
from diptych_export.pretrain import LESSONS, Keeping, pretrain
from diptych_export.settings import Settings
from diptych_export.sources.openclip import open_openclip
from diptych_export.triton_config import Placement

_EVERY = 500  # steps between checkpoints, minutes of work


def demonstrate(
    root: Path, run: Path, *, steps: int, seed: int, scenes: int, console: Console
) -> tuple[ModelSpec, Figures]:
    """Train a new `shapes` in the folder `run`, or go on there, and publish it in `root`.

    Raises:
        ExportError: nothing was published.
    """
    checkpoint = pretrain(recipe(steps, seed), Keeping(out=run, resume=True, every=_EVERY), console)
    command = f"diptych-export demo --steps {steps} --seed {seed}"
    source = replace(
        open_openclip(checkpoint, "Apache-2.0"), origin=f"trained from scratch by `{command}`"
    )
    console.print("exporting, and comparing with the model trained")
    build(source, NAME, root, Placement())
    return measure(root, scenes)


def recipe(steps: int, seed: int) -> Settings:
    """What the shipped model was trained with."""
    return Settings(
        model=NAME,
        data=(LESSONS,),
        steps=steps,
        batch=shapes.LESSON,
        loss="softmax",
        rate=2e-3,
        warmup=150,
        weight_decay=0.1,
        seed=seed,
    )
