"""The learning rate over a run, and which weights decay."""

from __future__ import annotations

import pytest
from torch import nn

from diptych_export.recipe import Recipe, groups, rate_at
from tests.export import tiny


def test_the_rate_warms_up_and_then_falls_to_nothing() -> None:
    recipe = Recipe(steps=100, rate=1.0, warmup=10, weight_decay=0.1, clip_norm=1.0)
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
