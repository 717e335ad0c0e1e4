"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.export.train.files import csv_of_pairs
from tests.export.train.towers import towers

ROOT = Path(__file__).parents[3]
STEPS = 48


def command(data: Path, out: Path, *more: str) -> list[str]:
    """Dropout, random views, shuffling and two chunks a batch: all that could differ."""
    return [
        *(sys.executable, "-W", "error", "-m", "diptych_export", "train"),
        *("--model", str(data.parent / "config.json"), "--data", str(data), "--out", str(out)),
        *("--steps", str(STEPS), "--batch", "8", "--chunk", "4", "--every", "16"),
        *("--warmup", "2", "--shuffle", "6", "--least-view", "0.5", *more),
    ]


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=100, cwd=ROOT, env=one_thread()
    )


def one_thread() -> dict[str, str]:
    """And on the CPU, where the same numbers come out again."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def curve(out: Path) -> list[dict[str, float]]:
    """Every line, but for how long it took."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def weights(out: Path) -> dict[str, Any]:
    return load_file(out / f"checkpoints/{STEPS:07}/model.safetensors")


def kill_after(step: int, data: Path, out: Path) -> None:
    """SIGKILL, in the midst of it."""
    log = out / "metrics.jsonl"
    with subprocess.Popen(command(data, out), cwd=ROOT, env=one_thread()) as process:
        while not log.exists() or len(log.read_text().splitlines()) < step:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.002)
        process.kill()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    towers(dropout=0.3).config.to_json_file(folder / "config.json")
    path = csv_of_pairs(folder / "pairs.csv", range(20))
    (folder / "pictures/7.png").write_bytes(b"broken")
    return path


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    done = run(data, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{out}/checkpoints/{STEPS:07}"
    assert "samples skipped so far: 1, listed in" in done.stderr
    return out


def test_a_killed_run_reaches_the_same_curve_and_the_same_weights(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    kill_after(20, data, tmp_path)
    assert len(curve(tmp_path)) < STEPS
    done = run(data, tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert curve(tmp_path) == curve(whole)
    found, expected = weights(tmp_path), weights(whole)
    assert all(found[name].equal(value) for name, value in expected.items())


def test_told_to_stop_it_finishes_its_step_and_goes_on_from_there(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    log = tmp_path / "metrics.jsonl"
    with subprocess.Popen(
        command(data, tmp_path), cwd=ROOT, env=one_thread(), stderr=subprocess.PIPE, text=True
    ) as process:
        while not log.exists() or not log.read_text():
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 1
    assert "stopped after step" in said.splitlines()[-1]
    assert "Traceback" not in said
    done = run(data, tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert curve(tmp_path) == curve(whole)


def test_a_run_leaves_all_it_promises(whole: Path) -> None:
    assert [line["number"] for line in curve(whole)] == list(range(1, STEPS + 1))
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((whole / "tensorboard").glob("events.out.tfevents.*"))
    assert json.loads((whole / "run.json").read_text())["batch"] == 8
    [reject] = [json.loads(line) for line in (whole / "rejects.jsonl").read_text().splitlines()]
    assert reject["id"].endswith("pairs.csv:7")
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == [
        f"{step:07}" for step in (16, 32, 48)
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "holds a run; go on with --resume"),
        (("--device", "cuda"), "--device cuda: torch finds no GPU"),
        (("--resume", "--rate", "1"), "was begun with --rate 0.0005, cannot go on with 1.0"),
    ],
)
def test_a_finished_run_is_not_overwritten_nor_mixed_with_another(
    more: tuple[str, ...], said: str, data: Path, whole: Path
) -> None:
    done = run(data, whole, *more)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
