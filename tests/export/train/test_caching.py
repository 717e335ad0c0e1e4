"""Gradient caching changes what a batch costs, not what it teaches."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from diptych_export import blocks
from diptych_export.caching import Chunk, backward
from diptych_export.data import shapes
from diptych_export.data.scene_chunks import SceneChunks
from diptych_export.learner import Learner
from diptych_export.starting import begun, learned_tokenizer, understood
from diptych_export.world import World
from tests.export.train.towers import chunk, distance, encoded, gradients, joint, towers

CHUNKS = [chunk(5, seed) for seed in range(4)]
SCALE = torch.tensor(2.3)
BIAS = torch.tensor(-3.0)


def plain_softmax(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Figure 3 of the CLIP paper, line by line."""
    logits = images @ texts.T * log_scale.exp()
    labels = torch.arange(len(logits))
    return (
        functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)
    ) / 2


def plain_sigmoid(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Algorithm 1 of the SigLIP paper, line by line."""
    logits = images @ texts.T * log_scale.exp() + bias
    labels = 2 * torch.eye(len(logits)) - 1
    return -functional.logsigmoid(labels * logits).sum() / len(logits)


def cached(model: CLIPModel, chunks: Iterable[Chunk], count: int) -> blocks.Share:
    def contrast(images: Tensor, texts: Tensor, _: tuple[int, ...]) -> blocks.Share:
        return blocks.softmax(images, texts, SCALE, World())

    return backward(model, partial(encoded, model), chunks, count, contrast, None)


@pytest.mark.parametrize("cells", [1, 60, 2**22])
def test_the_softmax_loss_in_blocks_is_the_plain_one(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_CELLS", cells)
    images, texts = (t.detach().requires_grad_() for t in encoded(towers(), chunk(23, 1)))
    scale = SCALE.clone().requires_grad_()
    loss = plain_softmax(images, texts, scale)
    loss.backward()

    share = blocks.softmax(images.detach(), texts.detach(), SCALE, World())
    assert distance(share.loss, loss.detach()) < 1e-6
    for found, leaf in ((share.images, images), (share.texts, texts), (share.log_scale, scale)):
        assert leaf.grad is not None
        assert distance(found, leaf.grad) < 1e-5


@pytest.mark.parametrize("cells", [1, 60, 2**22])
def test_the_sigmoid_loss_in_blocks_is_the_plain_one(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_CELLS", cells)
    images, texts = (t.detach().requires_grad_() for t in encoded(towers(), chunk(23, 1)))
    scale, bias = SCALE.clone().requires_grad_(), BIAS.clone().requires_grad_()
    loss = plain_sigmoid(images, texts, scale, bias)
    loss.backward()

    share = blocks.sigmoid(images.detach(), texts.detach(), SCALE, BIAS, World())
    assert distance(share.loss, loss.detach()) < 1e-6
    found = (share.images, share.texts, share.log_scale, share.bias)
    for value, leaf in zip(found, (images, texts, scale, bias), strict=True):
        assert leaf.grad is not None
        assert distance(value, leaf.grad) < 1e-5


def test_cached_gradients_are_the_plain_ones() -> None:
    expected, found = towers(), towers()
    loss = plain_softmax(*encoded(expected, joint(CHUNKS)), SCALE)
    loss.backward()

    share = cached(found, CHUNKS, len(CHUNKS))
    assert distance(share.loss, loss.detach()) < 1e-5
    pairs = list(zip(gradients(found), gradients(expected), strict=True))
    assert len(pairs) > 60
    for (name, value), (_, reference) in pairs:
        assert distance(value, reference) < 1e-5, name


def test_dropout_is_drawn_alike_in_both_passes_and_only_once() -> None:
    """One graph over chunks encoded in turn draws the same masks, and leaves the same state."""
    expected, found = towers(dropout=0.4), towers(dropout=0.4)
    torch.manual_seed(7)
    images, texts = zip(*(encoded(expected, chunk) for chunk in CHUNKS), strict=True)
    plain_softmax(torch.cat(images), torch.cat(texts), SCALE).backward()
    after = torch.get_rng_state()

    torch.manual_seed(7)
    cached(found, CHUNKS, len(CHUNKS))
    assert torch.equal(torch.get_rng_state(), after)
    for (name, value), (_, reference) in zip(gradients(found), gradients(expected), strict=True):
        assert distance(value, reference) < 1e-5, name


def test_a_batch_of_one_chunk_is_encoded_once() -> None:
    model, calls = towers(), 0

    def counting(chunk: Chunk) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        return encoded(model, chunk)

    backward(model, counting, CHUNKS, 1, lambda i, t, _: blocks.softmax(i, t, SCALE, World()), None)
    assert calls == 1


def test_only_the_chunks_of_the_batch_are_taken() -> None:
    stream = iter(CHUNKS)
    cached(towers(), stream, 3)
    assert next(stream) is CHUNKS[3]


def test_running_statistics_count_a_batch_once() -> None:
    """Each chunk is encoded twice, and its batch norms remember it once."""
    plan = understood("shapes")
    tokenizer = learned_tokenizer(plan, shapes.texts(0, 200))

    def fresh() -> Learner:
        torch.manual_seed(0)
        return begun(plan, tokenizer, "softmax")

    plain, found = fresh(), fresh()
    chunks = list(islice(SceneChunks(16, 0, alone=0, chunks=2), 2))
    encode = partial(found.encode, device=torch.device("cpu"), bf16=False)
    contrast = partial(found.contrast, world=World())
    backward(found.model, encode, map(found.chunk, chunks), 2, contrast, None)
    for part in chunks:
        plain.encode(plain.chunk(part), torch.device("cpu"), bf16=False)
    expected = dict(plain.model.named_buffers())
    assert any("running_mean" in name for name in expected)
    for name, buffer in found.model.named_buffers():
        torch.testing.assert_close(buffer, expected[name], msg=name)
