"""Killed at any moment, by any number, on any disk: what is there in the end is the same bits."""

from __future__ import annotations

import ctypes
import os
import resource
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from diptych.job.destination import standing, verify
from tests.job.making import arguments, finish, rows, run, shard_bytes, write_tars

INPUTS = 360
WANTED: dict[str, Any] = {"shard_size": 10, "batch": 4}
FLAGS = ("--shard-size", "10", "--batch", "4")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tars(tmp_path_factory.mktemp("source"), INPUTS, 90)


@pytest.fixture(scope="module")
def undisturbed(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run writes that nothing happens to: four parts of nine shards of ten."""
    destination = tmp_path_factory.mktemp("undisturbed")
    assert run(source, destination, **WANTED) == 0
    assert len({row["id"] for row in rows(destination)}) == INPUTS
    return destination


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process group of its own, none of which outlives this."""
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def begins(destination: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a run has added to what is in `destination`, or has ended."""
    before = len(shard_bytes(destination))
    while len(shard_bytes(destination)) == before and process.poll() is None:
        time.sleep(0.005)


def test_a_run_killed_again_and_again_writes_the_same_bits(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    random, kills = Random(7), 0
    for number in range(8):
        with started(arguments(source, tmp_path, *FLAGS)) as process:
            if number % 4:  # else while it starts
                begins(tmp_path, process)
            time.sleep(random.uniform(0, 0.03 if number % 4 else 0.5))
            kills += process.poll() is None
            process.kill()
    assert kills >= 3
    assert run(source, tmp_path, **WANTED) == 0
    assert shard_bytes(tmp_path) == shard_bytes(undisturbed)
    assert list(verify(tmp_path)) == []


def test_what_two_dead_workers_of_four_had_is_taken_over(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    with started(arguments(source, tmp_path, *FLAGS, "--workers", "4")) as process:
        begins(tmp_path, process)
        for victim in workers(process.pid)[:2]:
            victim.kill()
        assert process.wait(timeout=60) == 0
    assert shard_bytes(tmp_path) == shard_bytes(undisturbed)
    assert list(verify(tmp_path)) == []


def workers(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def test_workers_end_with_the_run_that_started_them(source: str, tmp_path: Path) -> None:
    with started(arguments(source, tmp_path, *FLAGS, "--workers", "2")) as process:
        while not (found := workers(process.pid)) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        _, alive = psutil.wait_procs(found, timeout=20)
        assert not alive


def test_two_machines_do_their_own_parts_and_together_all(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    both = (*FLAGS, "--machines", "2")
    done = finish(arguments(source, tmp_path, *both), env={"JOB_COMPLETION_INDEX": "1"})
    assert done.returncode == 0, done.stderr
    assert standing(tmp_path).parts_done == 2
    assert finish(arguments(source, tmp_path, *both, "--machine", "0")).returncode == 0
    assert shard_bytes(tmp_path) == shard_bytes(undisturbed)
    assert list(verify(tmp_path)) == []


def flip_a_bit(destination: Path) -> str:
    path = destination / "shards" / "000001-0002.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "shards/000001-0002.parquet: damaged"


def truncate(destination: Path) -> str:
    os.truncate(destination / "shards" / "000000-0004.parquet", 1000)
    return "shards/000000-0004.parquet: has 1,000 bytes"


def delete(destination: Path) -> str:
    (destination / "shards" / "000003-0000.parquet").unlink()
    return "shards/000003-0000.parquet: missing"


def lose_a_line(destination: Path) -> str:
    path = destination / "manifest-00000.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:11] + lines[12:]))
    return "shards/000001-0002.parquet: not in the manifest"


def change_a_line(destination: Path) -> str:
    path = destination / "manifest-00000.jsonl"
    path.write_text(path.read_text().replace('"ok": 10', '"ok": 11', 1))
    return "manifest-00000.jsonl:1: damaged line"


def lose_the_source_list(destination: Path) -> str:
    (destination / "sources.jsonl").unlink()
    return "sources.jsonl: missing"


def change_the_source_list(destination: Path) -> str:
    path = destination / "sources.jsonl"
    path.write_bytes(path.read_bytes().replace(b"001.tar", b"000.tar"))
    return "sources.jsonl: damaged"


@pytest.mark.parametrize("harm", [lose_the_source_list, change_the_source_list])
def test_a_damaged_source_list_is_written_again(
    harm: Callable[[Path], str], source: str, undisturbed: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "out"
    shutil.copytree(undisturbed, destination)
    (destination / "shards" / "000001-0002.parquet").unlink()
    named = harm(destination)
    assert any(problem.startswith(named) for problem in verify(destination))
    assert run(source, destination, **WANTED) == 0
    assert shard_bytes(destination) == shard_bytes(undisturbed)
    assert list(verify(destination)) == []


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, delete, lose_a_line, change_a_line])
def test_damage_is_named_and_done_again_alone(
    harm: Callable[[Path], str], source: str, undisturbed: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "out"
    shutil.copytree(undisturbed, destination)
    named = harm(destination)
    assert any(problem.startswith(named) for problem in verify(destination))
    before = {p: p.stat().st_mtime_ns for p in (destination / "shards").iterdir()}
    assert run(source, destination, **WANTED) == 0
    after = {p: p.stat().st_mtime_ns for p in (destination / "shards").iterdir()}
    assert len([p for p in after if after[p] != before.get(p)]) == 1
    assert shard_bytes(destination) == shard_bytes(undisturbed)
    assert list(verify(destination)) == []


def test_a_full_disk_is_one_clear_error_and_the_run_can_go_on(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    largest = max(map(len, shard_bytes(undisturbed).values()))
    for room in (200, 1000, largest - 1, largest):  # for the list, a shard, the manifest's lines

        def fill(room: int = room) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        done = finish(arguments(source, tmp_path, *FLAGS), preexec_fn=fill)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"diptych: cannot write {tmp_path}")
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.rglob("*.aside"))
    assert run(source, tmp_path, **WANTED) == 0
    assert shard_bytes(tmp_path) == shard_bytes(undisturbed)


def test_a_disk_that_is_really_full_is_one_clear_error_and_the_run_can_go_on(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    job = shlex.join(arguments(source, disk, *FLAGS))
    script = f"""mount -t tmpfs -o size=200k none {disk} || exit 77
        {job}; echo status $?; find {disk} -name '*.aside'
        mount -o remount,size=64m {disk}; {job}; cp -r {disk} {kept}"""
    done = finish(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script])
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this kernel lets nobody mount a disk of his own")
    assert done.stdout.splitlines()[0] == "status 1", done.stderr
    assert ".aside" not in done.stdout
    said = next(line for line in done.stderr.splitlines() if line.startswith("diptych:"))
    assert said.startswith(f"diptych: cannot write {disk}/")
    assert said.endswith(": No space left on device")
    assert "Traceback" not in done.stderr
    assert shard_bytes(kept) == shard_bytes(undisturbed)
    assert list(verify(kept)) == []


def test_a_read_only_destination_is_one_clear_error(
    source: str, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    (tmp_path / "out" / "shards" / "000001-0001.parquet").unlink()
    for place in ("out/shards", "out"):
        (tmp_path / place).chmod(0o500)
        done = finish(arguments(source, tmp_path / "out", *FLAGS), preexec_fn=obey_modes)
        (tmp_path / place).chmod(0o700)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"diptych: cannot write {tmp_path}/{place}/")
        assert done.stderr.splitlines()[-1].endswith(": Permission denied")
    assert run(source, tmp_path / "out", **WANTED) == 0
    assert shard_bytes(tmp_path / "out") == shard_bytes(undisturbed)


def obey_modes() -> None:
    """Even as root: without the capability to override what a file's mode says."""
    drop_from_bounds, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounds, dac_override, 0, 0, 0)


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    peaks = []
    for inputs in (150, 1500):
        source = write_tars(tmp_path / str(inputs), inputs, 500)
        command = arguments(source, tmp_path / f"out{inputs}", "--shard-size", "100")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        peaks.append(usage.ru_maxrss)
    assert peaks[1] < 1.1 * peaks[0]
