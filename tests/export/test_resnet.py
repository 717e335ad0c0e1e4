"""OpenAI's ModifiedResNet, built from its published sizes."""

from __future__ import annotations

import pytest
import torch

from diptych_export.resnet import SIZES, ModifiedResNet, ResNetSize


@pytest.mark.parametrize(
    ("name", "millions"),
    [  # parameters of the image tower: open_clip, docs/model_profile.csv
        ("RN50", 38.32),
        ("RN101", 56.26),
        ("RN50x4", 87.14),
        ("RN50x16", 167.33),
        ("RN50x64", 420.38),
    ],
)
def test_it_has_as_many_parameters_as_published(name: str, millions: float) -> None:
    with torch.device("meta"):
        tower = ModifiedResNet(SIZES[name])
    count = sum(weights.numel() for weights in tower.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_every_block_begins_as_its_shortcut() -> None:
    """Gains of the last norms start at zero, so that a deep tower trains from the first step."""
    tower = ModifiedResNet(ResNetSize((2, 1, 1, 1), 16, 32, 8))
    assert not tower.get_parameter("layer1.0.bn3.weight").any()
    block = tower.get_submodule("layer1.1").eval()
    x = torch.rand(1, 64, 8, 8)
    assert torch.equal(block(x), x)


def test_it_answers_as_transformers_towers_do() -> None:
    tower = ModifiedResNet(ResNetSize((1, 1, 1, 1), 16, 64, 24)).eval()
    answer = tower(pixel_values=torch.rand(3, 3, 64, 64))
    assert answer.pooler_output is not None
    assert answer.last_hidden_state is not None
    assert answer.pooler_output.shape == (3, 24)
    assert answer.last_hidden_state.shape == (3, 512, 2, 2)


def test_gradients_reach_every_weight() -> None:
    tower = ModifiedResNet(ResNetSize((1, 1, 1, 1), 16, 64, 24))
    tower(pixel_values=torch.rand(2, 3, 64, 64)).pooler_output.sum().backward()
    idle = [name for name, weights in tower.named_parameters() if weights.grad is None]
    assert idle == []
