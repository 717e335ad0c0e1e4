from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import CLIPModel, CLIPProcessor

from diptych_export import checkpoint, loss
from diptych_export.data import shapes
from diptych_export.data.batches import Batch
from diptych_export.dual import MEAN, STD, normalised, unit_images, unit_texts
from diptych_export.errors import BadCheckpoint
from diptych_export.progress import reporting
from diptych_export.train import Recipe, Step, groups, rate_at, train
from tests.export import tiny

RECIPE = Recipe(steps=30, warmup=5, rate=2e-3)


def trained(seed: int = 0) -> tuple[CLIPModel, list[Step]]:
    model, log = tiny.model(seed), list[Step]()
    train(model, tiny.tokenizer(), shapes.batches(24, seed, alone=30), RECIPE, log.append)
    return model, log


@pytest.fixture(scope="module")
def run() -> tuple[CLIPModel, list[Step]]:
    return trained()


def test_a_few_steps_already_help(run: tuple[CLIPModel, list[Step]]) -> None:
    _, log = run
    assert [step.number for step in log] == list(range(1, 31))
    first, last = (sum(step.loss for step in part) / 5 for part in (log[:5], log[-5:]))
    assert last < first - 0.3
    assert all(0 <= step.accuracy <= 1 and step.scale <= loss.MAX_SCALE for step in log)


def test_the_same_seed_trains_the_same_weights(run: tuple[CLIPModel, list[Step]]) -> None:
    again, _ = trained()
    for name, weights in run[0].state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weights, rtol=1e-4, atol=1e-5)


def test_groups_of_a_batch_are_contrasted_apart() -> None:
    """Two batches as the groups of one have the mean loss of the two, and share no negatives."""
    lesson = next(shapes.lessons(0, alone=1))
    recipe, apart = Recipe(steps=1, rate=0.0), list[Step]()
    starts = np.cumsum([0, *lesson.groups])
    for start, stop in itertools.pairwise(starts):
        part = Batch(lesson.pixels[start:stop], lesson.texts[start:stop])
        train(tiny.model(), tiny.tokenizer(), [part], recipe, apart.append)
    whole: list[Step] = []
    train(tiny.model(), tiny.tokenizer(), [lesson], recipe, whole.append)
    for name in ("loss", "accuracy"):
        mean = np.average([getattr(step, name) for step in apart], weights=lesson.groups)
        assert getattr(whole[0], name) == pytest.approx(mean, rel=1e-4)


def test_the_rate_warms_up_and_then_falls_to_nothing() -> None:
    recipe = Recipe(steps=100, warmup=10, rate=1.0)
    rates = [rate_at(step, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_matrices_decay_and_gains_biases_and_scale_do_not() -> None:
    model = tiny.model()
    decaying, kept = groups(model, 0.1)
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    free = {id(parameter) for parameter in kept["params"]}
    assert id(model.logit_scale) in free
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            assert {id(module.weight), id(module.bias)} <= free
        if isinstance(module, nn.Linear | nn.Embedding):
            assert id(module.weight) not in free
    both = decaying["params"] + kept["params"]
    assert len(both) == len(list(model.parameters()))


def test_our_loss_is_the_one_transformers_computes() -> None:
    model, batch = tiny.model(), next(shapes.batches(8, 0, alone=0))
    ids = tiny.tokenizer()(batch.texts, padding=True, return_tensors="pt").input_ids
    pixels = torch.from_numpy(batch.pixels)
    found = loss.softmax(unit_images(model, pixels), unit_texts(model, ids), model.logit_scale)
    expected = model(input_ids=ids, pixel_values=normalised(pixels), return_loss=True).loss
    torch.testing.assert_close(found, expected)


def test_pixels_are_scaled_as_the_processor_scales_them() -> None:
    pixels = next(shapes.batches(4, 0, alone=4)).pixels
    expected = tiny.processor().image_processor(list(pixels), return_tensors="pt").pixel_values
    torch.testing.assert_close(normalised(torch.from_numpy(pixels), MEAN, STD), expected)


def test_a_checkpoint_opens_with_transformers_and_answers_alike(
    run: tuple[CLIPModel, list[Step]], tmp_path: Path
) -> None:
    checkpoint.save(run[0], tiny.processor(), tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    opened = CLIPModel.from_pretrained(tmp_path)
    reader = CLIPProcessor.from_pretrained(tmp_path)
    batch = next(shapes.batches(8, 1, alone=0))
    inputs = reader(
        text=batch.texts,
        images=list(batch.pixels),
        padding=True,
        truncation=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        found = opened(**inputs).logits_per_image
        images = unit_images(run[0], torch.from_numpy(batch.pixels))
        texts = unit_texts(run[0], inputs["input_ids"])
        expected = run[0].logit_scale.exp() * images @ texts.T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert checkpoint.load(tmp_path)[0].config.to_dict() == opened.config.to_dict()


def test_a_checkpoint_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"no model\.safetensors"):
        checkpoint.load(tmp_path)


def test_every_step_is_one_line_of_json(tmp_path: Path) -> None:
    log = tmp_path / "runs" / "metrics.jsonl"
    step = Step(1, 2.5, 0.1, 14.3, 1e-3, 1.0, 0.5)
    with reporting(250, log, Console(quiet=True)) as report:
        report(step)
        report(Step(250, 0.5, 0.9, 20.0, 0.0, 1.0, 60.0))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 250]
    assert Step(**lines[0]) == step
