"""Rules, dashboard and runbook belong together; promtool says that alerts do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diptych.metrics import Metrics
from tests.monitoring.built import Query, alerts, metric_names, panels, recorded, rules
from tests.monitoring.conftest import MONITORING
from tests.test_metrics import declared

RUNBOOK = MONITORING.parent / "RUNBOOK.md"
PARTS = ("Symptom", "Look", "Do")


def exported() -> set[str]:
    """Every name a gateway exports, with those of histograms, and every name recorded of them."""
    metrics = Metrics()
    names = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    histograms = ("_bucket", "_count", "_sum")
    names |= set(declared(metrics)) | {f"{n}{end}" for n in declared(metrics) for end in histograms}
    return names | set(recorded())


def queries() -> list[Query]:
    of_rules = [Query(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    return [*of_rules, *panels()]


def test_what_is_built_is_what_is_committed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, MONITORING / "build.py", tmp_path], check=True)
    for path in tmp_path.iterdir():
        assert path.read_text() == (MONITORING / path.name).read_text(), f"build {path.name} anew"


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_every_query_asks_for_what_is_exported(query: Query) -> None:
    names = metric_names(query.expr)
    assert names, query.expr
    assert names <= exported()


def test_a_query_for_what_is_not_exported_would_be_found() -> None:
    expr = 'sum by (job) (rate(grpc_server_handled{grpc_code="OK"}[5m])) / (job:calls:rate5m > 0)'
    assert metric_names(expr) == {"grpc_server_handled", "job:calls:rate5m"}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_its_section_in_the_runbook(rule: dict[str, dict[str, str]]) -> None:
    sections = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    found = {section.splitlines()[0].strip(): section for section in sections}
    name = str(rule["alert"])
    assert rule["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{name.lower()}"
    assert [part for part in PARTS if f"**{part}.**" not in found[name]] == []
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_runbook_has_no_section_without_an_alert() -> None:
    sections = re.findall(r"^## (\S+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts()]


def test_every_alert_is_seen_firing_by_promtools_tests() -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yml").read_text())["tests"]
    expected = {
        name
        for test in tests
        for asked in test["promql_expr_test"]
        for sample in asked["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert expected == {str(rule["alert"]) for rule in alerts()}


def test_promtool_finds_nothing_wrong_and_alerts_fire_when_they_should(prometheus: Path) -> None:
    done = subprocess.run([MONITORING / "check.sh"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert "SKIPPED" not in done.stdout
