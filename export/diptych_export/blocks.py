"""Contrastive losses and their gradients, in blocks of rows: no N x N matrix is ever held.

For 32,768 pairs that matrix takes 4 GiB, and its gradient as much again. Here each process
walks over the rows of its own vectors against everybody's, and keeps what belongs to its own:
summed over the processes, the shares are the loss of the joint batch and its gradient.

Notation, with unit vectors u_i of images and v_j of texts, N pairs, scale s and bias b:
logits l_ij = s u_i·v_j (+ b).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych_export.world import World

_CELLS = 2**22  # of a block's matrix, 16 MiB of float32: enough for a fast product


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of the loss over the joint batch, float32.

    `loss`, `log_scale`, `bias` and `right` are to be summed over the processes.
    """

    loss: Tensor  # []
    images: Tensor  # [b, D]: gradient of the whole loss by own image vectors
    texts: Tensor  # [b, D]: by own text vectors
    log_scale: Tensor  # []: this part's gradient by the logarithm of the scale
    bias: Tensor  # []: by the bias; 0 where the loss has none
    right: int  # own images that are nearest to their own text


@torch.no_grad()
def softmax(images: Tensor, texts: Tensor, log_scale: Tensor, world: World) -> Share:
    """Symmetric InfoNCE of own unit vectors [b, D] within the joint batch of N = b * size pairs.

    L = 1/2N Σ_i (log Σ_j exp l_ij - l_ii) + (log Σ_j exp l_ji - l_ii), and so
    ∂L/∂l_ij = (exp(l_ij - r_i) + exp(l_ij - c_j) - 2 [i = j]) / 2N
    with the logarithmic sums r of rows and c of columns (arXiv:2103.00020, figure 3).
    """
    scale = log_scale.float().exp()
    all_images, all_texts = world.gather(images), world.gather(texts)
    start, count = world.rank * len(images), len(all_images)
    rows, own, right = _sums(scale * images, all_texts, start)
    columns, _, _ = _sums(scale * texts, all_images, start)
    all_rows, all_columns = world.gather(rows), world.gather(columns)

    by_images, steepness = _softmax_pull(scale, images, all_texts, rows, all_columns, start)
    by_texts, _ = _softmax_pull(scale, texts, all_images, columns, all_rows, start)
    return Share(
        loss=(rows + columns - 2 * own).sum() / (2 * count),
        images=by_images,
        texts=by_texts,
        log_scale=steepness,
        bias=torch.zeros_like(steepness),
        right=right,
    )


@torch.no_grad()
def sigmoid(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor, world: World) -> Share:
    """SigLIP's loss of own unit vectors [b, D] within the joint batch of N = b * size pairs.

    L = -1/N Σ_ij log σ(z_ij l_ij), z = 1 for i = j, else -1, and so ∂L/∂l_ij = -z σ(-z l_ij) / N
    (arXiv:2303.15343, algorithm 1).
    """
    scale = log_scale.float().exp()
    all_images, all_texts = world.gather(images), world.gather(texts)
    start = world.rank * len(images)
    by_images, (loss, steepness, lift), right = _sigmoid_pull(scale, bias, images, all_texts, start)
    by_texts, _, _ = _sigmoid_pull(scale, bias, texts, all_images, start)
    return Share(loss, by_images, by_texts, log_scale=steepness, bias=lift, right=right)


def weighted(shares: Sequence[Share], pairs: int) -> Share:
    """The share of a loss that is the mean over `pairs` pairs, from those of groups among them.

    A group of n pairs counts n / `pairs`.
    """
    weights = [len(share.images) / pairs for share in shares]
    both = list(zip(weights, shares, strict=True))
    return Share(
        loss=torch.stack([w * share.loss for w, share in both]).sum(),
        images=torch.cat([w * share.images for w, share in both]),
        texts=torch.cat([w * share.texts for w, share in both]),
        log_scale=torch.stack([w * share.log_scale for w, share in both]).sum(),
        bias=torch.stack([w * share.bias for w, share in both]).sum(),
        right=sum(share.right for share in shares),
    )


