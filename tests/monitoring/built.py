"""What deploy/monitoring/build.py writes, taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tests.monitoring.conftest import MONITORING


class Query(NamedTuple):
    where: str  # for a person
    expr: str  # as Prometheus takes it, without Grafana's variables


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> list[str]:
    return [rule["record"] for rule in rules() if "record" in rule]


def panels() -> Iterator[Query]:
    """Every query of every panel."""
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "1m")
            expr = re.sub(r"\$(job|instance)\b", ".*", expr)
            yield Query(f"panel {panel['title']!r}, {target['refId']}", expr)


def metric_names(expr: str) -> set[str]:
    """The names of metrics in an expression: what is neither in braces nor a word of PromQL."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|without|on)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w*\s*\()", bare)
    calls = set(re.findall(r"([a-zA-Z_]+)\s*\(", bare))
    return set(words) - calls - {"and", "or", "unless", "by"}
