"""The benchmark's own arithmetic and traffic: figures are only as good as these."""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import islice

import pytest
from bench.ceiling import ceiling
from bench.load import _pace
from bench.traffic import CASES, requests

from diptych.gateway.server import gateway
from diptych.v1 import embedding_pb2 as pb
from tests.serving import local


def test_the_pace_of_answers_that_come_in_bursts_is_exact() -> None:
    bursts = [0.8 * burst for burst in range(5) for _ in range(16)]
    assert _pace(bursts, seconds=4.0) == pytest.approx(20.0)
    assert _pace([1.0, 2.0], seconds=4.0) == 0.5


def test_no_request_repeats_an_input_but_where_that_is_the_case() -> None:
    for name in ("pixels", "text", "mixed", "text_x32"):
        drawn = list(islice(requests(CASES[name], side=224), 150))
        assert len(set(drawn)) == len(drawn), name
        assert all(pb.EmbedRequest.FromString(request).inputs for request in drawn)
    assert len(set(islice(requests(CASES["cached_text"], side=224), 150))) == 16


def test_the_ceiling_is_reading_shared_by_the_cores_and_the_engine_at_its_best() -> None:
    alone = {
        "cores": 2,
        "decode_image": 0.004,
        "decode_large": 0.02,
        "tokenize": 0.0,
        "image": {"1": 0.05, "32": 0.048},
        "text": {"8": {"1": 0.01, "32": 0.004}, "16": {"1": 0.02, "32": 0.008}},
        "lengths": {"8": 0.5, "12": 0.5},
    }
    assert ceiling(CASES["image"], alone) == pytest.approx(1 / 0.05)
    assert ceiling(CASES["text"], alone) == pytest.approx(1 / 0.005)
    assert ceiling(CASES["mixed"], alone) == pytest.approx(2 / 0.055)
    assert ceiling(CASES["cached_text"], alone) is None


async def test_a_caller_counts_answers_and_the_errors_inside_them() -> None:
    async with gateway(local()) as running:
        for side, expected in ((64, "OK"), (32, "INPUT_ERROR")):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.load", "--address", running.address),
                *("--case", "pixels", "--calls", "20", "--side", str(side)),
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await asyncio.wait_for(process.communicate(), 60)
            assert json.loads(said)["codes"] == {expected: 20}
