from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from diptych_export import loss


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    """Unit vectors [6, 4] of images and texts that belong together, more or less."""
    torch.manual_seed(0)
    images = torch.randn(6, 4, dtype=torch.float64)
    texts = images + torch.randn(6, 4, dtype=torch.float64)
    return normalize(images).requires_grad_(), normalize(texts).requires_grad_()


def plain_softmax(images: Tensor, texts: Tensor, scale: float) -> float:
    """Figure 3 of the CLIP paper, pair by pair, in Python's own arithmetic."""
    logits = [[scale * float((image @ text).detach()) for text in texts] for image in images]
    columns = list(zip(*logits, strict=True))

    def mean(rows: list[list[float]] | list[tuple[float, ...]]) -> float:
        terms = [math.log(sum(map(math.exp, row))) - row[own] for own, row in enumerate(rows)]
        return sum(terms) / len(terms)

    return (mean(logits) + mean(columns)) / 2


def plain_sigmoid(images: Tensor, texts: Tensor, scale: float, bias: float) -> float:
    """Algorithm 1 of the SigLIP paper, pair by pair."""
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            sign = 1 if i == j else -1
            total += math.log1p(math.exp(-sign * (scale * float((image @ text).detach()) + bias)))
    return total / len(images)


def test_softmax_is_the_papers_formula(vectors: tuple[Tensor, Tensor]) -> None:
    found = loss.softmax(*vectors, torch.tensor(2.0, dtype=torch.float64))
    assert found.item() == pytest.approx(plain_softmax(*vectors, math.exp(2.0)), rel=1e-12)


def test_sigmoid_is_the_papers_formula(vectors: tuple[Tensor, Tensor]) -> None:
    scale, bias = torch.tensor([2.0, -3.0], dtype=torch.float64)
    found = loss.sigmoid(*vectors, scale, bias)
    assert found.item() == pytest.approx(plain_sigmoid(*vectors, math.exp(2.0), -3.0), rel=1e-12)


def test_gradients_are_those_of_small_differences(vectors: tuple[Tensor, Tensor]) -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss.softmax, (*vectors, scale))
    assert torch.autograd.gradcheck(loss.sigmoid, (*vectors, scale, bias))


def test_perfect_pairs_cost_nothing_and_unrelated_ones_the_logarithm_of_the_batch() -> None:
    apart = torch.eye(8)
    assert loss.softmax(apart, apart, torch.tensor(math.log(100.0))).item() < 1e-6
    same = torch.ones(8, 1)
    assert loss.softmax(same, same, torch.tensor(3.0)).item() == pytest.approx(math.log(8))


def test_the_scale_stops_at_a_hundred() -> None:
    scale = torch.tensor(5.0, requires_grad=True)
    loss.clamp_scale(scale)
    assert scale.exp().item() == pytest.approx(loss.MAX_SCALE)
    low = torch.tensor(1.0)
    loss.clamp_scale(low)
    assert low.item() == 1.0
