"""A served model in, its figures on scenes it has never seen out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from diptych.contract import Matrix, ModelSpec
from diptych.repository import load
from diptych_export.data import captions
from diptych_export.data.drawing import picture
from diptych_export.data.scenes import HELD_OUT, OPPOSITE, PAIRS, Pair, Relation, Scene, one, two
from diptych_export.inference import Inference, opened

NAME = "shapes"  # of the demonstration model

_SIDES_PX = (64, 128, 224)  # of the pictures; serving reduces them to what the tower takes


@dataclass(frozen=True, slots=True)
class Share:
    """How many of so many scenes were answered rightly."""

    right: int
    scenes: int

    @property
    def value(self) -> float:
        return self.right / self.scenes


@dataclass(frozen=True, slots=True)
class Figures:
    """What the `shapes` demonstration is judged by. Pairs are of a colour and a shape."""

    held_out_pairs: Share  # one thing of a pair never trained on; all pairs' captions compete
    seen_pairs: Share  # the same with pairs trained on, for comparison
    two_objects: Share  # own caption first of all; each scene's mirror image competes
    left_right: Share  # own caption above the one with the relation reversed
    above_below: Share

    def as_dict(self) -> dict[str, float | int]:
        """Flat, for JSON: figures first, then the scenes behind each."""
        return {
            "held_out_pairs_top1": self.held_out_pairs.value,
            "seen_pairs_top1": self.seen_pairs.value,
            "two_object_recall_at_1": self.two_objects.value,
            "left_right_accuracy": self.left_right.value,
            "above_below_accuracy": self.above_below.value,
            "candidate_pairs": len(PAIRS),
            "held_out_pairs": len(HELD_OUT),
            "held_out_scenes": self.held_out_pairs.scenes,
            "seen_scenes": self.seen_pairs.scenes,
            "two_object_scenes": self.two_objects.scenes,
            "left_right_scenes": self.left_right.scenes,
            "above_below_scenes": self.above_below.scenes,
        }


def measure(root: Path, scenes: int) -> tuple[ModelSpec, Figures]:
    """Evaluate the newest demonstration model in `root` as it is served; no torch is needed.

    Raises:
        DiptychError: there is none, or it cannot be served.
    """
    return asyncio.run(_measure(root, scenes))


async def _measure(root: Path, scenes: int) -> tuple[ModelSpec, Figures]:
    files = load(root, NAME)
    async with opened(files) as model:
        return files.spec, await evaluate(model, scenes, seed=0)


async def evaluate(model: Inference, scenes: int, seed: int) -> Figures:
    """Judge `model` by `scenes` new scenes for each figure, drawn from `seed`."""
    seen = sorted(set(PAIRS) - HELD_OUT)
    return Figures(
        held_out_pairs=await _zero_shot(model, sorted(HELD_OUT), scenes, seed),
        seen_pairs=await _zero_shot(model, seen, scenes, seed),
        two_objects=await _recall(model, scenes, seed),
        left_right=await _either(model, "left", scenes, seed),
        above_below=await _either(model, "above", scenes, seed),
    )


async def _zero_shot(model: Inference, pairs: Sequence[Pair], scenes: int, seed: int) -> Share:
    """Scenes of one thing against the captions of all pairs."""
    rng = Random(f"evaluate/one/{seed}")
    shown = [pairs[number % len(pairs)] for number in range(scenes)]
    images = await _images(model, [one(rng, pair) for pair in shown], rng)
    labels = await model.texts([captions.plain(pair) for pair in PAIRS])
    own = np.array([PAIRS.index(pair) for pair in shown])
    return _share((images @ labels.T).argmax(axis=1) == own)


async def _recall(model: Inference, scenes: int, seed: int) -> Share:
    """Scenes of two things against the captions of all of them, mirrored scenes included."""
    rng = Random(f"evaluate/two/{seed}")
    shown: list[Scene] = []
    while len(shown) < scenes:
        first, second = rng.sample(PAIRS, 2)
        relation: Relation = rng.choice(("left", "above"))
        shown += [two(rng, first, second, relation), two(rng, second, first, relation)]
    images = await _images(model, shown[:scenes], rng)
    texts = await model.texts([captions.stated(scene) for scene in shown[:scenes]])
    # By caption, not by number: chance may draw the same two things twice.
    best = (images @ texts.T).argmax(axis=1)
    said = [captions.stated(scene) for scene in shown[:scenes]]
    return _share(np.array([said[row] == said[column] for row, column in enumerate(best)]))


async def _either(model: Inference, relation: Relation, scenes: int, seed: int) -> Share:
    """Scenes of two things, each against its own caption and the one that says the reverse."""
    rng = Random(f"evaluate/{relation}/{seed}")
    shown = []
    for _ in range(scenes):
        first, second = rng.sample(PAIRS, 2)
        shown.append(two(rng, first, second, rng.choice((relation, OPPOSITE[relation]))))
    images = await _images(model, shown, rng)
    right = await model.texts([captions.stated(scene) for scene in shown])
    wrong = await model.texts([captions.stated(scene, reverse=True) for scene in shown])
    return _share((images * right).sum(axis=1) > (images * wrong).sum(axis=1))


async def _images(model: Inference, scenes: Sequence[Scene], rng: Random) -> Matrix:
    return await model.images([_png(scene, rng.choice(_SIDES_PX)) for scene in scenes])


def _png(scene: Scene, side_px: int) -> bytes:
    file = io.BytesIO()
    picture(scene, side_px).save(file, "PNG")
    return file.getvalue()


def _share(right: npt.NDArray[np.bool_]) -> Share:
    return Share(int(right.sum()), len(right))
