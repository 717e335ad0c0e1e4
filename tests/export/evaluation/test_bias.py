"""`diptych-export evaluate --policy`: a threshold right on average, and whom it fails."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from diptych_export.data.drawing import picture
from diptych_export.data.scenes import PAIRS, Pair, SizeName, one
from diptych_export.errors import BadData
from diptych_export.evaluation.bias import compare
from diptych_export.evaluation.groups import read_groups
from tests.drawing import JUDGED
from tests.serving import REPOSITORY

POLICY = JUDGED.parent / "shapes.yaml"
RED_TRIANGLE: Pair = ("red", "triangle")
SIZES: tuple[SizeName, ...] = ("small", "medium", "large")
EACH = 80  # red triangles of a size, and as many other things


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "diptych_export", "evaluate"]
    command += ["--repository", str(REPOSITORY), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def bias(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["bias"]
    return found


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each size of thing, and a table that says which are red triangles."""
    root, rng = tmp_path_factory.mktemp("sizes"), Random("sizes")
    others = [pair for pair in PAIRS if pair != RED_TRIANGLE]
    rows = []
    for size in SIZES:
        (root / size).mkdir()
        for number in range(2 * EACH):
            pair = rng.choice(others) if number % 2 else RED_TRIANGLE
            name = f"{size}/{number}.png"
            picture(one(rng, pair, size=size), 64).save(root / name)
            rows.append([name, size, int(pair == RED_TRIANGLE)])
    write(root / "scenes.csv", rows)
    return root


def write(table: Path, rows: list[list[Any]], group: str = "size") -> Path:
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", group, "red-triangle"], *rows])
    return table


