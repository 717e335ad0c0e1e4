"""`python -m bench.moderation`, in small: what it sends is answered, what it prints are ratios."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench import moderation
from bench.processes import Server

from diptych.gateway.server import gateway
from diptych.policy_files import read_policies
from diptych.v1 import embedding_pb2 as pb
from tests.serving import local


async def test_verdicts_are_compared_with_vectors_on_the_same_inputs(tmp_path: Path) -> None:
    policies = moderation.write_policy(tmp_path / "policies", 30)
    [file] = read_policies(policies)
    assert len(file.policy.concepts) == 30
    options = argparse.Namespace(rounds=3, seconds=0.01, concurrency=2)
    inputs = [pb.Input(text=f"a red circle {number}") for number in range(20)]
    settings = local(policies=policies, text_cache_bytes=0, image_cache_bytes=0)
    async with gateway(settings) as running:
        server = Server(running.address, os.getpid())
        found = await moderation.compared(server, inputs, options)
    assert found["calls"] >= 8
    assert found["embed_ms"] > 0
    for way in ("moderate", "moderate_reached_only"):
        low, median, high = found[way]
        assert 0 < low <= median <= high
