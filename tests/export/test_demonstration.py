"""The shipped model, and the command that makes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diptych import repository
from diptych_export.data import shapes
from diptych_export.data.scenes import HELD_OUT, PAIRS
from diptych_export.evaluate import NAME, measure

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repository"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diptych_export", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_both_towers_together_take_at_most_six_megabytes() -> None:
    graphs = repository.load(REPOSITORY, NAME).graphs.values()
    assert sum(graph.stat().st_size for graph in graphs) <= 6_000_000


def test_the_shipped_model_passed_the_gate() -> None:
    figures = repository.load(REPOSITORY, NAME).spec.parity
    assert min(value for name, value in figures.items() if "." in name) >= 0.99999


def test_the_shipped_model_knows_pairs_it_was_never_shown_and_how_things_lie() -> None:
    _, figures = measure(REPOSITORY, scenes=200)
    assert figures.held_out_pairs.value >= 0.95
    assert figures.seen_pairs.value >= 0.95
    assert figures.two_objects.value >= 0.85
    assert figures.left_right.value >= 0.9
    assert figures.above_below.value >= 0.9


def test_evaluate_prints_one_json_object_with_the_counts_behind_each_figure() -> None:
    done = run("demo", "--evaluate", "--scenes", "100", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["held_out_pairs_top1"] >= 0.95
    assert (found["candidate_pairs"], found["held_out_pairs"]) == (len(PAIRS), len(HELD_OUT))
    for name in ("held_out", "seen", "two_object", "left_right", "above_below"):
        assert found[f"{name}_scenes"] == 100
    assert found["fingerprint"] == repository.load(REPOSITORY, NAME).spec.fingerprint


def test_a_demonstration_of_a_few_steps_is_trained_exported_and_measured(tmp_path: Path) -> None:
    where = ["--repository", str(tmp_path / "repository"), "--run", str(tmp_path / "run")]
    done = run("demo", "--steps", "2", "--scenes", "10", *where, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == 1
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run/checkpoints/0000002/open_clip_model.safetensors").is_file()
    spec = repository.load(tmp_path / "repository", NAME).spec
    assert "--steps 2 --seed 0" in spec.source

    done = run("demo", "--steps", "3", *where)
    assert done.returncode == 1
    assert "was begun with --steps 2, cannot go on with 3" in done.stderr


def test_lessons_come_in_batches_of_their_own(tmp_path: Path) -> None:
    done = run("train", "--model", "shapes", "--data", "lessons", "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    assert f"lessons need --batch {shapes.LESSON}" in done.stderr
    told = run("train", "--help").stdout.replace("│", " ")
    assert f"batches of {shapes.LESSON}" in " ".join(told.split())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["demo", "--evaluate", "--repository", "nowhere"], 1, "nowhere: no such folder"),
        (["demo", "--steps", "0"], 2, "--steps"),
        (["demo", "--speed", "9"], 2, "--speed"),
        (["dance"], 2, "dance"),
    ],
)
def test_a_mistake_is_answered_by_one_clear_line(
    arguments: list[str], status: int, said: str
) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
