"""More calls than the server can answer: what becomes of those it takes, and of the others.

    python -m bench.overload

Calls arrive at random times (open loop). First at 70 % of the peak, for the latency of a server
that is busy but well; then at three times the peak, with a deadline of twice that latency's p99.
Goodput is what was answered in time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import model
from bench.processes import gateway, load
from bench.traffic import CASES

_NO_CACHE = ("--text-cache-bytes", "0", "--image-cache-bytes", "0")


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the model")
    reader.add_argument("--cases", nargs="+", choices=CASES, default=["image", "text"])
    reader.add_argument("--seconds", type=float, default=15.0, help="measured, of each load")
    options = reader.parse_args()
    repository = str(model.build(options.folder))
    flags = ("--repository", repository, "--model", model.NAME, *_NO_CACHE)
    for name in options.cases:
        case, seconds = CASES[name], options.seconds
        with gateway(*flags) as server:
            peak = load(server, case, seconds=seconds, concurrency=32)["items_per_s"]
            calm = load(server, case, seconds=seconds, rate=0.7 * peak)
            deadline = 2 * calm["p99_ms"] / 1000
            storm = load(server, case, seconds=seconds, rate=3 * peak, deadline=deadline)
        line = {
            "case": name,
            "peak_per_s": peak,
            "goodput_ratio": storm["items_per_s"] / peak,
            "p99_ms_at_70_percent": calm["p99_ms"],
            "p99_ms_at_300_percent": storm["p99_ms"],
            "refused_p99_ms": storm["refused_p99_ms"],
            "codes": storm["codes"],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
