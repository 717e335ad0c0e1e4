"""Chunks come decoded, the same at every run, and go on where they were left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych.contract import ImageSpec
from diptych_export.data import loading
from diptych_export.data.batches import Batch
from diptych_export.data.loading import PairChunks, Reading
from diptych_export.data.pairs import Keys
from diptych_export.data.shards import shards
from diptych_export.errors import BadData
from diptych_export.world import World
from tests.export.train.files import csv_of_pairs, picture, tar_of_pairs

IMAGE = ImageSpec(
    size=16,
    resize="shortest",
    resize_to=16,
    interpolation="bicubic",
    rgb="before_resize",
    rounding="huggingface",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def reading(folder: Path, chunk: int = 4) -> Reading:
    for shard in range(3):
        path = folder / f"{shard}.tar"
        if not path.exists():
            tar_of_pairs(path, range(10 * shard, 10 * shard + 9))
    found = shards([f"{folder}/{{0..2}}.tar"], Keys())
    return Reading(found, IMAGE, chunk, seed=3, shuffled=5)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        a.texts == b.texts and np.array_equal(a.pixels, b.pixels)
        for a, b in zip(first, second, strict=True)
    )


def test_a_chunk_holds_pixels_and_the_texts_that_belong_to_them(tmp_path: Path) -> None:
    path = csv_of_pairs(tmp_path / "a.csv", range(6))
    plain = Reading(shards([str(path)], Keys()), IMAGE, 3, seed=0, least_view=1.0)
    batch = next(PairChunks(plain, World(), 0))
    assert batch.pixels.shape == (3, 16, 16, 3)
    assert batch.pixels.dtype == np.uint8
    again = next(PairChunks(plain, World(), 0))
    assert same([batch], [again])


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_goes_on_exactly_where_it_was_left(workers: int, tmp_path: Path) -> None:
    source = reading(tmp_path)
    chunks = PairChunks(source, World(), workers)
    whole, states = [], []
    for _ in range(9):  # more than one epoch
        whole.append(next(chunks))
        states.append(chunks.state())
    for done in (1, 4):
        resumed = PairChunks(source, World(), workers, states[done - 1])
        assert same([next(resumed) for _ in range(9 - done)], whole[done:])


def test_processes_and_workers_share_an_epoch(tmp_path: Path) -> None:
    texts: list[str] = []
    for rank in range(3):  # one shard each: nine pairs, two chunks and a rest
        chunks = PairChunks(reading(tmp_path), World(rank, 3), 0)
        texts += next(chunks).texts + next(chunks).texts
    assert len(set(texts)) == len(texts) == 24


def test_another_number_of_readers_cannot_go_on(tmp_path: Path) -> None:
    state = PairChunks(reading(tmp_path), World(), 0).state()
    with pytest.raises(BadData, match=r"begun with .*'readers': 1.* cannot go on with"):
        PairChunks(reading(tmp_path), World(), 2, state)


def test_broken_pictures_are_skipped_and_listed(tmp_path: Path) -> None:
    path = csv_of_pairs(tmp_path / "a.csv", range(8))
    (tmp_path / "pictures/3.png").write_bytes(picture(3)[:200])
    (tmp_path / "pictures/5.png").unlink()
    source = Reading(shards([str(path)], Keys()), IMAGE, 6, seed=0)
    chunks = PairChunks(source, World(), 0)
    assert not {"caption 3", "caption 5"} & set(next(chunks).texts)
    next(chunks)
    rejects = {reject.id: reject.reason for reject in chunks.rejects()}
    assert set(rejects) == {f"{path}:3", f"{path}:5"}
    assert "truncated, corrupt" in rejects[f"{path}:3"]
    assert chunks.rejects() == []


def test_data_that_is_broken_throughout_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_PATIENCE", 100)
    path = csv_of_pairs(tmp_path / "a.csv", range(8))
    for file in (tmp_path / "pictures").iterdir():
        file.write_bytes(b"nothing")
    chunks = PairChunks(Reading(shards([str(path)], Keys()), IMAGE, 2, seed=0), World(), 0)
    with pytest.raises(BadData, match=r"100 samples in a row were skipped, at last .*a\.csv:\d"):
        next(chunks)


def test_what_stops_a_worker_arrives_as_one_line(tmp_path: Path) -> None:
    lost = shards([f"file://{tmp_path}/lost.tar"], Keys())
    chunks = PairChunks(Reading(lost, IMAGE, 2, seed=0), World(), 1)
    with pytest.raises(BadData, match=r"lost\.tar: ") as caught:
        next(chunks)
    assert "\n" not in str(caught.value)
