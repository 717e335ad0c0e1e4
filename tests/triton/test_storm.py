"""A tritonserver that dies or hangs under load costs callers time, and nothing else.

`python -m bench.storm --times 10` is the long way to say so.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from diptych.engines.triton_install import Installed
from tests.triton.conftest import ROOT


@pytest.mark.parametrize(("injury", "times"), [("server", 3), ("stub", 2), ("stop", 1)])
async def test_no_promise_is_broken(injury: str, times: int, installed: Installed) -> None:
    command = [sys.executable, "-m", "bench.storm", "--injury", injury, "--times", str(times)]
    done = await asyncio.to_thread(
        subprocess.run, [*command, "--json"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    seen = json.loads(done.stdout or "{}")
    assert not seen.get("broken", done.stderr), f"{seen}\n{done.stderr}"
    assert seen["calls"]["ok"] > 100
    assert seen["calls"]["unavailable"] + seen["calls"]["deadline_exceeded"] > 0
    assert len(seen["first_answer_s"]) == times
