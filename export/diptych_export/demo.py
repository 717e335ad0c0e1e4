"""The demonstration model `shapes`: drawn, trained, exported and measured by one command."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from diptych import repository
from diptych.contract import ModelSpec
from diptych_export import layouts
from diptych_export.build import build
from diptych_export.data import shapes, vocabulary
from diptych_export.evaluate import Figures, evaluate
from diptych_export.inference import opened
from diptych_export.progress import reporting
from diptych_export.sources.openclip import open_openclip
from diptych_export.starting import begun, understood
from diptych_export.train import Recipe, train
from diptych_export.triton_config import Placement

NAME = "shapes"
ALONE = 1 / 3  # of the steps: one thing a scene
SCENES = 1000  # for each figure
CAPTIONS = 20_000  # for the tokenizer
RECIPE = Recipe()


def demonstrate(
    root: Path, run: Path, *, steps: int, seed: int, scenes: int, console: Console
) -> tuple[ModelSpec, Figures]:
    """Train a new `shapes` and publish it in `root`; checkpoint and log are kept in `run`.

    Raises:
        ExportError: nothing was published.
    """
    recipe = replace(RECIPE, steps=steps)
    plan = understood(NAME)
    tokenizer = vocabulary.learn(shapes.texts(seed, CAPTIONS), plan.context_length)
    torch.manual_seed(seed)
    learner = begun(plan, tokenizer, "softmax")
    lessons = shapes.lessons(seed, alone=round(ALONE * steps))
    with reporting(steps, run / "metrics.jsonl", console) as report:
        train(learner.model, tokenizer, lessons, recipe, report)
    (run / "checkpoint").mkdir(parents=True, exist_ok=True)
    layouts.write(learner, run / "checkpoint")
    command = f"diptych-export demo --steps {steps} --seed {seed}"
    source = replace(
        open_openclip(run / "checkpoint", "Apache-2.0"),
        origin=f"trained from scratch by `{command}`",
    )
    console.print("exporting, and comparing with the model trained")
    spec = build(source, NAME, root, Placement())
    return spec, measure(root, scenes)[1]


def measure(root: Path, scenes: int) -> tuple[ModelSpec, Figures]:
    """Evaluate the newest `shapes` in `root` as it is served; no torch is needed.

    Raises:
        DiptychError: there is none, or it cannot be served.
    """
    return asyncio.run(_measure(root, scenes))


async def _measure(root: Path, scenes: int) -> tuple[ModelSpec, Figures]:
    files = repository.load(root, NAME)
    async with opened(files) as model:
        return files.spec, await evaluate(model, scenes, seed=0)
