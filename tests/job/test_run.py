"""Jobs on the real engine: what is written, what is rejected, what a resume refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from diptych.errors import BadData, BadJob, EngineUnavailable
from diptych.gateway.server import gateway
from diptych.job.destination import all_rejects, standing, verify
from diptych.job.plan import Job
from diptych.wire import Vectors
from tests.job.making import HOW, jpeg, rows, run, shard_bytes, write_tar, write_tars
from tests.serving import SHAPES, local, served


def as_matrix(found: list[dict[str, object]], name: str) -> Vectors:
    return np.array([row[name] for row in found])


async def test_vectors_are_those_of_the_gateway(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 7, 4)
    status = await asyncio.to_thread(run, source, tmp_path / "out", kind="pair", dtype="float32")
    assert status == 0
    found = rows(tmp_path / "out")
    assert [row["id"] for row in found] == [
        f"{tmp_path}/in/{n // 4:03d}.tar/{n:05d}" for n in range(7)
    ]
    async with served() as client:
        inputs: list[bytes | str] = [*map(jpeg, range(7)), *(f"picture {n}" for n in range(7))]
        expected = (await client.embed(inputs)).vectors
    np.testing.assert_allclose(as_matrix(found, "image_vector"), expected[:7], atol=1e-5)
    np.testing.assert_allclose(as_matrix(found, "text_vector"), expected[7:], atol=1e-5)


def test_a_row_says_what_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        "\n".join(json.dumps({"text": f"a {n}", "n": n}) for n in range(5))
    )
    run(tmp_path / "in.jsonl", tmp_path / "out", kind="text", keep=("n",), shard_size=3)
    found = rows(tmp_path / "out")
    assert [row["n"] for row in found] == list("01234")
    assert found[4]["content_sha256"] == hashlib.sha256(b"a 4").hexdigest()
    assert {(row["status"], row["error"]) for row in found} == {("ok", None)}
    table = pq.read_table(tmp_path / "out" / "shards" / "000000-0001.parquet")
    assert str(table.schema.field("text_vector").type) == "fixed_size_list<element: halffloat>[96]"
    space = json.loads(table.schema.metadata[b"diptych"])
    assert space["fingerprint"] == SHAPES.spec.fingerprint


def test_a_column_to_keep_takes_no_name_that_the_result_has(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,error,text\n7,none,a\n8,some,b\n")
    run(tmp_path / "in.csv", tmp_path / "out", kind="text", keep=("id", "error"))
    found = rows(tmp_path / "out")
    assert [row["id"] for row in found] == [f"{tmp_path}/in.csv:{n}" for n in (0, 1)]
    assert [(row["source_id"], row["source_error"]) for row in found] == [
        ("7", "none"),
        ("8", "some"),
    ]
    assert {row["error"] for row in found} == {None}


def broken(number: int) -> bytes:
    """Truncated, of another type, of no bytes, or a bomb, in turn."""
    whole = jpeg(number)
    header = b"IHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00"
    bomb = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + header + zlib.crc32(header).to_bytes(4)
    bomb += (0).to_bytes(4) + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4)
    return [whole[: len(whole) // 2], b"%PDF-1.7 no picture", b"", bomb][number % 4]


def test_what_is_broken_is_listed_with_its_reason_and_the_rest_embedded(tmp_path: Path) -> None:
    bad = range(3, 200, 20)  # 5 %, spread over shards and batches
    files = [(f"{n:03d}.jpg", broken(n // 20) if n in bad else jpeg(n)) for n in range(200)]
    write_tar(tmp_path / "all.tar", files)
    write_tar(tmp_path / "good.tar", [file for n, file in enumerate(files) if n not in bad])
    assert run(tmp_path / "all.tar", tmp_path / "out", shard_size=64, dtype="float32") == 3
    found = standing(tmp_path / "out")
    assert (found.inputs, found.ok, found.rejected) == (200, 190, 10)
    listed = dict(all_rejects(tmp_path / "out"))
    assert set(listed) == {f"{tmp_path}/all.tar/{n:03d}" for n in bad}
    for words in (
        "image: is a JPEG image with a truncated",
        "none of the formats",
        "is empty",
        "has 3,600,000,000",
    ):
        assert any(words in reason for reason in listed.values()), (words, listed)
    assert run(tmp_path / "good.tar", tmp_path / "good", dtype="float32") == 0
    kept = [row for row in rows(tmp_path / "out") if row["status"] == "ok"]
    np.testing.assert_allclose(
        as_matrix(kept, "image_vector"),
        as_matrix(rows(tmp_path / "good"), "image_vector"),
        atol=1e-5,
    )
    assert list(verify(tmp_path / "out")) == []


def test_files_that_are_gone_or_forbidden_are_rejects(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    (tmp_path / "odd::name~.jpg").write_bytes(jpeg(2))
    long = "x" * 5000
    (tmp_path / "in.csv").write_text(f"image\n1.jpg\ngone.jpg\n.\nodd::name~.jpg\n{long}\n")
    assert run(tmp_path / "in.csv", tmp_path / "out") == 3
    assert dict(all_rejects(tmp_path / "out")) == {
        f"{tmp_path}/in.csv:1": "cannot be read: No such file or directory",
        f"{tmp_path}/in.csv:2": "cannot be read: Is a directory",
        f"{tmp_path}/in.csv:4": "cannot be read: File name too long",
    }


def test_over_long_texts_are_rejected_or_cut_as_asked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "a " * 500}))
    assert run(tmp_path / "in.jsonl", tmp_path / "refused", kind="text") == 3
    [(_, reason)] = all_rejects(tmp_path / "refused")
    assert "tokens" in reason
    assert run(tmp_path / "in.jsonl", tmp_path / "cut", kind="text", truncate=True) == 0


def test_what_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"\xff.jpg")).write_bytes(jpeg(1))
    assert run(tmp_path / "in", tmp_path / "out") == 0
    assert run(tmp_path / "in", tmp_path / "out") == 0
    assert [row["id"] for row in rows(tmp_path / "out")] == [f"{tmp_path}/in/?.jpg"]
    (tmp_path / "in.jsonl").write_text(
        '{"text": "\\ud800", "n": "\\ud800"}\n{"text": "b", "n": "c"}'
    )
    assert run(tmp_path / "in.jsonl", tmp_path / "texts", kind="text", keep=("n",)) == 3
    assert [(row["status"], row["n"]) for row in rows(tmp_path / "texts")] == [
        ("rejected", "?"),
        ("ok", "c"),
    ]


def test_a_source_without_inputs_is_a_job_that_is_done(tmp_path: Path) -> None:
    write_tar(tmp_path / "empty.tar", [])
    assert run(tmp_path / "empty.tar", tmp_path / "out") == 0
    assert standing(tmp_path / "out").inputs == 0
    assert list(verify(tmp_path / "out")) == []


def test_clip_retrievals_layout_is_arrays_beside_their_metadata(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 10, 10)
    write_tar(tmp_path / "in" / "bad.tar", [("x.jpg", b""), ("x.txt", b"a caption")])
    wanted: dict[str, Any] = {"kind": "pair", "shard_size": 6}
    assert run(source, tmp_path / "npy", layout="clip-retrieval", **wanted) == 3
    run(source, tmp_path / "parquet", **wanted)
    good = [row for row in rows(tmp_path / "parquet") if row["status"] == "ok"]
    for short, name in (("img", "image_vector"), ("text", "text_vector")):
        files = sorted((tmp_path / "npy" / f"{short}_emb").glob(f"{short}_emb_*.npy"))
        arrays = np.concatenate([np.load(file) for file in files])
        assert arrays.dtype == np.float16
        np.testing.assert_array_equal(arrays, as_matrix(good, name))
    tables = sorted((tmp_path / "npy" / "metadata").glob("metadata_*.parquet"))
    listed = [row for file in tables for row in pq.read_table(file).to_pylist()]
    assert [row["image_path"] for row in listed] == [row["id"] for row in good]
    assert listed[3]["caption"] == "picture 3"
    assert dict(all_rejects(tmp_path / "npy")) == {f"{tmp_path}/in/bad.tar/x": "image: is empty"}
    assert list(verify(tmp_path / "npy")) == []
    victim = tmp_path / "npy" / "img_emb" / "img_emb_000000-0000.npy"
    victim.unlink()
    assert f"img_emb/{victim.name}: missing" in list(verify(tmp_path / "npy"))


def test_a_job_that_is_done_does_nothing_more(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 6, 3)
    run(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert run(source, tmp_path / "out") == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_job_is_refused_by_what_differs(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 4, 2)
    out = tmp_path / "out"
    run(source, out)
    before = shard_bytes(out)
    for change, words in (
        ({"dtype": "float32"}, "dtype: was float16, is float32"),
        ({"exif": False, "batch": 8}, "batch: was 64, is 8; exif: was True, is False"),
        ({"kind": "text"}, "kind: was image, is text"),
    ):
        with pytest.raises(BadJob, match=words):
            run(source, out, **change)
    write_tar(tmp_path / "in" / "001.tar", [("other.jpg", jpeg(5) * 50)])
    with pytest.raises(BadJob, match=r"source list has changed .* line 2: was .*001\.tar"):
        run(source, out)
    with pytest.raises(BadJob, match="source: was "):
        run(str(tmp_path / "in" / "000.tar"), out)
    assert shard_bytes(out) == before


def test_another_model_is_refused_by_its_fingerprint(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 2, 2)
    run(source, tmp_path / "out")
    job = Job.load(tmp_path / "out")
    replace(job, space=replace(job.space, fingerprint="0" * 64)).save(tmp_path / "out")
    with pytest.raises(BadJob, match=f"fingerprint: was {'0' * 64}, is {SHAPES.spec.fingerprint}"):
        run(source, tmp_path / "out")


def test_a_column_that_is_not_there_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("picture\n1.jpg\n")
    with pytest.raises(BadData, match="no column any of image"):
        run(tmp_path / "in.csv", tmp_path / "out")
    with pytest.raises(BadData, match="no column any of image"):
        run(tmp_path / "in.csv", tmp_path / "out", how=replace(HOW, workers=2))


async def test_a_running_gateway_embeds_at_bulk_priority(tmp_path: Path) -> None:
    files = [(f"{n:03d}.jpg", jpeg(n)) for n in range(150)] + [("bad.jpg", b"no image")]
    write_tar(tmp_path / "in.tar", files)
    source = tmp_path / "in.tar"
    wanted: dict[str, Any] = {"dtype": "float32", "shard_size": 100}
    settings = local(deterministic=True, max_waiting_inputs=32, metrics_port=0)
    async with gateway(settings) as running:
        how = replace(HOW, engine=f"gateway://{running.address}")
        assert await asyncio.to_thread(run, source, tmp_path / "far", how, **wanted) == 3
    assert await asyncio.to_thread(run, source, tmp_path / "near", **wanted) == 3
    far, near = rows(tmp_path / "far"), rows(tmp_path / "near")
    assert [row["id"] for row in far] == [row["id"] for row in near]
    assert far[-1]["error"] == near[-1]["error"]
    np.testing.assert_allclose(
        as_matrix(far[:-1], "image_vector"), as_matrix(near[:-1], "image_vector"), atol=1e-5
    )


def test_a_gateway_that_is_away_is_waited_for_and_then_an_error(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "in", 2, 2)
    how = replace(HOW, engine="gateway://127.0.0.1:9", patience_s=0.1)
    with pytest.raises(EngineUnavailable):
        run(source, tmp_path / "out", how)
    assert not (tmp_path / "out" / "manifest-00000.jsonl").exists()