def _blocks(own: Tensor, others: Tensor, rooms: int) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of own rows, and for each the same `rooms` matrices [rows, N] to compute in.

    New ones for each block would not do: glibc 2.36 does not find freed matrices again, which torch
    asks for aligned, and the heap grows as N x N after all.
    """
    size = min(max(1, _CELLS // len(others)), len(own))
    whole = own.new_empty((rooms, size, len(others)))
    for first in range(0, len(own), size):
        block = slice(first, min(first + size, len(own)))
        yield block, whole[:, : block.stop - block.start]


def _diagonal(block: slice, start: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where a block of own rows meets its own columns: indexes within the block."""
    rows = torch.arange(block.stop - block.start, device=device)
    return rows, rows + block.start + start


def _sums(scaled: Tensor, others: Tensor, start: int) -> tuple[Tensor, Tensor, int]:
    """Of the logits scaled @ others.T: log-sum-exp of each row, its own logit, and how many
    rows have their highest logit at their own place."""
    sums, own, right = scaled.new_empty(len(scaled)), scaled.new_empty(len(scaled)), 0
    for block, (logits,) in _blocks(scaled, others, 1):
        torch.mm(scaled[block], others.T, out=logits)
        at = _diagonal(block, start, logits.device)
        own[block] = logits[at]
        highest, place = logits.max(dim=1)
        right += int((place == at[1]).sum())
        sums[block] = logits.sub_(highest[:, None]).exp_().sum(dim=1).log_().add_(highest)
    return sums, own, right


def _softmax_pull(
    scale: Tensor, own: Tensor, others: Tensor, own_sums: Tensor, other_sums: Tensor, start: int
) -> tuple[Tensor, Tensor]:
    """∂L/∂own [b, D], and Σ ∂L/∂l · l over own rows, which is ∂L/∂ log s."""
    pull = torch.empty_like(own)
    steepness = own.new_zeros(())
    for block, (logits, slope, room) in _blocks(own, others, 3):
        torch.mm(scale * own[block], others.T, out=logits)
        torch.sub(logits, own_sums[block, None], out=slope).exp_()
        slope += torch.sub(logits, other_sums, out=room).exp_()
        slope[_diagonal(block, start, logits.device)] -= 2
        slope /= 2 * len(others)
        torch.mm(slope, others, out=pull[block])
        steepness += slope.mul_(logits).sum()
    return pull.mul_(scale), steepness


def _sigmoid_pull(
    scale: Tensor, bias: Tensor, own: Tensor, others: Tensor, start: int
) -> tuple[Tensor, Tensor, int]:
    """∂L/∂own [b, D]; of own rows the loss, ∂L/∂ log s and ∂L/∂b [3]; and the rows right."""
    pull, sums, right = torch.empty_like(own), own.new_zeros(3), 0
    for block, (scaled, judged, slope) in _blocks(own, others, 3):
        torch.mm(scale * own[block], others.T, out=scaled)
        at = _diagonal(block, start, scaled.device)
        right += int((scaled.argmax(dim=1) == at[1]).sum())
        torch.add(scaled, bias, out=judged).neg_()  # z l: other pairs count reversed, own as is
        judged[at] *= -1
        torch.neg(judged, out=slope).sigmoid_().div_(len(others))
        slope[at] *= -1
        torch.mm(slope, others, out=pull[block])
        lift = slope.sum()
        steepness = slope.mul_(scaled).sum()
        # -log σ(x) = max(-x, 0) + log(1 + exp -|x|)
        loss = torch.clamp(judged, max=0, out=scaled).sum().neg_()
        loss += judged.abs_().neg_().exp_().log1p_().sum()
        sums += torch.stack([loss / len(others), steepness, lift])
    return pull.mul_(scale), sums, right
