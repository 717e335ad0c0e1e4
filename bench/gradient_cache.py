"""How much memory a training step takes as its batch grows, with gradient caching and without.

    python -m bench.gradient_cache

One step of the `tiny` preset in a fresh process for each size: the peak of its resident memory
during that step, above what it had after a small one. Embeddings are the vectors of all pairs, the
only thing that has to grow. Plain computation stops at 4,096 pairs. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZES = (1024, 2048, 4096, 8192, 16_384, 32_768)
CHUNK = 256
PLAIN = 4096  # pairs, at most, without caching

_MIB = 2**20
_SMALL = 32  # pairs


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--pairs", type=int, nargs="+", default=SIZES, metavar="N")
    reader.add_argument("--chunk", type=int, default=CHUNK)
    reader.add_argument("--json", action="store_true", help="one JSON object per size")
    reader.add_argument("--one", type=int, help=argparse.SUPPRESS)  # in a process of its own
    options = reader.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.chunk)))
        return
    if not options.json:
        print("  pairs     cached   of it embeddings   seconds        plain")
    for pairs in options.pairs:
        found = in_a_process_of_its_own(pairs, options.chunk)
        plain = in_a_process_of_its_own(pairs, pairs) if pairs <= PLAIN else None
        show(found, plain, as_json=options.json)


def measured(pairs: int, chunk: int) -> dict[str, Any]:
    """Peak memory of one step, in bytes, and its time."""
    import torch

    from diptych_export.data.batches import Batch
    from diptych_export.presets import PRESETS
    from diptych_export.recipe import Recipe
    from diptych_export.starting import begun, learned_tokenizer, understood
    from diptych_export.trainer import Means, Trainer

    plan = understood("tiny")
    texts = [f"number {number}" for number in range(1000)]
    torch.manual_seed(0)
    learner = begun(plan, learned_tokenizer(plan, texts), "softmax")
    size = learner.image.size
    recipe = Recipe(steps=2, rate=1e-3, warmup=1, weight_decay=0.1, clip_norm=1.0)

    def noise(chunk: int) -> Iterator[Batch]:
        while True:
            pixels = torch.randint(256, (chunk, size, size, 3), dtype=torch.uint8)
            yield Batch(pixels.numpy(), [texts[row % 1000] for row in range(chunk)])

    Trainer(learner, recipe, Means(chunks=2)).step(noise(_SMALL))  # what is there once and for all
    trainer = Trainer(learner, recipe, Means(chunks=pairs // chunk))
    forget_peak()
    rest, began = resident_bytes("VmRSS"), time.monotonic()
    trainer.step(noise(chunk))
    return {
        "pairs": pairs,
        "chunk": chunk,
        "bytes": resident_bytes("VmHWM") - rest,
        "embedding_bytes": 2 * 4 * pairs * PRESETS["tiny"].embed_dim,
        "seconds": time.monotonic() - began,
    }


def forget_peak() -> None:
    """Let the peak be what is in memory now: proc(5), clear_refs."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_bytes(field: str) -> int:
    """Of this process: VmRSS is now, VmHWM the peak. proc(5), status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def in_a_process_of_its_own(pairs: int, chunk: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.gradient_cache"]
    command += ["--one", str(pairs), "--chunk", str(chunk)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # each has buffers of its own
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=one_thread)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def show(found: dict[str, Any], plain: dict[str, Any] | None, *, as_json: bool) -> None:
    if as_json:
        found["plain_bytes"] = plain["bytes"] if plain else None
        print(json.dumps(found), flush=True)
        return
    beside = f"   {plain['bytes'] / _MIB:6.0f} MiB" if plain else ""
    print(
        f"{found['pairs']:7,} {found['bytes'] / _MIB:6.0f} MiB "
        f"{found['embedding_bytes'] / _MIB:14.1f} MiB {found['seconds']:9.1f}{beside}",
        flush=True,
    )


if __name__ == "__main__":
    main()
