"""Writes rules.yml, prometheus-rule.yml and dashboard.json beside itself, or where it is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from panels import dashboard
from rules import groups

_HEAD = "# Written by build.py from rules.py.\n"


def build() -> dict[str, str]:
    """The files, by name."""
    found = {"groups": groups()}
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "diptych"},
        "spec": found,
    }
    return {
        "rules.yml": _HEAD + _yaml(found),
        "prometheus-rule.yml": _HEAD + _yaml(resource),
        "dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
    }


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=100)


if __name__ == "__main__":
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in build().items():
        (into / name).write_text(text)
