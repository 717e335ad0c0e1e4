"""`diptych-export evaluate`: figures as JSON or a table, and a page that needs nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.export.evaluation.test_retrieval import drawn, table
from tests.serving import REPOSITORY, SHAPES


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "diptych_export", "evaluate"]
    return subprocess.run(
        [*command, "--repository", str(REPOSITORY), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


class Page(HTMLParser):
    """What a browser would fetch, run or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one of them called as markup and shown wrong pictures."""
    root = tmp_path_factory.mktemp("labelled")
    for number, name in enumerate(("a red circle", "<script>")):
        (root / name).mkdir()
        for picture in range(3):
            (root / name / f"{picture}.png").write_bytes(drawn(3 * number + picture))
    return root


def test_figures_are_one_json_object(labelled: Path, tmp_path: Path) -> None:
    pairs = table(tmp_path, [(f"{n}.png", f"caption {n}") for n in range(4)])
    done = run("--labelled", str(labelled), "--pairs", str(pairs), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fingerprint"] == SHAPES.spec.fingerprint
    assert (found["model"], found["version"]) == ("shapes", 1)
    assert found["zero_shot"]["pictures"] == 6
    assert found["zero_shot"]["templates"] == ["a photo of a {}."]
    assert set(found["retrieval"]) == {
        *(f"image_to_text_recall_at_{depth}" for depth in (1, 5, 10)),
        *(f"text_to_image_recall_at_{depth}" for depth in (1, 5, 10)),
        *("images", "texts", "skipped"),
    }


def test_the_report_is_one_file_with_its_pictures_inside(labelled: Path, tmp_path: Path) -> None:
    pairs = table(tmp_path, [(f"{n}.png", f"<b>caption</b> {n}") for n in range(4)])
    (labelled / "a red circle/broken.png").write_bytes(b"none")
    path = tmp_path / "report.html"
    done = run("--labelled", str(labelled), "--pairs", str(pairs), "--html", str(path))
    assert done.returncode == 0, done.stderr
    page = Page(path.read_text(encoding="utf-8"))
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert page.tags.count("b") < 20  # ours; those of the captions are text
    for shown in ("<b>caption</b> 0", "<script>", SHAPES.spec.fingerprint, "Skipped: 1"):
        assert shown in page.shown
    assert "top1" in re.sub(r"\s", "", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to evaluate on"),
        (("--labelled", "nowhere"), "nowhere: neither a folder"),
        (("--labelled", "x", "--template", "no slot"), "must hold {} once"),
        (("--pairs", "nowhere.csv"), "nowhere.csv: "),
        (("--pairs", "a.csv", "--model", "other"), "no model 'other'"),
    ],
)
def test_a_mistake_is_answered_by_one_clear_line(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert said in line
