"""What counts as a pair in each kind of file, and what is skipped, by name and reason."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.job.places import expand
from diptych.preprocess.images import LIMITS
from diptych_export.data.pairs import Item, Keys, Pair, Reject
from diptych_export.data.shards import shards
from diptych_export.errors import BadData
from tests.export.train.files import csv_of_pairs, parquet_of_pairs, picture, tar, tar_of_pairs

USUAL = Keys()


def read(path: Path, keys: Keys = USUAL, start: int = 0) -> list[Item]:
    [shard] = shards([str(path)], keys)
    return list(shard.read(start))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Pair)]


def test_braces_are_expanded_as_in_a_shell() -> None:
    assert expand("s3://b/{00..02}-{a,b}.tar") == [
        f"s3://b/{number}-{letter}.tar" for number in ("00", "01", "02") for letter in "ab"
    ]
    assert expand("http://h/{8..11}.csv")[-1] == "http://h/11.csv"


def test_local_wildcards_are_sorted_and_must_fit_something(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        csv_of_pairs(tmp_path / name, [1])
    assert expand(f"{tmp_path}/*.csv") == [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv"]
    with pytest.raises(BadData, match="no such file"):
        expand(f"{tmp_path}/*.tar")


def test_a_file_of_no_known_kind_is_refused() -> None:
    with pytest.raises(BadData, match=r"pairs\.xlsx: neither \.tar"):
        shards(["pairs.xlsx"], USUAL)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param((tar_of_pairs, "a.tar"), id="tar"),
        pytest.param((tar_of_pairs, "a.tgz"), id="tgz"),
        pytest.param((csv_of_pairs, "a.csv"), id="csv"),
        pytest.param((csv_of_pairs, "a.tsv"), id="tsv"),
        pytest.param((parquet_of_pairs, "a.parquet"), id="parquet"),
    ],
)
def test_every_kind_yields_its_pairs_in_order_from_any_start(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    writer, name = write
    path = writer(tmp_path / name, range(11))
    pairs = read(path)
    assert texts(pairs) == [f"caption {number}" for number in range(11)]
    images = [pair.encoded() for pair in pairs if isinstance(pair, Pair)]
    assert images == [picture(number) for number in range(11)]
    assert len({pair.id for pair in pairs}) == 11
    for start in (3, 4, 10, 11):
        assert read(path, start=start) == pairs[start:]


def test_shards_are_read_through_fsspec(tmp_path: Path) -> None:
    path = tar_of_pairs(tmp_path / "a.tar", range(3))
    [shard] = shards([f"file://{path}"], USUAL)
    assert len(list(shard.read(0))) == 3


def test_a_caption_may_stand_in_a_samples_json(tmp_path: Path) -> None:
    image = picture(1)
    path = tar(
        tmp_path / "a.tar",
        [("x/1.jpg", image), ("x/1.json", b'{"caption": "two words", "alt": "other"}')],
    )
    assert texts(read(path)) == ["two words"]
    assert texts(read(path, Keys(text="alt"))) == ["other"]


def test_samples_that_lack_something_are_named_and_keep_their_number(tmp_path: Path) -> None:
    image = picture(1)
    members = [("a.png", image), ("b.txt", b"text"), ("c.png", image), ("c.txt", b"good")]
    path = tar(tmp_path / "a.tar", members)
    lacking, alone, good = read(path)
    assert lacking == Reject(f"{path}/a", "no text among: png")
    assert alone == Reject(f"{path}/b", "no image among: txt")
    assert isinstance(good, Pair)
    assert read(path, start=2) == [good]


def test_an_oversized_file_is_never_read(tmp_path: Path) -> None:
    huge = bytes(LIMITS.max_bytes + 1)
    path = tar(tmp_path / "a.tar", [("a.png", huge), ("a.txt", b"text")])
    [reject] = read(path)
    assert reject == Reject(f"{path}/a", "png has over 20,971,520 bytes")


def test_a_damaged_tar_gives_what_came_before_the_damage(tmp_path: Path) -> None:
    content = tar_of_pairs(tmp_path / "a.tar", range(5)).read_bytes()
    path = tmp_path / "cut.tar"
    one = 7 * 512  # a sample: its picture in one header and four blocks, its text in two
    for end in (one, one + 100, one + 600, 2 * one - 512, len(content) - 10_240):
        path.write_bytes(content[:end])
        items = read(path)
        assert texts(items) == [f"caption {number}" for number in range(max(1, end // one))]
        assert isinstance(items[-1], Reject)
        assert "is damaged after" in items[-1].reason


def test_a_shard_that_cannot_be_reached_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"a\.tar: "):
        read(tmp_path / "a.tar")


def test_columns_are_found_by_usual_names_or_by_those_given(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("picture,words\np.png,one\n")
    with pytest.raises(BadData, match=r"no column any of image, .*; there are: picture, words"):
        read(path)
    [pair] = read(path, Keys(image="picture", text="words"))
    assert pair == Pair(f"{path}:0", f"{tmp_path}/p.png", "one")


def test_rows_that_lack_something_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = pa.array([b"bytes", None], pa.binary())
    pq.write_table(pa.table({"image": images, "text": [None, "text"]}), path)
    assert read(path) == [Reject(f"{path}:0", "no text"), Reject(f"{path}:1", "no image")]


def test_a_parquet_file_that_is_none_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(BadData, match=r"a\.parquet: "):
        read(path)