def read(table: Path) -> list[list[Any]]:
    with table.open(newline="") as stream:
        return list(csv.reader(stream))[1:]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policy with a threshold that small triangles do not always reach."""
    path = tmp_path_factory.mktemp("policy") / "strict.yaml"
    path.write_text(POLICY.read_text().replace("threshold: 0.75", "threshold: 0.87"))
    return path


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_the_group_that_a_threshold_fails_is_found(
    scenes: Path, strict: Path, tmp_path: Path
) -> None:
    table, html = scenes / "scenes.csv", tmp_path / "report.html"
    found = bias("--policy", strict, "--groups", table, "--group-column", "size", "--html", html)
    [concept] = found["concepts"]
    assert (concept["concept"], concept["of"]) == ("red-triangle", "images")
    missed = concept["groups"]["false_negative_rate"]
    assert [missed[size]["of"] for size in SIZES] == [EACH] * 3
    gap = concept["gaps"]["false_negative_rate"]
    assert (gap["highest"], gap["lowest"], gap["beyond_chance"]) == ("small", "large", True)
    assert gap["gap"] == missed["small"]["rate"] - missed["large"]["rate"]
    low, high = gap["interval"]
    assert 0 < low <= gap["gap"] <= high
    assert not concept["gaps"]["false_positive_rate"]["beyond_chance"]
    page = Page(html.read_text())
    assert f"Missed in group 'small': {missed['small']['count']}" in page.shown
    assert page.tags.count("img") == min(12, missed["small"]["count"])


def test_the_shipped_threshold_treats_all_sizes_alike(scenes: Path) -> None:
    found = bias("--policy", POLICY, "--groups", scenes / "scenes.csv", "--group-column", "size")
    [concept] = found["concepts"]
    assert {rate: gap["beyond_chance"] for rate, gap in concept["gaps"].items()} == {
        "flag_rate": False, "false_negative_rate": False, "false_positive_rate": False,
    }  # fmt: skip


def test_folders_are_groups_of_which_only_the_flag_rate_is_known(scenes: Path) -> None:
    done = run("--policy", POLICY, "--groups", scenes)
    assert done.returncode == 0, done.stderr
    assert "flag rate" in done.stdout
    assert "false negative rate" not in done.stdout
    for size in SIZES:
        assert f"\n {size} " in done.stdout
    assert "shapes version 1; skipped: 0, without a group: 0" in done.stdout


def test_a_group_too_small_is_left_out_and_said(scenes: Path, strict: Path, tmp_path: Path) -> None:
    rows = [[str(scenes / name), *rest] for name, *rest in read(scenes / "scenes.csv")]
    huge = [[rows[number][0], "<b>huge</b>", 1] for number in range(19)]
    table = write(tmp_path / "some.csv", [*rows, *huge, [rows[0][0], "", 1], ["gone.png", "a", 1]])
    html = tmp_path / "report.html"
    found = bias("--policy", strict, "--groups", table, "--group-column", "size", "--html", html)
    [concept] = found["concepts"]
    assert "flag rate of group '<b>huge</b>': has 19 inputs; 20 are needed" in concept["refused"]
    assert set(concept["groups"]["flag_rate"]) == set(SIZES)
    assert (found["skipped"], found["ungrouped"]) == (1, 1)
    assert "group '<b>huge</b>': has 19 positives" in Page(html.read_text()).shown


def test_where_no_two_groups_are_large_enough_nothing_is_stated(
    scenes: Path, tmp_path: Path
) -> None:
    rows = [[str(scenes / name), *rest] for name, *rest in read(scenes / "scenes.csv")]
    few = rows[: 2 * EACH] + rows[-5:]
    done = run("--policy", POLICY, "--groups", write(tmp_path / "few.csv", few, "group"))
    assert done.returncode == 1
    assert "no two groups can be compared: flag rate of group 'large': has 5" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "column", "said"),
    [
        ("nowhere.csv", None, "No such file"),
        ("scenes.csv", None, "scenes.csv: no column 'group' that names groups"),
        ("small", None, "two groups or more are needed to compare; there are: none"),
        (".", "size", "a folder's groups are its folders; a column is a table's"),
    ],
)
def test_groups_that_cannot_be_read_are_said_to_be(
    scenes: Path, source: str, column: str | None, said: str
) -> None:
    with pytest.raises(BadData) as caught:
        read_groups(scenes / source, ["red-triangle"], column)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "groups", "said"),
    [
        ("fingerprint: " + "a" * 64, True, "fingerprint: calibrated on aaaa"),
        ("fingerprint: 5", True, "fingerprint: "),
        ("", False, "--policy and --groups: each needs the other"),
    ],
)
def test_a_mistake_is_answered_by_one_clear_line(
    scenes: Path, tmp_path: Path, policy: str, groups: bool, said: str
) -> None:
    strange = tmp_path / "strange.yaml"
    strange.write_text(re.sub("^fingerprint: .*", policy, POLICY.read_text(), flags=re.MULTILINE))
    done = run("--policy", strange, *(["--groups", scenes] if groups else []))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert said in line


def test_groups_that_are_alike_are_seldom_called_unlike_and_others_are() -> None:
    rng, trials = np.random.default_rng(0), 100
    found = 0
    for _ in range(trials):
        counts = {f"group {n}": (int(rng.binomial(60, 0.15)), 60) for n in range(6)}
        gap = compare("flag_rate", counts)[1]
        assert gap is not None
        found += gap.is_sure
    assert found <= 0.1 * trials  # one in twenty is what an interval of 95 % allows
    _, gap = compare("flag_rate", {"a": (9, 60), "b": (9, 60), "c": (36, 60)})
    assert gap is not None
    assert (gap.highest, gap.is_sure) == ("c", True)


def test_a_small_group_without_mistakes_is_not_taken_for_one_that_makes_none() -> None:
    shares, gap = compare("false_negative_rate", {"few": (0, 20), "many": (0, 2000)})
    assert shares["few"].interval.high >= 0.1
    assert shares["many"].interval.high < 0.01
    assert gap is not None
    assert not gap.is_sure
