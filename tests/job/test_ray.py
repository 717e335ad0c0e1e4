"""Jobs on Ray: two actors on this machine, one of them killed, and the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from diptych.job.destination import verify
from tests.job.making import HOW, arguments, finish, jpeg, run, shard_bytes, write_tar, write_tars

INPUTS = 600
WANTED: dict[str, Any] = {"shard_size": 10, "batch": 4}
FLAGS = ("--shard-size", "10", "--batch", "4", "--runner", "ray", "--workers", "2", "--json")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("source")
    write_tar(folder / "bad.tar", [("x.jpg", b"no image"), ("y.jpg", jpeg(1))])
    return write_tars(folder, INPUTS, 100)


@pytest.fixture(scope="module")
def undisturbed(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one worker writes."""
    destination = tmp_path_factory.mktemp("undisturbed")
    assert run(source, destination, **WANTED) == 3
    return destination


@contextmanager
def on_ray(source: str, destination: Path, home: Path) -> Iterator[subprocess.Popen[str]]:
    """A run with two actors at work, of whose processes none outlives this."""
    command = ["env", f"HOME={home}", *arguments(source, destination, *FLAGS)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        seen: list[psutil.Process] = []
        try:
            while process.poll() is None and not (
                shard_bytes(destination) and len(actors(seen)) > 1
            ):
                time.sleep(0.05)
                with suppress(psutil.Error):
                    seen = psutil.Process(process.pid).children(recursive=True)
            yield process
            _, alive = psutil.wait_procs(seen, timeout=20)
            assert not alive
        finally:
            process.kill()
            for one in seen:
                with suppress(psutil.Error):
                    one.kill()


def listens_beyond_this_machine(process: psutil.Process) -> bool:
    found = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    return any(not one.laddr.ip.removeprefix("::ffff:").startswith("127.") for one in found)


def test_two_actors_write_what_one_worker_does(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    with on_ray(source, tmp_path / "out", tmp_path) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(actors(family)) == 2
        assert not [one for one in family if listens_beyond_this_machine(one)]
        out, said = process.communicate(timeout=100)
    assert process.returncode == 3, said
    summary = json.loads(out)
    assert (summary["ok"], summary["rejected"]) == (INPUTS + 1, 1)
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    assert list(verify(tmp_path / "out")) == []


def test_what_a_dead_actor_had_is_taken_over(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    with on_ray(source, tmp_path / "out", tmp_path) as process:
        actors(psutil.Process(process.pid).children(recursive=True))[0].kill()
        _, said = process.communicate(timeout=100)
    assert process.returncode == 3, said
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)
    lines = (tmp_path / "out" / "manifest-00000.jsonl").read_text().splitlines()
    keys = [(line["part"], line["shard"]) for line in map(json.loads, lines)]
    assert len(set(keys)) == len(keys)  # no shard was done twice
    assert list(verify(tmp_path / "out")) == []


def actors(family: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for one in family:
        with suppress(psutil.Error):
            found += [one] if "MapWorker" in " ".join(one.cmdline()) else []
    return found


def test_what_ray_cannot_do_is_said_before_it_starts(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out --machines"):
        run(source, tmp_path / "out", replace(HOW, runner="ray", machines=2, machine=0))
    without = "import sys; sys.modules['ray'] = None; from diptych.cli import main; main()"
    done = finish([sys.executable, "-c", without, *arguments(source, tmp_path, *FLAGS)[5:]])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "diptych: ray is not installed: pip install 'diptych[ray]'"
    )
