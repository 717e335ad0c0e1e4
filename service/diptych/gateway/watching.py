"""Files that may change while they are in use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

log = logging.getLogger(__name__)

State: TypeAlias = list[tuple[object, ...]]


def state_of(paths: Callable[[], Iterable[Path]]) -> State:
    """What changes whenever one of the files does; links are followed, as Kubernetes lays them."""
    try:
        stats = [(path, path.stat()) for path in paths()]
    except OSError as exc:  # in the middle of being moved, or gone
        return [(exc.errno,)]
    return [(path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


async def look_again(
    every_s: float, now: asyncio.Event, look: Callable[[], Awaitable[object]]
) -> None:
    """Call `look` until cancelled: every so often, and at once when `now` is set."""
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(now.wait(), every_s)
        now.clear()
        try:
            await look()
        except Exception:  # the watch must outlive whatever it is
            log.exception("a look at changed files failed")
