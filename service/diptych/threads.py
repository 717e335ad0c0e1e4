"""Threads that compute let the event loop go first."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits

_NICER = 5  # steps: about a third of the event loop's share where both want the same core


def give_way() -> None:
    """Make the calling thread, and those it starts, nicer. For threads that decode or compute.

    Where they keep all cores busy, the event loop would else wait its turn to refuse a call or to
    send an answer that is ready. Linux has a niceness for each thread; other systems that have one
    for the process only are left alone.
    """
    if os.uname().sysname == "Linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, min(own + _NICER, 19))


def one_for_numpy() -> AbstractContextManager[object]:
    """Within this, NumPy's products run on the thread that asks for them.

    OpenBLAS's own threads spin for milliseconds after a product of microseconds, on the cores that
    the engine needs: scoring a picture against 1,000 labels then costs a seventh of its embedding.
    """
    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits
