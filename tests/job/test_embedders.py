"""How a job waits for an engine: with patience where nobody is there, as told where one is busy."""

from __future__ import annotations

import time

import pytest
from google.rpc import status_pb2

from diptych.errors import DiptychError, EngineUnavailable, Overloaded
from diptych.gateway.status import to_status
from diptych.job.patience import patiently
from diptych.wire_errors import to_error


class Busy:
    """Answers after it has said so many times why it does not."""

    def __init__(self, error: DiptychError, times: int) -> None:
        self.error = error
        self.left = times

    async def __call__(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return "an answer"


async def test_a_busy_gateway_is_waited_for_as_long_as_it_says_however_often() -> None:
    sent = to_status(Overloaded("full", retry_after_s=0.35))
    busy = to_error(status_pb2.Status.FromString(sent.SerializeToString()))
    assert isinstance(busy, Overloaded)
    assert busy.retry_after_s == 0.35
    began = time.monotonic()
    assert await patiently(Busy(busy, 2), patience_s=0.0) == "an answer"
    assert time.monotonic() - began >= 0.7


async def test_an_engine_that_is_away_is_waited_for_until_patience_ends() -> None:
    away = EngineUnavailable("away")
    assert await patiently(Busy(away, 1), patience_s=5.0) == "an answer"
    with pytest.raises(EngineUnavailable):
        await patiently(Busy(away, 2), patience_s=0.0)
