"""`diptych job` as a person meets it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from diptych.commands import job as command
from diptych.job.destination import Standing, standing
from diptych.job.plan import Wanted
from diptych.job.progress import progress_line
from tests.job.making import HOW, arguments, finish, jpeg, run, write_tar, write_tars
from tests.serving import SHAPES


def write_mixed(tmp_path: Path) -> Path:
    files = [(f"{n}.jpg", jpeg(n) if n % 5 else b"no image") for n in range(10)]
    return write_tar(tmp_path / "in.tar", files)


def diptych(*words: object) -> tuple[int, str, str]:
    done = finish([sys.executable, "-W", "error", "-m", "diptych", "job", *map(str, words)])
    return done.returncode, done.stdout, done.stderr


def test_run_status_and_verify_tell_programs_the_same(tmp_path: Path) -> None:
    source, out = write_mixed(tmp_path), tmp_path / "out"
    ran = finish(arguments(source, out, "--json"))
    assert ran.returncode == 3, ran.stderr
    summary = json.loads(ran.stdout)
    assert (summary["inputs"], summary["ok"], summary["rejected"]) == (10, 8, 2)
    assert summary["fingerprint"] == SHAPES.spec.fingerprint
    code, told, _ = diptych("status", out, "--json")
    assert code == 0
    assert json.loads(told).items() <= summary.items()
    code, told, _ = diptych("status", out, "--rejects", "--json")
    assert [json.loads(line)["id"] for line in told.splitlines()] == [
        f"{source}/{n}" for n in (0, 5)
    ]
    code, told, _ = diptych("verify", out, "--json")
    assert (code, json.loads(told)["verified"]) == (0, True)
    (out / "shards" / "000000-0000.parquet").unlink()
    code, told, _ = diptych("verify", out)
    assert (code, told) == (1, "problem: shards/000000-0000.parquet: missing\n")
    code, _, said = diptych("status", out, "--rejects")
    assert (code, "diptych job verify names all that is damaged" in said) == (1, True)


def test_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    source = write_mixed(tmp_path)
    for words, status, line in (
        (("run", source, "s3://bucket/out"), 2, "the destination is a local or mounted folder"),
        (("run", f"{tmp_path}/none", tmp_path / "out"), 1, "no such file"),
        (("run", source, tmp_path / "out", "--shard-size", "0"), 2, "shard_size must be at least"),
        (("run", source, tmp_path / "out", "--machine", "1"), 2, "machine 1 is none of 1"),
        (("status", tmp_path), 1, "no job here"),
    ):
        code, _, said = diptych(*words)
        assert code == status, said
        assert line in said.replace("\n", " ")
        assert "Traceback" not in said


def test_a_dry_run_counts_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tars(tmp_path / "in", 10, 4)
    command.run(source, tmp_path / "out", Wanted(), HOW, dry_run=True, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["files"], told["inputs"], told["problems"]) == (3, 10, 0)
    assert not (tmp_path / "out").exists()


def known(tmp_path: Path) -> Standing:
    run(write_tars(tmp_path / "in", 9, 3), tmp_path / "out")
    return standing(tmp_path / "out")


def test_progress_says_rate_rejects_and_time_left(tmp_path: Path) -> None:
    before = replace(known(tmp_path), ok=10, rejected=1, inputs=100, about=100)
    line = progress_line(before, before, 50, 2, 10.0)
    assert line == "63 of 100 inputs, 5/s, 3 rejected, 0:07 left"
    line = progress_line(before, replace(before, about=90_000), 50, 2, 10.0)
    assert line == "63 of 90,000 inputs, 5/s, 3 rejected, 4:48:16 left"
    unknown = replace(before, ok=0, rejected=0, inputs=None, about=None)
    assert progress_line(unknown, unknown, 5, 1, 2.0) == "6 inputs, 3/s, 1 rejected"


def test_how_many_there_will_be_is_guessed_from_the_parts_that_are_done(tmp_path: Path) -> None:
    known(tmp_path)
    manifest = tmp_path / "out" / "manifest-00000.jsonl"
    manifest.write_text(manifest.read_text().splitlines(keepends=True)[0])
    found = standing(tmp_path / "out")
    assert (found.inputs, found.about, found.parts_done) == (None, 9, 1)
    line = progress_line(found, found, 1, 0, 0.5)
    assert line == "4 of about 9 inputs, 2/s, 0 rejected, 0:02 left"
