"""Condition through a real Triton: the same tensors as embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych.client import AsyncClient
from diptych.engines.triton_server import TritonServer
from diptych.gateway.server import gateway
from diptych.wire_conditioning import Conditioning, ConditionReply
from tests.serving import local

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = "a red circle above a blue square " * 15


async def conditioned(served: Path, **changes: str) -> list[ConditionReply]:
    settings = local(repository=served, precision="fp32", **changes)
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        return [
            await client.condition("sd15", ["a (red:1.3) circle", LONG], "a cross"),
            await client.condition("flux", "a red circle", how=Conditioning(long_prompt="cut")),
        ]


async def test_tensors_are_the_same_embedded_and_through_triton(
    triton: TritonServer, served: Path
) -> None:
    through = await conditioned(served, engine=f"triton://{triton.address}")
    for ours, embedded in zip(through, await conditioned(served), strict=True):
        assert list(ours.tensors) == list(embedded.tensors)
        assert ours.readings == embedded.readings
        for name, tensor in ours.tensors.items():
            np.testing.assert_allclose(tensor, embedded.tensors[name], rtol=1e-3, atol=1e-4)
