"""`diptych-export calibrate`: the demonstration's policy on scenes drawn for it, and refusals."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from diptych.policy_files import read_policy
from diptych_export.errors import BadData
from diptych_export.evaluation.judged import read_rows
from tests.drawing import JUDGED
from tests.serving import SHAPES

ROOT = Path(__file__).parents[3]
POLICY = JUDGED.parent / "shapes.yaml"
DRAWER = ROOT / "deploy/examples/draw_red_triangles.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diptych_export", "calibrate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tables of scenes, of different seeds."""
    draw: Callable[..., Path] = runpy.run_path(str(DRAWER))["draw"]
    folder = tmp_path_factory.mktemp("scenes")
    return draw(folder / "found", 450, 0), draw(folder / "held_out", 450, 1)


def head(table: Path, out: Path, scenes: int) -> Path:
    """The first so many scenes of a table, their pictures where they are."""
    with table.open(newline="") as stream:
        rows = list(csv.reader(stream))[: 1 + 2 * scenes]
    with out.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [str(table.parent / image) if image.endswith(".png") else image, *rest]
            for image, *rest in rows
        )
    return out


class Page(HTMLParser):
    """What a report is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_demonstration_keeps_its_promise_on_scenes_it_was_not_calibrated_on(
    drawn: tuple[Path, Path], tmp_path: Path
) -> None:
    out, html = tmp_path / "shapes.yaml", tmp_path / "report.html"
    done = run(
        "--policy", POLICY, "--data", drawn[0], "--held-out", drawn[1], "--precision", 0.99,
        "--out", out, "--html", html, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["fingerprint"] == SHAPES.spec.fingerprint
    assert [one["of"] for one in found["thresholds"]] == ["images", "texts"]
    for one in found["thresholds"]:
        assert one["precision"] >= 0.99
        assert one["held_out"]["precision"] >= 0.95
        assert one["held_out"]["recall"] >= 0.95
        low, high = one["threshold_interval"]
        assert low <= one["threshold"] <= high
    before, after = read_policy(POLICY).policy, read_policy(out).policy
    assert after.version == str(int(before.version) + 1) == found["version"]
    assert after.digest == found["digest"] != before.digest
    [concept] = after.concepts
    assert concept.threshold == found["thresholds"][0]["threshold"]
    assert concept.calibration is not None
    assert (concept.calibration.wanted, concept.calibration.at_least) == ("precision", 0.99)
    assert (concept.calibration.positives, concept.calibration.negatives) == (150, 300)
    image = after.examples[0].image
    assert image is not None
    assert (tmp_path / image).samefile(JUDGED / "small_red_triangle.png")
    page = Page(html.read_text())
    assert after.digest in html.read_text()
    assert page.tags.count("svg") == 4  # a curve and a histogram for images, and for texts
    assert "script" not in page.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)


def test_a_threshold_for_recall_shows_its_mistakes_as_pictures(
    drawn: tuple[Path, Path], tmp_path: Path
) -> None:
    out, html = tmp_path / "shapes.yaml", tmp_path / "report.html"
    done = run(
        "--policy", POLICY, "--data", drawn[0], "--recall", 0.9, "--out", out, "--html", html
    )
    assert done.returncode == 0, done.stderr
    assert "red-triangle" in done.stdout
    calibration = read_policy(out).policy.concepts[0].calibration
    assert calibration is not None
    assert 0.9 <= calibration.recall < 0.95
    missed = int(re.findall(r"Of the concept, and not reached: (\d+)", html.read_text())[0])
    assert missed == round(150 * (1 - calibration.recall))
    assert Page(html.read_text()).tags.count("img") == min(missed, 12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recall", "0.99"], "concept 'red-triangle', images: has 20 positives; 100 are needed"),
        (["--recall", "0.9", "--precision", "0.9"], "a threshold follows from one of them"),
    ],
)
def test_what_cannot_be_supported_is_refused_and_nothing_written(
    drawn: tuple[Path, Path], tmp_path: Path, arguments: list[str], said: str
) -> None:
    few, out = head(drawn[0], tmp_path / "few.csv", 60), tmp_path / "out.yaml"
    done = run("--policy", POLICY, "--data", few, "--out", out, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_thresholds_of_another_space_are_all_found_anew_or_none(
    drawn: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(JUDGED, tmp_path / "pictures")
    said = yaml.safe_load(POLICY.read_text())
    said["fingerprint"] = "a" * 64
    said["concepts"].append({**said["concepts"][0], "name": "another"})
    (tmp_path / "shapes.yaml").write_text(yaml.safe_dump(said))
    done = run(
        "--policy", tmp_path / "shapes.yaml", "--data", head(drawn[0], tmp_path / "d.csv", 120),
        "--out", tmp_path / "out.yaml",
    )  # fmt: skip
    assert done.returncode == 1
    assert "concept 'another': threshold: nothing in the data says what it should be" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,gun\na.png,1\n", "no column image and no column text"),
        ("image,knife\na.png,1\n", "no column is named as a concept of the policy: gun"),
        ("image,text,gun\na.png,b,1\n", ":2: one of image and text must be filled, not 2"),
        ("image,text,gun\n,,1\n", ":2: one of image and text must be filled, not 0"),
        ("image,gun\na.png,1\nb.png,2\n", ":3: gun: '2' is neither 1 nor 0"),
    ],
)
def test_a_table_that_is_wrong_is_named_with_line_and_column(
    tmp_path: Path, text: str, said: str
) -> None:
    table = tmp_path / "labelled.csv"
    table.write_text(text)
    with pytest.raises(BadData, match=re.escape(said)):
        read_rows(table, ["gun"])


def test_a_concept_that_is_not_told_of_an_input_is_left_open(tmp_path: Path) -> None:
    table = tmp_path / "labelled.csv"
    table.write_text("image,text,gun,knife,note\na.png,,1,,x\n,some text,no,yes,y\n")
    image, text = read_rows(table, ["gun", "knife"])
    assert (image.value, dict(image.truths)) == (str(tmp_path / "a.png"), {"gun": True})
    assert (text.read(), dict(text.truths)) == ("some text", {"gun": False, "knife": True})
    with pytest.raises(BadData, match=r"a\.png: No such file"):
        image.read()
