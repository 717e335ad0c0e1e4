"""Threads that must not be in the engine's way."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info

from diptych.gateway.server import gateway
from tests.serving import local


def blas_threads() -> list[int]:
    np.ones((2, 2), np.float32) @ np.ones((2, 2), np.float32)
    return [own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas"]


async def test_while_a_gateway_runs_products_have_no_threads_of_their_own() -> None:
    before = blas_threads()
    assert before
    async with gateway(local()):
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
