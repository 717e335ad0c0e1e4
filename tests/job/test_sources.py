"""Sources: whatever a person names becomes the same inputs in the same order."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.contract import Tower
from diptych.errors import BadData
from diptych.job.items import Item, Place
from diptych.job.plan import Wanted
from diptych.job.preview import preview
from diptych.job.sources import Source, as_text, survey
from tests.job.making import jpeg, write_tar, write_tars


def opened(source: str, folder: Path, **wanted: Any) -> Source:
    form, lines = survey(source, Wanted(**wanted))
    listing = folder / "listing.jsonl"
    listing.write_text("".join(map(as_text, lines)))
    return Source(listing, Wanted(**{**wanted, "form": form}))


def inputs(source: str, folder: Path, **wanted: Any) -> list[Item]:
    found = opened(source, folder, **wanted)
    return [item for part in range(len(found)) for item in found.read(part, 0)]


def folder(tmp_path: Path) -> str:
    for name in ("b/2.JPG", "a.png", "b/1.jpg", "notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(1))
    return str(tmp_path / "in")


def test_a_folder_is_its_images_in_order_whatever_else_lies_there(tmp_path: Path) -> None:
    root = folder(tmp_path)
    names = [item.id for item in inputs(root, tmp_path)]
    assert names == [f"{root}/a.png", f"{root}/b/1.jpg", f"{root}/b/2.JPG"]
    [text] = inputs(root, tmp_path, kind="text")
    assert text.contents == {Tower.TEXT: Place(f"{root}/notes.txt")}


def test_a_pair_in_a_folder_is_an_image_with_the_text_beside_it(tmp_path: Path) -> None:
    first = inputs(folder(tmp_path), tmp_path, kind="pair")[0]
    assert first.contents[Tower.TEXT] == Place(f"{tmp_path}/in/a.txt")


def test_globs_and_braces_name_files_in_order(tmp_path: Path) -> None:
    root = folder(tmp_path)
    assert [item.id for item in inputs(f"{root}/**/*.jpg", tmp_path)] == [f"{root}/b/1.jpg"]
    braces = inputs(f"{root}/{{b/1.jpg,a.png}}", tmp_path)
    assert [item.id for item in braces] == [f"{root}/b/1.jpg", f"{root}/a.png"]


def test_a_tar_is_its_samples_with_the_fields_to_keep(tmp_path: Path) -> None:
    fields = json.dumps({"caption": "a cat", "licence": "CC0", "tags": ["x", 1]}).encode()
    write_tar(tmp_path / "0.tar", [("k.jpg", b"one"), ("k.json", fields), ("l.txt", b"no image")])
    whole, lacking = inputs(
        f"{tmp_path}/{{0..0}}.tar", tmp_path, kind="pair", keep=("licence", "tags", "absent")
    )
    assert whole.id == f"{tmp_path}/0.tar/k"
    assert whole.contents == {Tower.IMAGE: b"one", Tower.TEXT: "a cat"}
    assert whole.metadata == {"licence": "CC0", "tags": '["x", 1]', "absent": None}
    assert lacking.problem == "no image among: txt"


def write_parquet(path: Path) -> None:
    images = [{"bytes": b"one", "path": None}, {"bytes": None, "path": "sub/2.jpg"}, None]
    table = pa.table({"image": images, "caption": ["a", "b", "c"], "n": [1, 2, 3]})
    pq.write_table(table, path, row_group_size=2)


def write_csv(path: Path) -> None:
    path.write_text("image,caption,n\none.jpg,a,1\nsub/2.jpg,b,2\n,c,3\n")


def write_json_lines(path: Path) -> None:
    records = [{"image": "one.jpg", "caption": "a", "n": 1}, {"image": "sub/2.jpg", "n": 2}]
    lines = [json.dumps(record) for record in records]
    path.write_bytes(gzip.compress("\n".join([*lines, "{broken"]).encode()))


@pytest.mark.parametrize(
    ("name", "write", "third"),
    [
        ("t.parquet", write_parquet, "no image"),
        ("t.csv", write_csv, "no image"),
        ("t.jsonl.gz", write_json_lines, "not a JSON object"),
    ],
)
def test_a_table_is_its_rows_with_paths_counted_from_its_folder(
    name: str, write: Callable[[Path], None], third: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    first, second, last = inputs(str(tmp_path / name), tmp_path, keep=("n",))
    assert first.id == f"{tmp_path}/{name}:0"
    assert first.contents[Tower.IMAGE] in (b"one", Place(f"{tmp_path}/one.jpg"))
    assert first.metadata == {"n": "1"}
    assert second.contents == {Tower.IMAGE: Place(f"{tmp_path}/sub/2.jpg")}
    assert last.problem == third


def test_any_place_that_fsspec_knows_is_a_source(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/jobs/in/b.png", jpeg(2))
    memory.pipe("/jobs/in/a.jpg", jpeg(1))
    try:
        for source in ("memory://jobs/in", "memory://jobs/in/*", "memory://jobs/in/{a.jpg,b.png}"):
            names = [item.id.rpartition("/")[2] for item in inputs(source, tmp_path)]
            assert names == ["a.jpg", "b.png"]
        with pytest.raises(BadData, match="memory://jobs/none"):
            inputs("memory://jobs/none", tmp_path)
    finally:
        memory.rm("/jobs", recursive=True)


@pytest.mark.parametrize("name", ["set.tar", "set.parquet", "set.csv", "set.jsonl", "in"])
def test_a_part_can_be_read_from_any_input_on(name: str, tmp_path: Path) -> None:
    captions = [f"text {n}" for n in range(7)]
    match name:
        case "set.tar":
            files = [(f"{n}.txt", text.encode()) for n, text in enumerate(captions)]
            write_tar(tmp_path / name, files)
        case "set.parquet":
            pq.write_table(pa.table({"text": captions}), tmp_path / name, row_group_size=3)
        case "set.csv":
            (tmp_path / name).write_text("\n".join(["text", *captions]))
        case "set.jsonl":
            (tmp_path / name).write_text("\n".join(json.dumps({"text": t}) for t in captions))
        case _:
            (tmp_path / name).mkdir()
            for n, text in enumerate(captions):
                (tmp_path / name / f"{n}.txt").write_text(text)
    source = opened(str(tmp_path / name), tmp_path, kind="text")
    whole = list(source.read(0, 0))
    assert len(whole) == 7
    for start in range(8):
        assert list(source.read(0, start)) == whole[start:]


def test_what_is_damaged_is_one_input_with_its_problem(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 4, 4)
    tar = tmp_path / "in" / "000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    *_, last = inputs(source, tmp_path)
    assert last.id == str(tar)
    assert "is damaged after" in last.problem
    pq.write_table(pa.table({"text": ["a"] * 10}), tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-30])
    [only] = inputs(str(tmp_path / "t.parquet"), tmp_path, kind="text")
    assert "is damaged after 0 rows" in only.problem


def test_a_long_field_ends_no_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\n" + "x" * 300_000 + "\nb\n")
    assert [
        len(str(item.contents[Tower.TEXT]))
        for item in inputs(f"{tmp_path}/t.csv", tmp_path, kind="text")
    ] == [300_000, 1]


def test_a_limit_is_the_first_inputs_across_files(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 10, 4)
    whole = inputs(source, tmp_path)
    for limit in (1, 4, 6, 10, 99):
        assert inputs(source, tmp_path, limit=limit) == whole[:limit]


def test_a_folder_of_files_is_cut_into_parts_of_a_shard_each(tmp_path: Path) -> None:
    source = opened(folder(tmp_path), tmp_path, shard_size=2)
    assert (len(source), source.inputs) == (2, 3)
    assert [item.id for item in islice(source.read(1, 0), 5)] == [f"{tmp_path}/in/b/2.JPG"]


def test_what_cannot_be_a_source_is_refused_by_name(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for wrong, words in (
        (f"{root}/none", "none: no such file"),
        (f"{root}/*.tiff", "no such file"),
        (f"{root}/{{a.png,x.csv}}", "no such file"),
    ):
        with pytest.raises(BadData, match=words):
            inputs(wrong, tmp_path)
    (tmp_path / "in" / "x.csv").write_text("image,n\n")
    with pytest.raises(BadData, match=r"x\.csv: not of the form of the files before it, files"):
        inputs(f"{root}/{{a.png,x.csv}}", tmp_path)
    with pytest.raises(BadData, match="no column 'picture'; there are: image, n"):
        inputs(f"{root}/x.csv", tmp_path, image="picture")
    with pytest.raises(ValueError, match="this source is files"):
        inputs(root, tmp_path, keep=("n",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match="no image files there"):
        inputs(str(tmp_path / "empty"), tmp_path)


def test_a_preview_counts_and_samples(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 10, 4)
    (tmp_path / "in" / "002.tar").write_bytes(b"not a tar")
    found = preview(source, Wanted(kind="text"))
    assert (found.form, found.files, found.inputs, found.problems) == ("webdataset", 3, 9, 1)
    assert found.samples is not None
    assert found.samples[0] == (f"{tmp_path}/in/000.tar/00000", "text 'picture 0'")
