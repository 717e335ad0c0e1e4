"""Batches in, trained towers out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from diptych_export import loss
from diptych_export.caching import backward
from diptych_export.data.batches import Batch
from diptych_export.errors import BadRun
from diptych_export.learner import Learner
from diptych_export.recipe import Recipe, Step, groups, rate_at
from diptych_export.world import World


@dataclass(frozen=True, slots=True)
class Means:
    """What a step is computed with. Nothing here changes what is learned, but for `bf16`."""

    world: World = field(default_factory=World)
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    chunks: int = 1  # of a batch on this process; more take less memory and one more encoding
    bf16: bool = False  # towers multiply in bfloat16
    spool: Path | None = None  # where inputs wait for their second encoding; None: system's own


class Trainer:
    """A learner, its optimiser, and how far they have come."""

    def __init__(self, learner: Learner, recipe: Recipe, means: Means) -> None:
        self.learner = learner
        self.done = 0  # steps
        self.seconds = 0.0  # since the first step began, pauses between runs left out
        self._recipe = recipe
        self._means = means
        self._parameters = learner.parameters
        self._optimiser = torch.optim.AdamW(
            groups(learner.model, recipe.weight_decay), lr=recipe.rate, betas=(0.9, 0.98), eps=1e-6
        )

    def step(self, batches: Iterator[Batch]) -> Step:
        """Learn from the next `means.chunks` of `batches`, and from everybody else's.

        Raises:
            BadRun: the loss or its gradient is no number; weights are as they were.
        """
        began = time.monotonic()
        rate = rate_at(self.done, self._recipe)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        value, accuracy = self.gradients(batches)
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self._recipe.clip_norm)
        if not (math.isfinite(value) and torch.isfinite(norm)):
            said = f"loss {value:g}, gradient {norm.item():g}"
            raise BadRun(f"step {self.done + 1}: {said}; try a lower --rate, or --precision fp32")
        self._optimiser.step()
        if self.learner.score == "softmax":
            loss.clamp_scale(self.learner.model.logit_scale)
        self.done += 1
        self.seconds += time.monotonic() - began
        return Step(
            number=self.done,
            loss=value,
            accuracy=accuracy,
            scale=self.learner.model.logit_scale.exp().item(),
            rate=rate,
            gradient_norm=norm.item(),
            seconds=self.seconds,
        )

    def gradients(self, batches: Iterator[Batch]) -> tuple[float, float]:
        """Add the gradient over the joint batch to all parameters; answer loss and accuracy."""
        learner, means = self.learner, self._means
        share = backward(
            learner.model,
            partial(learner.encode, device=means.device, bf16=means.bf16),
            map(learner.chunk, batches),
            means.chunks,
            partial(learner.contrast, world=means.world),
            means.spool,
        )
        learner.add_scale_gradients(share)
        means.world.add_gradients(self._parameters.values())
        pairs = len(share.images) * means.world.size
        right = torch.tensor(float(share.right), device=means.device)
        value, right = means.world.total(torch.stack([share.loss, right])).tolist()
        return value, right / pairs

    def tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on, but for data and randomness: by kind and name."""
        found = {f"model/{name}": value for name, value in self.learner.model.state_dict().items()}
        for name, parameter in self._parameters.items():
            for kind, value in self._optimiser.state[parameter].items():
                found[f"{kind}/{name}"] = value
        return found

    def restore(self, tensors: dict[str, Tensor], done: int, seconds: float) -> None:
        """Go on from `tensors` as if never stopped."""
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, name = key.split("/", 1)
            kinds.setdefault(kind, {})[name] = value
        self.learner.model.load_state_dict(kinds.pop("model"))
        for kind, values in kinds.items():
            for name, value in values.items():
                # The count of steps stays where AdamW wants it, on the CPU.
                place = value if kind == "step" else value.to(self._means.device)
                self._optimiser.state[self._parameters[name]][kind] = place
        self.done, self.seconds = done, seconds
