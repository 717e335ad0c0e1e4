"""The semantic-search example: pictures embedded by a job, found by what a text says of them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from diptych.gateway.server import gateway
from tests.drawing import PICTURES
from tests.job.making import ROOT, finish, run
from tests.serving import local

EXAMPLE = ROOT / "deploy" / "examples" / "semantic_search.py"


async def test_a_text_finds_its_picture(tmp_path: Path) -> None:
    assert await asyncio.to_thread(run, PICTURES, tmp_path, shard_size=2) == 0
    async with gateway(local()) as running:
        texts = ["a red circle", "a yellow star"]
        command = [sys.executable, str(EXAMPLE), str(tmp_path), running.address, *texts]
        done = await asyncio.to_thread(finish, command)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "a red circle"
    assert lines[1].endswith("red_circle.png")
    assert lines[5].endswith("yellow_star.png")
