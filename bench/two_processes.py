"""Whether processes that train together compute what one would on the joint batch.

    torchrun --nproc-per-node 2 -m bench.two_processes

Each process encodes its own scenes, in chunks and with gradient caching; one of them then does
the whole batch at once, with the loss as the paper states it and plain backpropagation.
Prints the largest relative difference of any parameter's gradient; status 1 above 1e-5.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from torch import Tensor

from diptych_export import loss
from diptych_export.data import shapes
from diptych_export.data.scene_chunks import SceneChunks
from diptych_export.learner import Learner, Score
from diptych_export.recipe import Recipe
from diptych_export.starting import begun, learned_tokenizer, understood
from diptych_export.trainer import Means, Trainer
from diptych_export.world import World, joined

LIMIT = 1e-5  # relative
SEED = 0
SCORES: tuple[Score, ...] = ("softmax", "sigmoid")
RECIPE = Recipe(steps=1, rate=1e-3, warmup=1, weight_decay=0.1, clip_norm=1.0)  # of no matter


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--pairs", type=int, default=64, help="in the joint batch")
    reader.add_argument("--chunks", type=int, default=2, help="of a process's part")
    reader.add_argument("--json", action="store_true", help="one JSON object per loss")
    options = reader.parse_args()
    worst = 0.0
    with joined("cpu") as (world, _):
        for score in SCORES:
            found = together(score, options.pairs, options.chunks, world)
            if world.rank == 0:
                differences = compared(found, alone(score, options.pairs))
                worst = max(worst, *differences.values())
                show(score, options, world, differences)
    sys.exit(worst > LIMIT)


def fresh(score: Score) -> Learner:
    """The same everywhere."""
    plan = understood("tiny")
    tokenizer = learned_tokenizer(plan, shapes.texts(SEED, 1000))
    torch.manual_seed(SEED)
    return begun(plan, tokenizer, score)


def together(score: Score, pairs: int, chunks: int, world: World) -> dict[str, Tensor]:
    """The loss and its gradients, as a training step computes them; the same on every process."""
    learner = fresh(score)
    trainer = Trainer(learner, RECIPE, Means(world=world, chunks=chunks))
    scenes = SceneChunks(
        pairs, SEED, side_px=learner.image.size, alone=0, chunks=chunks, world=world
    )
    value, _ = trainer.gradients(scenes)
    return {"loss": torch.tensor(value), **gradients(learner)}


def alone(score: Score, pairs: int) -> dict[str, Tensor]:
    """The same by plain backpropagation through one graph."""
    learner = fresh(score)
    batch = next(SceneChunks(pairs, SEED, side_px=learner.image.size, alone=0))
    images, texts = learner.encode(learner.chunk(batch), torch.device("cpu"), bf16=False)
    scale: Any = learner.model.logit_scale
    if score == "softmax":
        value = loss.softmax(images, texts, scale)
    else:
        value = loss.sigmoid(images, texts, scale, learner.model.logit_bias)
    value.backward()
    return {"loss": value.detach(), **gradients(learner)}


def gradients(learner: Learner) -> dict[str, Tensor]:
    """By name, but for key biases: a softmax ignores what is added to all keys alike, and so
    their gradient is rounding noise around zero."""
    return {
        name: parameter.grad
        for name, parameter in learner.parameters.items()
        if parameter.grad is not None and not name.endswith("k_proj.bias")
    }


def compared(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Relative differences, by name."""
    assert found.keys() == expected.keys()
    return {
        name: float((found[name] - value).norm() / value.norm()) for name, value in expected.items()
    }


def show(
    score: Score, options: argparse.Namespace, world: World, differences: dict[str, float]
) -> None:
    name = max(differences, key=lambda name: differences[name])
    facts = {
        "loss": score,
        "processes": world.size,
        "pairs": options.pairs,
        "chunks": options.chunks,
        "parameters": len(differences) - 1,
        "loss_difference": differences["loss"],
        "largest_difference": differences[name],
        "at": name,
    }
    if options.json:
        print(json.dumps(facts))
        return
    if score == SCORES[0]:
        print("loss     processes  chunks  pairs  loss differs  gradients differ, at most")
    print(
        f"{score:7} {world.size:10} {options.chunks:7} {options.pairs:6} "
        f"{differences['loss']:13.1e}  {differences[name]:.1e} of {len(differences) - 1}, in {name}"
    )


if __name__ == "__main__":
    main()
