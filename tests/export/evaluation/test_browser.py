"""The calibration report, opened in a real browser where one is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from html import unescape
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from diptych.contract import Tower
from diptych.policy_files import read_policy
from diptych_export.data.drawing import picture
from diptych_export.data.pairs import Reject
from diptych_export.data.scenes import PAIRS, one
from diptych_export.evaluation import calibration_report
from diptych_export.evaluation.calibrating import Calibrated, Labelled
from diptych_export.evaluation.judged import Row
from diptych_export.thresholds import find
from tests.drawing import JUDGED
from tests.serving import SHAPES

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--dump-dom",
]  # fmt: skip

# What only a browser knows: whether pictures could be decoded, and how large things came out.
ASKS = """<script>addEventListener("load", () => {
  const size = one => [one.getBoundingClientRect().width, one.getBoundingClientRect().height];
  document.title = JSON.stringify({
    pictures: [...document.images].map(one => [one.naturalWidth, one.naturalHeight]),
    plots: [...document.querySelectorAll("svg")].map(size),
    lines: [...document.querySelectorAll("polyline")].map(one => one.getTotalLength()),
    bars: [...document.querySelectorAll("svg rect")].map(size),
    fetched: performance.getEntriesByType("resource").map(one => one.name),
    wider: document.documentElement.scrollWidth - innerWidth,
  });
});</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with mistakes of both kinds among images and texts, and with skipped inputs."""
    folder, rng = tmp_path_factory.mktemp("report"), Random("report")
    noise = np.random.default_rng(0)
    done = []
    for tower in Tower:
        truth = np.arange(120) % 3 == 0
        rows = []
        for number in range(120):
            path = folder / f"{number}.png"
            if tower is Tower.IMAGE:
                picture(one(rng, rng.choice(PAIRS)), 64).save(path)
            value = str(path) if tower is Tower.IMAGE else f"<i>text</i> {number} & so on"
            rows.append(Row(f"table.csv:{number}", tower, value, {"red-triangle": truth[number]}))
        data = Labelled(rows, noise.normal(size=120) * 0.2 + 0.5 * truth, truth)
        found = find(data.scores, truth, "recall", 0.8)
        done.append(Calibrated("red-triangle", tower, 0.5, found, data, None))
    policy = read_policy(JUDGED.parent / "shapes.yaml").policy
    rejects = [Reject("table.csv:7", "<b>not</b> an image")]
    html = folder / "report.html"
    page = calibration_report.render(SHAPES.spec, policy, "recall", done, rejects)
    html.write_text(page, encoding="utf-8")
    return html


@pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed")
def test_a_browser_shows_its_plots_and_pictures_and_has_nothing_to_complain_of(
    report: Path, tmp_path: Path
) -> None:
    asking = tmp_path / "report.html"
    asking.write_text(report.read_text().replace("</body>", f"{ASKS}</body>"))
    dom, said = opened(asking, tmp_path / "profile")
    assert "CONSOLE" not in said, said
    seen: dict[str, Any] = json.loads(unescape(re.findall("<title>(.*?)</title>", dom)[0]))
    assert len(seen["pictures"]) == dom.count("<img ") > 12
    assert all(width > 0 and height > 0 for width, height in seen["pictures"])
    assert len(seen["plots"]) == 4  # a curve and a histogram for images, and for texts
    assert all(width > 300 and height > 200 for width, height in seen["plots"])
    assert len(seen["lines"]) == 2
    assert all(length > 100 for length in seen["lines"])
    assert sum(height > 20 for _, height in seen["bars"]) > 20
    assert seen["fetched"] == []
    assert seen["wider"] <= 0  # nothing sticks out to the right


def opened(page: Path, profile: Path) -> tuple[str, str]:
    """The page as the browser has it once it is loaded, and what the browser said."""
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    browser = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        return browser.communicate(timeout=60)
    finally:
        if browser.poll() is None:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.communicate()
