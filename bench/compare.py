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

from bench import model
from bench.processes import gateway, load
from bench.traffic import CASES

_NO_CACHE = ("--text-cache-bytes", "0", "--image-cache-bytes", "0")

# A case: the flags that switch its saving off.
SAVINGS = {"text": ("--model", model.PADDED), "image_large": ("--exact-images",)}


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the models")
    reader.add_argument("--runs", type=int, default=3, help="of each, in turns")
    reader.add_argument("--seconds", type=float, default=5.0, help="measured, of each run")
    options = reader.parse_args()
    repository = model.build_padded(options.folder)
    for case, off in SAVINGS.items():
        usual = ("--model", model.NAME) if "--model" not in off else ()
        ways = {"on": ("--model", model.NAME), "off": (*usual, *off)}
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.runs):
            for way, flags in ways.items():
                with gateway("--repository", str(repository), *_NO_CACHE, *flags) as server:
                    found = load(server, CASES[case], seconds=options.seconds, concurrency=32)
                    speeds[way].append(found["items_per_s"])
        on, off_speed = (statistics.median(speeds[way]) for way in ways)
        line = {"case": case, "on": on, "off": off_speed, "ratio": on / off_speed}
        print(json.dumps(line), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
