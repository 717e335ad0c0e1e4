"""The manifest: a line counts whole or not at all, and a dead worker's lock is free."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from diptych.errors import BadJob
from diptych.job.files import Locks, make_aside
from diptych.job.manifest import File, Manifest, OwnManifest, Record

RECORD = Record(0, 0, False, 5, 1, "f" * 64, "an engine", (File("shards/x.parquet", 10, "0"),))


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[OwnManifest]:
    with Locks(tmp_path / "locks") as locks:
        yield OwnManifest(tmp_path, locks, 0)


def test_what_was_added_is_read_by_everyone(manifest: OwnManifest, tmp_path: Path) -> None:
    last = replace(RECORD, shard=1, is_last=True)
    manifest.add(RECORD)
    manifest.add(last)
    other = Manifest(tmp_path)
    assert list(other.read().values()) == [RECORD, last]
    assert other.todo(0).is_nothing
    assert not other.todo(1).is_nothing


def test_what_others_add_or_take_away_is_seen(manifest: OwnManifest, tmp_path: Path) -> None:
    reader, expected = Manifest(tmp_path), {}
    with Locks(tmp_path / "locks") as locks:
        other = OwnManifest(tmp_path, locks, 1)
        for number in range(6):
            record = replace(RECORD, part=number % 2, shard=number)
            (other if number % 3 else manifest).add(record)
            expected[record.key] = record
            assert reader.read() == expected
            assert reader.todo(1).done == {shard for part, shard in expected if part == 1}
        other.drop([(1, 5), (0, 0)])
    assert set(reader.read()) == set(expected) - {(1, 5), (0, 0)}
    assert reader.todo(1).done == {1, 3}
    with (tmp_path / "manifest-00001.jsonl").open("ab") as stream:
        stream.write(b"half a line")
    assert len(reader.read()) == 4
    assert reader.damaged == ["manifest-00001.jsonl:4"]


def test_a_line_cut_short_by_a_kill_is_no_line_and_is_written_over(
    manifest: OwnManifest, tmp_path: Path
) -> None:
    manifest.add(RECORD)
    path = tmp_path / "manifest-00000.jsonl"
    whole = path.read_bytes()
    for end in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole[:end])
        assert list(Manifest(tmp_path).read()) == [(0, 0)]
        manifest.add(replace(RECORD, shard=1))
        assert list(Manifest(tmp_path).read()) == [(0, 0), (0, 1)]


def test_a_changed_line_is_found_and_forgotten(manifest: OwnManifest, tmp_path: Path) -> None:
    for shard in range(3):
        manifest.add(replace(RECORD, shard=shard))
    path = tmp_path / "manifest-00000.jsonl"
    path.write_text(
        path.read_text().replace('"shard": 1, "is_last": false', '"shard": 1, "is_last": true')
    )
    assert set(manifest.read()) == {(0, 0), (0, 2)}
    assert manifest.damaged == ["manifest-00000.jsonl:2"]
    assert manifest.todo(0).first == 1
    manifest.drop([(0, 2)])
    assert set(manifest.read()) == {(0, 0)}
    assert manifest.damaged == []


def test_the_kernel_frees_a_dead_workers_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from diptych.job.files import Locks\n"
        "with Locks(Path(sys.argv[1])) as locks:\n"
        "    print(locks.take(3), locks.take(4), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "locks")]
    with Locks(tmp_path / "locks") as locks:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "True True\n"
            assert not locks.take(3)
            assert locks.take(5)
            holder.kill()
        assert locks.take(3)


def test_what_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    def half(aside: Path) -> None:
        aside.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(BadJob, match=r"cannot write .*: No space left on device"):
        make_aside(tmp_path / "file", half)
    assert list(tmp_path.iterdir()) == []
