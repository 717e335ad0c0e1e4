"""Contrastive losses over a batch in which image i belongs to text i and to no other."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MAX_SCALE = 100.0  # CLIP §2.5: clipped "to prevent scaling the logits by more than 100"


def softmax(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit vectors [B, D], the mean of both directions.

    Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", 2021, figure 3 (https://arxiv.org/abs/2103.00020).
    """
    logits = log_scale.exp() * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def sigmoid(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Every pair of unit vectors [B, D] judged alone, summed over texts, mean over images.

    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023, algorithm 1
    (https://arxiv.org/abs/2303.15343).
    """
    logits = log_scale.exp() * images @ texts.T + bias
    belongs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -functional.logsigmoid(belongs * logits).sum() / len(logits)


def clamp_scale(log_scale: Tensor) -> None:
    """Keep the learned temperature where CLIP keeps it, in place; call after each step."""
    with torch.no_grad():
        log_scale.clamp_(max=math.log(MAX_SCALE))
