"""Where each millisecond of an input goes: processor time by thread, and by code on the event loop.

    python -m bench.profile

A server under 32 callers. Threads' times are the kernel's own count; what the event loop does is
sampled with py-spy, which must be allowed to attach (root, or kernel.yama.ptrace_scope 0).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from bench import model
from bench.processes import Server, gateway, load
from bench.traffic import CASES, write_labels

_NO_CACHE = ("--text-cache-bytes", "0", "--image-cache-bytes", "0")
_ROOM = ("--max-waiting-inputs", "8192")
_PY_SPY = str(Path(sys.executable).with_name("py-spy"))
_THREAD = re.compile(r'^Thread (?:0x)?(\w+) \(\w+(?:\+\w+)?\): "(\w+?)(?:_\d+)?"', re.MULTILINE)
_REST = "engine's own threads, gRPC's"
_NAMES = {"MainThread": "event loop", "decode": "decoding", "engine": "engine, Python's threads"}


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the model")
    reader.add_argument("--cases", nargs="+", choices=CASES, default=["image", "text"])
    reader.add_argument("--seconds", type=float, default=10.0)
    options = reader.parse_args()
    repository, labels = str(model.build(options.folder)), str(write_labels(options.folder))
    out = Console(highlight=False)
    for case in options.cases:
        cached = () if CASES[case].repeats or CASES[case].label_set else _NO_CACHE
        with gateway("--repository", repository, "--labels", labels, *_ROOM, *cached) as server:
            out.print(_profile(server, case, options.seconds))


def _profile(server: Server, case: str, seconds: float) -> Table:
    load(server, CASES[case], seconds=2, concurrency=32)
    names = _thread_names(server.pid)
    before = _thread_times(server.pid)
    found = load(server, CASES[case], seconds=seconds, warmup=0, concurrency=32)
    after = _thread_times(server.pid)
    calls = sum(found["codes"].values())
    spent: dict[str, float] = dict.fromkeys([*_NAMES.values(), _REST], 0.0)
    for thread, time_s in after.items():
        group = _NAMES.get(names.get(thread, ""), _REST)
        spent[group] += time_s - before.get(thread, 0.0)
    table = Table(
        "where", "ms a call", "share", title=f"{case}: {found['items_per_s']:.1f} a second"
    )
    total = sum(spent.values())
    for group, time_s in sorted(spent.items(), key=lambda item: -item[1]):
        table.add_row(group, f"{1000 * time_s / calls:.3f}", f"{time_s / total:.1%}")
    samples = _sampled(server, case, seconds)
    for group, count in samples.most_common():
        share = spent["event loop"] / total * count / samples.total()
        table.add_row(
            f"  event loop: {group}", f"{1000 * share * total / calls:.3f}", f"{share:.1%}"
        )
    return table


def _thread_names(pid: int) -> dict[int, str]:
    """Python's names of threads, by the kernel's number."""
    said = subprocess.run(
        [_PY_SPY, "dump", "--pid", str(pid)], stdout=subprocess.PIPE, text=True, check=True
    )
    return {int(number, 0): name for number, name in _THREAD.findall(said.stdout)}


def _thread_times(pid: int) -> dict[int, float]:
    """Processor time of each thread so far, in seconds."""
    return {t.id: t.user_time + t.system_time for t in psutil.Process(pid).threads()}


def _sampled(server: Server, case: str, seconds: float) -> Counter[str]:
    """Samples of the event loop's thread by whose code was running."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stacks"
        flags = ["--duration", str(round(seconds)), "--format", "raw", "--output", str(file)]
        spy = subprocess.Popen(
            [_PY_SPY, "record", "--pid", str(server.pid), "--rate", "250", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        load(server, CASES[case], seconds=seconds, warmup=1, concurrency=32)
        spy.wait()
        found: Counter[str] = Counter()
        for line in file.read_text().splitlines():
            stack, count = line.rsplit(" ", 1)
            if "Runner.run" in stack:  # of asyncio: the thread of the event loop
                found[_whose(stack.split(";"))] += int(count)
    return found


def _whose(frames: list[str]) -> str:
    """The innermost of our modules, or else what lies below all of them."""
    for frame in reversed(frames):
        if owner := re.search(r"\(diptych/([\w/]+)\.py", frame):
            name = owner[1].replace("/", ".")
            if name not in ("cli", "__main__"):
                return name
    return "gRPC, uvloop and asyncio"


if __name__ == "__main__":
    main()
