"""A tritonserver that dies or hangs under load costs callers time, and nothing else.

`python -m bench.storm --times 10` is the long way to say so. There no call ends more than 50 ms
after its deadline; here other things may have the cores, and callers notice deadlines later.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from diptych.engines.triton_install import Installed
from tests.triton.conftest import ROOT

INJURIES = ["server", "stub", "stop"]


async def test_no_promise_is_broken(installed: Installed) -> None:
    command = [sys.executable, "-m", "bench.storm", "--times=3", "--injury", *INJURIES]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--late=0.5", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    seen = json.loads(done.stdout or "{}")
    assert not seen.get("broken", done.stderr), f"{seen}\n{done.stderr}"
    assert seen["calls"]["ok"] > 100
    assert seen["calls"]["unavailable"] + seen["calls"]["deadline_exceeded"] > 0
    assert seen["injuries"] == INJURIES
    assert len(seen["first_answer_s"]) == len(INJURIES)
