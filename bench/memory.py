"""Whether a server's memory stays flat: resident bytes before and after very many calls.

    python -m bench.memory

A million texts answered from the cache, and 50,000 pictures that all differ. Pictures go to the
small model that is shipped, so that it does not take hours.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import model
from bench.processes import gateway, load
from bench.traffic import CASES

_WARMUP_CALLS = {"cached_text": 50_000, "image": 30_000}  # the image cache is full by then


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the model")
    reader.add_argument("--texts", type=int, default=1_000_000, help="calls")
    reader.add_argument("--images", type=int, default=50_000, help="calls")
    options = reader.parse_args()
    large = ("--repository", str(model.build(options.folder)), "--model", model.NAME)
    small = ("--repository", "model_repository")
    for name, calls, flags in (
        ("cached_text", options.texts, large),
        ("image", options.images, small),
    ):
        with gateway(*flags) as server:
            load(server, CASES[name], calls=_WARMUP_CALLS[name])
            before = server.memory_bytes()
            found = load(server, CASES[name], calls=calls)
            added = server.memory_bytes() - before
        line = {"case": name, "calls": calls, "added_mib": added / 2**20, "codes": found["codes"]}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
