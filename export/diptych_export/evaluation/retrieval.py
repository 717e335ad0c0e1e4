"""Pairs in, how often an image finds its text, and a text its image, out: recall at 1, 5, 10."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.contract import Matrix
from diptych_export.data.pairs import Pair, Reject, Shard
from diptych_export.errors import BadData
from diptych_export.evaluation.reading import embedded
from diptych_export.inference import Inference

DEPTHS = (1, 5, 10)

_ROWS = 512  # queries scored at once


@dataclass(frozen=True, slots=True)
class Gallery:
    """Distinct images and distinct texts, and which belong together.

    An image may have several texts, as in Flickr30k and COCO, and a text several images: finding
    any of them counts.
    """

    images: list[str]  # the id of the first pair with each
    texts: list[str]
    texts_of: list[list[int]]  # by image
    images_of: list[list[int]]  # by text


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What came out."""

    gallery: Gallery
    image_vectors: Matrix
    text_vectors: Matrix
    text_ranks: npt.NDArray[np.int64]  # by image: others before the first text of its own
    image_ranks: npt.NDArray[np.int64]  # by text: others before the first image of its own
    rejects: list[Reject]

    def as_dict(self) -> dict[str, Any]:
        """Recalls in 0..1."""
        found: dict[str, Any] = {}
        ways = (("image_to_text", self.text_ranks), ("text_to_image", self.image_ranks))
        for way, ranks in ways:
            for depth in DEPTHS:
                found[f"{way}_recall_at_{depth}"] = float((ranks < depth).mean())
        return {
            **found,
            "images": len(self.gallery.images),
            "texts": len(self.gallery.texts),
            "skipped": len(self.rejects),
        }


async def retrieve(model: Inference, shards: Sequence[Shard]) -> Retrieval:
    """Let every image of the pairs in `shards` look for its texts, and every text for its images.

    Raises:
        BadData: the pairs cannot be read, or there are none.
    """
    pairs = _Pairs()
    ids, keys, rejects = list[str](), list[str](), list[Reject]()
    matrices = []
    async for batch in embedded(model, pairs.with_new_images(shards)):
        ids += [pair.id for pair in batch.pictures]
        keys += [_key(pair) for pair in batch.pictures]
        rejects += batch.rejects
        matrices.append(batch.matrix)
    if not ids:
        raise BadData(f"no pair in {', '.join(shard.place for shard in shards[:3])} can be used")
    gallery = _gallery(ids, [pairs.texts[key] for key in keys])
    images, texts = np.concatenate(matrices), await model.texts(gallery.texts)
    text_ranks = ranks(images, texts, gallery.texts_of)
    image_ranks = ranks(texts, images, gallery.images_of)
    return Retrieval(gallery, images, texts, text_ranks, image_ranks, rejects)


def ranks(
    queries: Matrix, candidates: Matrix, own: Sequence[Sequence[int]]
) -> npt.NDArray[np.int64]:
    """For every query, how many candidates that are not its own come before the best of its own.

    A tie counts against the model: a constant answer must not look right.
    """
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), _ROWS):
        scores = queries[start : start + _ROWS] @ candidates.T
        for row, values in enumerate(scores, start):
            best = values[own[row]].max()
            found[row] = (values >= best).sum() - (values[own[row]] >= best).sum()
    return found


class _Pairs:
    """What pairs say, image by image."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}  # by the key of their image

    def with_new_images(self, shards: Iterable[Shard]) -> Iterator[Pair | Reject]:
        """The first pair with each image; of the others only the texts are kept."""
        for shard in shards:
            for item in shard.read(0):
                if isinstance(item, Reject):
                    yield item
                    continue
                is_new = (key := _key(item)) not in self.texts
                self.texts.setdefault(key, []).append(item.text)
                if is_new:
                    yield item


def _key(pair: Pair) -> str:
    """The same for the same image."""
    if isinstance(pair.image, str):
        return pair.image
    return hashlib.sha256(pair.image).hexdigest()


def _gallery(ids: list[str], texts: list[list[str]]) -> Gallery:
    numbers: dict[str, int] = {}
    texts_of = [sorted({numbers.setdefault(text, len(numbers)) for text in own}) for own in texts]
    images_of: list[list[int]] = [[] for _ in numbers]
    for image, own in enumerate(texts_of):
        for text in own:
            images_of[text].append(image)
    return Gallery(ids, list(numbers), texts_of, images_of)
