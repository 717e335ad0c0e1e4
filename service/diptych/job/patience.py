"""Calls of an engine that may be away, or busy with others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from diptych.errors import EngineUnavailable, Overloaded

_PAUSE_S = 0.2  # before a second try at an engine that is away; then longer, up to
_LONGEST_PAUSE_S = 5.0

Result = TypeVar("Result")


async def patiently(call: Callable[[], Awaitable[Result]], patience_s: float) -> Result:
    """What `call` answers, tried again for so long while nobody is there to answer; and as long
    as it takes while somebody is, who serves others first and says when to come again.

    Raises:
        EngineUnavailable: still, after `patience_s`.
    """
    ends, pause_s = time.monotonic() + patience_s, _PAUSE_S
    while True:
        wished_s = None
        try:
            return await call()
        except EngineUnavailable:
            if time.monotonic() > ends:
                raise
        except Overloaded as busy:
            wished_s, ends = busy.retry_after_s, time.monotonic() + patience_s
        await asyncio.sleep(max(pause_s, wished_s or 0.0))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
