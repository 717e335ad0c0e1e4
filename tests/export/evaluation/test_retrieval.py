"""Images look for their texts and texts for their images; the same image is one image."""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random

import numpy as np
import pytest

from diptych_export.data import captions
from diptych_export.data.drawing import picture
from diptych_export.data.pairs import Keys
from diptych_export.data.scenes import TRAINING, one
from diptych_export.data.shards import shards
from diptych_export.errors import BadData
from diptych_export.evaluation.retrieval import Retrieval, ranks, retrieve
from diptych_export.inference import opened
from tests.drawing import encoded
from tests.export.train.files import tar
from tests.serving import SHAPES

PAIRS = TRAINING[:12]


def drawn(number: int) -> bytes:
    return encoded(picture(one(Random(f"retrieval/{number}"), PAIRS[number]), 96))


def table(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """Twelve pictures, and the rows of a table beside them."""
    for number in range(len(PAIRS)):
        (folder / f"{number}.png").write_bytes(drawn(number))
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return path


async def found(path: Path) -> Retrieval:
    async with opened(SHAPES) as model:
        return await retrieve(model, shards([str(path)], Keys()))


async def test_images_and_texts_find_each_other(tmp_path: Path) -> None:
    rows = [(f"{n}.png", captions.plain(pair)) for n, pair in enumerate(PAIRS)]
    answer = (await found(table(tmp_path, rows))).as_dict()
    assert (answer["images"], answer["texts"], answer["skipped"]) == (12, 12, 0)
    for way in ("image_to_text", "text_to_image"):
        depths = [answer[f"{way}_recall_at_{depth}"] for depth in (1, 5, 10)]
        assert depths[0] >= 0.9
        assert depths == sorted(depths)


async def test_an_image_with_several_texts_is_one_image_and_any_of_them_will_do(
    tmp_path: Path,
) -> None:
    """As Flickr30k has five captions an image: in a table by path, in a shard by content."""
    rows = [("0.png", text) for text in ("a plainly wrong text", captions.plain(PAIRS[0]))]
    rows += [(f"{n}.png", captions.plain(PAIRS[n])) for n in range(1, 12)]
    answer = await found(table(tmp_path, rows))
    assert (len(answer.gallery.images), len(answer.gallery.texts)) == (12, 13)
    assert answer.gallery.texts_of[0] == [0, 1]
    assert answer.text_ranks[0] == 0

    members = []
    for key, text in (("a", "one"), ("b", "two"), ("c", "two")):
        image = drawn(0 if key != "c" else 1)
        members += [(f"{key}.png", image), (f"{key}.txt", text.encode())]
    gallery = (await found(tar(tmp_path / "a.tar", members))).gallery
    assert gallery.texts == ["one", "two"]
    assert gallery.texts_of == [[0, 1], [1]]
    assert gallery.images_of == [[0], [0, 1]]


async def test_broken_pictures_are_skipped_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, [("0.png", "one"), ("gone.png", "two"), ("1.png", "three")])
    answer = await found(path)
    assert [reject.id for reject in answer.rejects] == [f"{path}:1"]
    assert answer.gallery.texts == ["one", "three"]


async def test_no_usable_pair_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"no pair in .*pairs\.csv can be used"):
        await found(table(tmp_path, [("gone.png", "one")]))


def test_a_rank_counts_what_is_as_near_or_nearer_and_not_ones_own() -> None:
    queries = np.eye(2, dtype=np.float32)
    candidates = np.array([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5]], np.float32)
    assert ranks(queries, candidates, [[0], [2, 3]]).tolist() == [0, 0]
    assert ranks(queries, candidates, [[1], [0]]).tolist() == [1, 3]
    assert ranks(queries, candidates, [[2], [3]]).tolist() == [3, 1]  # a tie is lost
    assert ranks(queries, candidates, [[1, 3], [1]]).tolist() == [1, 2]
