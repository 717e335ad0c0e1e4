"""Chunks of a batch in, the gradient of the whole batch out, at the memory of one chunk.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021
(arXiv:2101.06983). The loss of a contrastive batch needs all vectors at once, but of each chunk
it needs nothing else. So: encode every chunk without a graph, keep the vectors; differentiate
the loss by the vectors; encode every chunk again, now with a graph, and push its vectors'
gradient through. Inputs wait on disk in between, and what was random is drawn again alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from diptych_export.blocks import Share


@dataclass(frozen=True, slots=True)
class Chunk:
    """As many pairs as fit into memory with their graph."""

    pixels: npt.NDArray[np.uint8]  # [b, S, S, 3]
    ids: npt.NDArray[np.int64]  # [b, L'], padded
    groups: tuple[int, ...] = ()  # sizes of the runs contrasted apart; none: with the whole batch


# A chunk to unit vectors of its images and texts, float32 [b, D] each.
Encode: TypeAlias = Callable[[Chunk], tuple[Tensor, Tensor]]
# All own image and text vectors [B, D], and the groups they are in, to this process's share of
# the loss.
Contrast: TypeAlias = Callable[[Tensor, Tensor, tuple[int, ...]], Share]


def backward(
    model: nn.Module,
    encode: Encode,
    chunks: Iterable[Chunk],
    count: int,
    contrast: Contrast,
    spool: Path | None,
) -> Share:
    """Add the loss's gradient over the first `count` chunks to the parameters of `model`.

    `encode` is how `model` encodes. The gradients of scale and bias are only in the answer:
    encoding does not know them. `spool` is a folder for the inputs of one batch; None is the
    system's own for temporary files.
    """
    drawn = islice(chunks, count)
    if count == 1:
        chunk = next(drawn)
        images, texts = encode(chunk)
        share = contrast(images.detach(), texts.detach(), chunk.groups)
        _push(images, texts, share.images, share.texts)
        return share
    with tempfile.TemporaryFile(dir=spool) as file:
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        share = contrast(*_vectors(encode, drawn, file))
        after = _random_state()
        for name, buffer in model.named_buffers():  # running statistics: a batch counts once
            buffer.copy_(before[name])
        file.seek(0)
        start = 0
        for chunk in _again(file, count):
            part = slice(start, start + len(chunk.pixels))
            _push(*encode(chunk), share.images[part], share.texts[part])
            start = part.stop
        _set_random_state(after)
    return share


def _push(images: Tensor, texts: Tensor, by_images: Tensor, by_texts: Tensor) -> None:
    torch.autograd.backward([images, texts], [by_images, by_texts])


@torch.no_grad()
def _vectors(
    encode: Encode, chunks: Iterable[Chunk], file: IO[bytes]
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Encode all; write down each input, and the random state its encoding began with."""
    images, texts, groups = [], [], list[int]()
    for chunk in chunks:
        arrays: list[npt.NDArray[Any]] = [chunk.pixels, chunk.ids, *_random_state()]
        for array in arrays:
            np.save(file, array, allow_pickle=False)
        of_images, of_texts = encode(chunk)
        images.append(of_images)
        texts.append(of_texts)
        groups += chunk.groups
    return torch.cat(images), torch.cat(texts), tuple(groups)


def _again(file: IO[bytes], count: int) -> Iterator[Chunk]:
    """Every chunk as it was, with the random state as it was."""
    for _ in range(count):
        pixels, ids, *state = (
            np.load(file, allow_pickle=False) for _ in range(2 + len(_random_state()))
        )
        _set_random_state(state)
        yield Chunk(pixels, ids)


def _random_state() -> list[npt.NDArray[Any]]:
    """Of torch, on the CPU and on the current GPU if there is one."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return [state.numpy() for state in states]


def _set_random_state(states: list[npt.NDArray[Any]]) -> None:
    torch.set_rng_state(torch.from_numpy(states[0]))
    if len(states) > 1:
        torch.cuda.set_rng_state(torch.from_numpy(states[1]))
