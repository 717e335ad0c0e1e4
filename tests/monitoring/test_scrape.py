"""A real Prometheus scrapes a real gateway under load, and answers every question we ask of it."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from diptych.client import AsyncClient
from diptych.errors import DiptychError
from diptych.wire import Options
from tests.monitoring.built import alerts, panels, recorded
from tests.monitoring.conftest import MONITORING
from tests.serving import REPOSITORY

POLICIES = MONITORING.parent / "examples/policies"
PICTURES = sorted((Path(__file__).parents[1] / "pictures").iterdir())

LOAD_S = 7.0  # over several scrapes, so that there are rates


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


@contextmanager
def serving() -> Iterator[tuple[str, str]]:
    """Addresses of a gateway and of its metrics."""
    command = (sys.executable, "-m", "diptych", "serve", "--host", "127.0.0.1", "--port", 0)
    more = ("--metrics-port", 0, "--repository", REPOSITORY, "--policies", POLICIES)
    with running(*command, *more) as process:
        assert process.stdout is not None
        metrics = ""
        for line in process.stdout:
            if line.startswith("metrics on http://"):
                metrics = line.split("//")[1].split("/")[0]
            if line.startswith("listening on "):
                yield line.split()[-1], metrics
                return
        pytest.fail("the gateway ended before it listened")


@contextmanager
def scraping(binaries: Path, target: str, folder: Path) -> Iterator[str]:
    """The address of a Prometheus with our rules, which looks every half second."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(MONITORING / "rules.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder / "data"}
    flags["web.listen-address"] = Path(address)
    with running(binaries / "prometheus", *(f"--{name}={v}" for name, v in flags.items())):
        _wait_until_ready(address)
        yield address


async def load(address: str) -> None:
    """Images, texts, scores, verdicts and a stream, and some of all that is refused."""
    ends = time.monotonic() + LOAD_S
    async with AsyncClient(address) as client:
        for number in range(10**6):
            if number >= 3 and time.monotonic() > ends:
                return
            picture = PICTURES[number % len(PICTURES)]
            image = picture.read_bytes() + b"%d" % number  # as if another each time
            await client.embed([image, f"a red circle {number}", "always this"])
            await client.score([image], ["a red circle", "a blue square"])
            await client.condition("sd15", f"a red circle {number}")
            await client.moderate([image, "a large red triangle"], "shapes")
            assert [one async for one in client.embed_stream(_once(image))]
            refused = await client.embed([b"no picture", "a " * 200])
            assert all(isinstance(result, DiptychError) for result in refused.results)
            with pytest.raises(DiptychError):
                await client.embed(["a"], Options(model="none"))
            await asyncio.sleep(0.05)


async def _once(image: bytes) -> AsyncIterator[tuple[str, bytes]]:
    yield "only", image


@pytest.fixture(scope="module")
def asked(prometheus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has seen a load."""
    folder = tmp_path_factory.mktemp("prometheus")
    with serving() as (address, metrics), scraping(prometheus, metrics, folder) as found:
        asyncio.run(load(address))
        yield found


def test_every_panel_has_data_after_a_load(asked: str) -> None:
    without = [panel for panel in panels() if not _numbers(asked, panel.expr)]
    assert without == []


def test_every_recorded_series_has_data_after_a_load(asked: str) -> None:
    assert [name for name in recorded() if not _numbers(asked, name)] == []


def test_prometheus_evaluates_every_rule_and_no_budget_of_errors_burns(asked: str) -> None:
    groups = _get(asked, "/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    named = {rule["name"]: rule for rule in rules}
    for alert in alerts():
        if "Error" in alert["alert"] or "Engine" in alert["alert"]:
            assert named[alert["alert"]]["state"] == "inactive"


def _numbers(address: str, expr: str) -> list[float]:
    """What Prometheus answers, without what is no number."""
    query = urllib.parse.urlencode({"query": expr})
    found = _get(address, f"/api/v1/query?{query}")["result"]
    values = [float(series["value"][1]) for series in found]
    return [value for value in values if not math.isnan(value)]


def _get(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def _wait_until_ready(address: str) -> None:
    ends = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=1):
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
