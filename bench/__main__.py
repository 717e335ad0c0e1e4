"""Throughput and latency through real gRPC, beside what the machine can do with no server.

    make bench
    python -m bench --cases image text --engines embedded --concurrency 32

Each case is a server process and a client process that share the machine. Ratios are to the
ceiling measured just before and just after it; absolute figures drift with the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from bench import model, report
from bench.ceiling import ceiling, input_s
from bench.processes import Machine, Server, gateway, load, machine, triton
from bench.traffic import CASES, Case, write_labels

ENGINES = ("embedded", "triton")
CONCURRENCY = (1, 8, 32, 64)

_WARMUP_S = 4.0  # OpenVINO takes 10 ms more for every new shape of a batch
_ROOM = ("--max-waiting-inputs", "8192")  # 64 callers with 64 inputs each: none is refused here


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    reader.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    reader.add_argument("--concurrency", nargs="+", type=int, default=list(CONCURRENCY))
    reader.add_argument("--seconds", type=float, default=6.0, help="measured, of each case")
    reader.add_argument(
        "--longest",
        type=float,
        default=40.0,
        help="seconds; cases whose calls take longer are left out",
    )
    reader.add_argument("--runs", type=int, default=1, help="of all; medians are printed")
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the model")
    reader.add_argument("--plot", type=Path, help="PNG; default: bench.png in the folder")
    reader.add_argument("--json", action="store_true", help="one JSON object per case")
    options = reader.parse_args()
    repository = model.build(options.folder)
    write_labels(options.folder)
    runs = [list(_run(options, repository)) for _ in range(options.runs)]
    lines = [_median(same) for same in zip(*runs, strict=True)]
    for line in lines if options.json else ():
        print(json.dumps(line))
    if not options.json:
        report.table(lines)
        report.summary(lines)
    report.plot(lines, options.plot or options.folder / "bench.png")


def _run(options: argparse.Namespace, repository: Path) -> Iterator[dict[str, Any]]:
    """One line for each case, engine and concurrency."""
    with machine(repository, model.NAME) as alone:
        report.alone(alone.found)
        yield from _lines(options, repository, alone)


def _lines(
    options: argparse.Namespace, repository: Path, alone: Machine
) -> Iterator[dict[str, Any]]:
    cases = [CASES[name] for name in options.cases]
    for engine in options.engines:
        for cached in (False, True):
            own = [case for case in cases if _needs_cache(case) == cached]
            if not own:
                continue
            with _serving(engine, repository, options.folder, cached=cached) as server:
                for case, concurrency in product(own, options.concurrency):
                    round_s = concurrency * case.inputs * input_s(case, alone.found)
                    if round_s <= options.longest:
                        # Until every caller has had an answer, more is read than computed.
                        times = {
                            "seconds": max(options.seconds, round_s),
                            "warmup": max(_WARMUP_S, round_s),
                        }
                        yield _measured(server, engine, case, concurrency, times, alone)


def _needs_cache(case: Case) -> bool:
    return bool(case.repeats or case.candidates)


@contextmanager
def _serving(engine: str, repository: Path, folder: Path, *, cached: bool) -> Iterator[Server]:
    flags = ["--repository", str(repository), "--labels", str(folder / "labels"), *_ROOM]
    # Pictures are never repeated but where that is the case: texts alone need this apart.
    flags += [] if cached else ["--text-cache-bytes", "0", "--image-cache-bytes", "0"]
    with ExitStack() as stack:
        if engine == "triton":
            behind = stack.enter_context(triton(repository, folder / "triton.log"))
            flags += ["--engine", f"triton://{behind.address}"]
        yield stack.enter_context(gateway(*flags))


def _measured(
    server: Server,
    engine: str,
    case: Case,
    concurrency: int,
    times: dict[str, float],
    alone: Machine,
) -> dict[str, Any]:
    """One line; the ceiling is the mean of what the machine can do just before and just after."""
    before = alone.anew(case)
    used, began = server.cpu_s(), time.monotonic()
    found = load(server, case, concurrency=concurrency, **times)
    used, taken = server.cpu_s() - used, time.monotonic() - began
    sides = (before, alone.anew(case))
    limits = [limit for side in sides if (limit := ceiling(case, side))]
    limit = statistics.mean(limits) if limits else None
    line = {
        "case": case.name,
        "engine": engine,
        "concurrency": concurrency,
        "items_per_s": found["items_per_s"],
        "ceiling_items_per_s": limit,
        "ratio": found["items_per_s"] / limit if limit else None,
        **{key: found[key] for key in ("p50_ms", "p95_ms", "p99_ms", "errors")},
        "beside_p50_ms": found["beside_p50_ms"],
        "server_cores": used / taken,
        "server_peak_mib": server.peak_bytes() / 2**20,
    }
    report.progress(line)
    return line


def _median(same: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One line of several runs': the median of each figure."""
    line = dict(same[0])
    for key, value in line.items():
        if isinstance(value, float):
            line[key] = statistics.median(run[key] for run in same)
    line["errors"] = max(run["errors"] for run in same)
    return line


if __name__ == "__main__":
    main()
