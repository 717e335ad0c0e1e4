"""Prometheus itself, where it can be had."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """The folder of prometheus and promtool; the first time, Debian's package is unpacked."""
    command = [MONITORING / "prometheus.sh"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if found.returncode == 3:
        pytest.skip(found.stderr.strip().splitlines()[-1])
    assert found.returncode == 0, found.stderr
    return Path(found.stdout.strip())
