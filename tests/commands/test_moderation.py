"""`diptych moderate` and `diptych policy` as a user meets them: real processes, real sockets."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych.policy_files import read_policy
from tests.drawing import JUDGED, PICTURES, judged
from tests.serving import SHAPES
from tests.test_cli import diptych, lines, serve

POLICIES = JUDGED.parent
FILE = POLICIES / "shapes.yaml"
SMALL = str(JUDGED / "small_red_triangle.png")
STAR = str(JUDGED / "red_star.png")
CIRCLE = str(PICTURES / "red_circle.png")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process, printed = serve("--policies", str(POLICIES))
    assert "  policy shapes version 1: 1 concepts" in printed
    yield printed[-1].removeprefix("listening on ")
    process.terminate()
    process.communicate(timeout=30)  # closes its pipe too
    assert process.returncode == 0


def test_the_shipped_examples_are_what_draws_them_says() -> None:
    drawn = judged()
    assert {path.name for path in JUDGED.iterdir()} == set(drawn)
    for name, data in drawn.items():
        ours, theirs = (np.asarray(Image.open(io.BytesIO(one))) for one in (data, _read(name)))
        np.testing.assert_array_equal(ours, theirs)


def _read(name: str) -> bytes:
    return (JUDGED / name).read_bytes()


def test_moderate_prints_one_line_per_input_with_all_that_was_decided_by(address: str) -> None:
    done = diptych(
        "moderate", "--address", address, "--policy", "shapes", "--json",
        "--image", SMALL, "--text", "a blue star", "--image", STAR, "--caption", "a red triangle",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    small, text, pair = lines(done)
    assert [one["verdict"] for one in (small, text, pair)] == ["flag", "pass", "flag"]
    assert (pair["kind"], pair["input"], pair["caption"]) == ("image", STAR, "a red triangle")
    for line in (small, text, pair):
        assert (line["policy"], line["version"]) == ("shapes", "1")
        assert line["digest"] == read_policy(FILE).policy.digest
        assert line["fingerprint"] == SHAPES.spec.fingerprint
    concepts: Any = pair["concepts"]
    assert [(one["part"], one["reached"]) for one in concepts] == [("image", False), ("text", True)]
    assert set(concepts[0]) == {
        "concept", "part", "score", "threshold", "margin", "reached", "action", "severity",
        "prompt",
    }  # fmt: skip


def test_people_get_lines_and_tables(address: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"broken")
    done = diptych(
        "moderate", "--address", address, "--policy", "shapes", "--image", str(broken),
        "--image", CIRCLE,
    )  # fmt: skip
    assert done.returncode == 1
    assert "INVALID_ARGUMENT" in done.stdout
    assert "verdict: pass  severity: 0  concepts: red-triangle in the image" in done.stdout
    listed = diptych("policy", "list", "--address", address)
    assert SHAPES.spec.fingerprint[:12] in listed.stdout
    [policy] = lines(diptych("policy", "list", "--address", address, "--json"))
    assert (policy["name"], policy["model"]) == ("shapes", "shapes")


def test_the_shipped_policy_does_what_its_examples_expect() -> None:
    done = diptych("policy", "check", str(FILE))
    assert done.returncode == 0, done.stderr
    assert "shapes version 1: 1 concepts, 6 of 6 examples as expected" in done.stdout


def test_an_example_with_another_verdict_is_a_failure(tmp_path: Path) -> None:
    shutil.copytree(JUDGED, tmp_path / "pictures")
    text = FILE.read_text()
    (tmp_path / "shapes.yaml").write_text(text.replace("threshold: 0.75", "threshold: 0.1"))
    done = diptych("policy", "check", str(tmp_path / "shapes.yaml"), "--json")
    assert done.returncode == 1
    wrong = [line for line in lines(done) if not line["ok"]]
    assert [line["image"] for line in wrong] == [
        "pictures/green_triangle_beside_red_circle.png",
        "pictures/red_star.png",
    ]
    assert [(line["expected"], line["verdict"]) for line in wrong] == [("pass", "flag")] * 2


OURS = SHAPES.spec.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold: 0.75", "threshold: .nan", "concept 'red-triangle': threshold: "),
        (OURS, "a" * 64, f"fingerprint: calibrated on {'a' * 64}, not on {OURS}"),
        ("pictures/red_star", "pictures/nova", "examples.3.image: pictures/nova.png: No such"),
    ],
)
def test_a_bad_policy_is_one_clear_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    shutil.copytree(JUDGED, tmp_path / "pictures")
    file = tmp_path / "shapes.yaml"
    file.write_text(FILE.read_text().replace(old, new))
    done = diptych("policy", "check", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith(f"diptych: {file}: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--image", "nowhere.png"], 2, "--image nowhere.png: no such file"),
        (["--text", "a", "--caption", "b"], 2, "--caption 'b': belongs right behind its --image"),
    ],
)
def test_a_mistake_is_one_clear_line(args: list[str], status: int, message: str) -> None:
    done = diptych("moderate", "--address", "127.0.0.1:1", "--policy", "shapes", *args)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["moderate"], ["policy", "check"]])
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    done = diptych(*command, "--help")
    assert done.returncode == 0
    assert f"Example: diptych {' '.join(command)}" in done.stdout
