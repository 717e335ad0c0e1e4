"""The same server with one of its savings switched off, and with it on, in turns.

    python -m bench.compare

- `text`: each batch padded to its own longest text, against every text padded to the context;
- `image_large`: large JPEGs decoded at a reduced scale, against every pixel.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from bench import model
from bench.processes import gateway, load
from bench.traffic import CASES

_NO_CACHE = ("--text-cache-bytes", "0", "--image-cache-bytes", "0")


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the models")
    reader.add_argument("--runs", type=int, default=3, help="of each, in turns")
    reader.add_argument("--seconds", type=float, default=6.0, help="measured, of each run")
    options = reader.parse_args()
    usual = ["--repository", str(model.build(options.folder))]
    compare("image_large", usual, [*usual, "--exact-images"], options)
    padded = ["--repository", str(model.build_padded(options.folder))]
    compare("text", usual, padded, options)


def compare(case: str, on: list[str], off: list[str], options: argparse.Namespace) -> None:
    """Print the medians of one case with a saving switched on and off by `diptych serve` flags."""
    speeds: dict[str, list[float]] = {"on": [], "off": []}
    for _ in range(options.runs):
        for way, flags in (("on", on), ("off", off)):
            with gateway(*flags, *_NO_CACHE) as server:
                found = load(server, CASES[case], seconds=options.seconds, concurrency=32)
                speeds[way].append(found["items_per_s"])
    line: dict[str, Any] = {way: statistics.median(found) for way, found in speeds.items()}
    print(json.dumps({"case": case, **line, "ratio": line["on"] / line["off"]}), flush=True)


if __name__ == "__main__":
    main()
