"""One step after another, whatever a batch is made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from diptych_export import loss
from diptych_export.data import shapes
from diptych_export.data.batches import Batch
from diptych_export.data.scene_chunks import Lessons, SceneChunks
from diptych_export.errors import BadRun
from diptych_export.learner import Learner
from diptych_export.recipe import Recipe, Step
from diptych_export.trainer import Means, Trainer
from tests.export import tiny
from tests.export.train.towers import distance

RECIPE = Recipe(steps=30, rate=2e-3, warmup=5, weight_decay=0.1, clip_norm=1.0)
CPU = torch.device("cpu")


def trained(seed: int = 0) -> tuple[Learner, list[Step]]:
    learner = tiny.learner(seed)
    trainer, scenes = Trainer(learner, RECIPE, Means()), SceneChunks(24, seed, alone=30)
    return learner, [trainer.step(scenes) for _ in range(RECIPE.steps)]


@pytest.fixture(scope="module")
def run() -> tuple[Learner, list[Step]]:
    return trained()


def lesson() -> Batch:
    return next(Lessons(0, side_px=tiny.TINY.image_size, alone=1))


def parts(batch: Batch) -> list[Batch]:
    """Its groups as batches of their own."""
    starts = np.cumsum([0, *batch.groups])
    return [Batch(batch.pixels[a:b], batch.texts[a:b]) for a, b in itertools.pairwise(starts)]


def gradients(
    batches: Sequence[Batch], score: str = "softmax"
) -> tuple[float, float, dict[str, Tensor]]:
    """Loss, accuracy, and the gradient by name, as a training step computes them."""
    learner = scored(score)
    trainer = Trainer(learner, RECIPE, Means(chunks=len(batches)))
    value, accuracy = trainer.gradients(iter(batches))
    return value, accuracy, of(learner)


def scored(score: str) -> Learner:
    learner = tiny.learner()
    if score == "softmax":
        return learner
    learner.model.logit_bias = torch.nn.Parameter(torch.tensor(-3.0))
    return Learner(learner.model, learner.tokenizer, learner.image, learner.text, "sigmoid")


def of(learner: Learner) -> dict[str, Tensor]:
    """But for key biases, whose gradient is rounding noise around zero."""
    return {
        name: parameter.grad
        for name, parameter in learner.parameters.items()
        if parameter.grad is not None and not name.endswith("k_proj.bias")
    }


def plain(learner: Learner, batch: Batch) -> Tensor:
    """The loss of one group by the papers' formulas, in one graph."""
    images, texts = learner.encode(learner.chunk(batch), CPU, bf16=False)
    scale = learner.model.logit_scale
    if learner.score == "softmax":
        return loss.softmax(images, texts, scale)
    return loss.sigmoid(images, texts, scale, learner.model.logit_bias)


def test_a_few_steps_already_help(run: tuple[Learner, list[Step]]) -> None:
    _, log = run
    assert [step.number for step in log] == list(range(1, 31))
    first, last = (sum(step.loss for step in part) / 5 for part in (log[:5], log[-5:]))
    assert last < first - 0.3
    assert all(0 <= step.accuracy <= 1 and step.scale <= loss.MAX_SCALE for step in log)


def test_the_same_seed_trains_the_same_weights(run: tuple[Learner, list[Step]]) -> None:
    again, _ = trained()
    for name, weights in run[0].model.state_dict().items():
        found = again.model.state_dict()[name]
        torch.testing.assert_close(found, weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_groups_of_a_batch_are_contrasted_apart(score: str) -> None:
    """Loss and gradients are the means of the groups', which share no negatives."""
    batch = lesson()
    assert len(batch.groups) > 2
    learner = scored(score)
    losses = [len(part.texts) * plain(learner, part) for part in parts(batch)]
    expected = torch.stack(losses).sum() / len(batch.texts)
    expected.backward()

    value, accuracy, found = gradients([batch], score)
    assert value == pytest.approx(expected.item(), rel=1e-6)
    assert found.keys() == of(learner).keys()
    for name, gradient in of(learner).items():
        assert distance(found[name], gradient) < 1e-5, name
    each = [gradients([part], score)[1] for part in parts(batch)]
    assert accuracy == pytest.approx(np.average(each, weights=batch.groups))


def test_groups_may_be_spread_over_the_chunks_of_a_batch() -> None:
    """A chunk holds whole groups; cached, they teach what they teach at once."""
    batch = lesson()
    half = len(batch.groups) // 2
    cut = sum(batch.groups[:half])
    chunks = [
        Batch(batch.pixels[:cut], batch.texts[:cut], batch.groups[:half]),
        Batch(batch.pixels[cut:], batch.texts[cut:], batch.groups[half:]),
    ]
    value, accuracy, expected = gradients([batch])
    again, likewise, found = gradients(chunks)
    assert again == pytest.approx(value, rel=1e-6)
    assert likewise == accuracy
    for name, gradient in expected.items():
        assert distance(found[name], gradient) < 1e-5, name


def test_our_loss_is_the_one_transformers_computes() -> None:
    learner = tiny.learner()
    batch = next(SceneChunks(8, 0, alone=0))
    ids = learner.tokenizer(batch.texts, padding=True, return_tensors="pt").input_ids
    images = tiny.processor().image_processor(list(batch.pixels), return_tensors="pt")
    expected = learner.model(input_ids=ids, **images, return_loss=True).loss
    assert gradients([batch])[0] == pytest.approx(expected.item(), rel=1e-6)


def test_bfloat16_comes_close_and_leaves_weights_in_float32() -> None:
    batch = next(SceneChunks(shapes.LESSON, 0, alone=0))
    value, _, expected = gradients([batch])
    learner = tiny.learner()
    trainer = Trainer(learner, RECIPE, Means(bf16=True))
    assert trainer.gradients(iter([batch]))[0] == pytest.approx(value, rel=1e-2)
    assert {p.dtype for p in learner.parameters.values()} == {torch.float32}
    found = of(learner)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    both = [torch.cat([own[name].flatten() for name in expected]) for own in (found, expected)]
    assert 0 < distance(*both) < 0.1


def test_what_is_no_number_stops_the_run_before_it_reaches_the_weights() -> None:
    learner = tiny.learner()
    with torch.no_grad():
        learner.model.visual_projection.weight[0, 0] = float("inf")
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    trainer = Trainer(learner, RECIPE, Means())
    with pytest.raises(BadRun, match="step 1: loss nan, gradient nan; try a lower --rate"):
        trainer.step(SceneChunks(8, 0, alone=0))
    assert trainer.done == 0
    assert all(value.equal(before[name]) for name, value in learner.model.state_dict().items())


def test_the_scale_is_clamped_after_each_step() -> None:
    learner = tiny.learner()
    with torch.no_grad():
        learner.model.logit_scale.fill_(5.0)
    step = Trainer(learner, RECIPE, Means()).step(SceneChunks(8, 0, alone=0))
    assert step.scale == pytest.approx(loss.MAX_SCALE)
