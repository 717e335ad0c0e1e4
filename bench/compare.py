"""The same calls two ways, in turns: with one of the server's savings and without, or scored too.

    python -m bench.compare

- `text`, `text_x64`: texts side by side at their own length, against every text padded to the
  context; one a call, and 64 a call of two callers;
- `image_large`: large JPEGs decoded at a reduced scale, against every pixel;
- `score_20`, `score_1000`: `Embed` of an image, against `Score` of it beside 20 texts that
  repeat, and beside a label set.

Both servers of a pair run all the while, and each is called for a few seconds at a time; a ratio
is that of one turn, so that a machine whose speed drifts does both sides alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import model
from bench.processes import Server, gateway, load
from bench.traffic import CASES, Case, write_labels

_PLAIN = ("--text-cache-bytes", "0", "--image-cache-bytes", "0", "--max-waiting-inputs", "8192")
_WAITING = 32  # inputs, at least; twice as many as a call has
PAIRS = ("text", "text_x64", "image_large", "score_20", "score_1000")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a case, and the flags of the server that answers it."""

    case: Case
    flags: tuple[str, ...]


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the models")
    reader.add_argument("--pairs", nargs="+", choices=PAIRS, default=PAIRS)
    reader.add_argument("--turns", type=int, default=9, help="of each pair")
    reader.add_argument(
        "--seconds", type=float, default=5.0, help="measured, of each side and turn"
    )
    options = reader.parse_args()
    for name in options.pairs:
        compare(name, *_sides(name, options.folder), options)


def compare(name: str, one: Side, other: Side, options: argparse.Namespace) -> None:
    """Print the median ratio of items a second, `one` to `other`."""
    speeds: list[tuple[float, float]] = []
    with ExitStack() as stack:
        servers = {side.flags: stack.enter_context(gateway(*side.flags)) for side in (one, other)}

        def speed(side: Side) -> float:
            return _speed(servers[side.flags], side.case, options.seconds)

        speed(one), speed(other)  # warm
        for turn in range(options.turns):
            if turn % 2:
                second, first = speed(other), speed(one)
            else:
                first, second = speed(one), speed(other)
            speeds.append((first, second))
    ratios = [first / second for first, second in speeds]
    line = {
        "pair": name,
        "items_per_s": [statistics.median(side) for side in zip(*speeds, strict=True)],
        "ratio": statistics.median(ratios),
        "ratios": sorted(ratios),
    }
    print(json.dumps(line), flush=True)


def _sides(name: str, folder: Path) -> tuple[Side, Side]:
    usual = ("--repository", str(model.build(folder)))
    if name.startswith("text"):
        padded = ("--repository", str(model.build_padded(folder)))
        text = CASES[name]
        return Side(text, (*usual, *_PLAIN)), Side(text, (*padded, *_PLAIN))
    if name == "image_large":
        large = CASES["image_large"]
        exact = (*usual, *_PLAIN, "--exact-images")
        return Side(large, (*usual, *_PLAIN)), Side(large, exact)
    labelled = (*usual, "--labels", str(write_labels(folder)))
    return Side(CASES["image"], labelled), Side(CASES[name], labelled)


def _speed(server: Server, case: Case, seconds: float) -> float:
    longer = 1 if case.inputs == 1 else 3  # calls of many inputs end rarely
    times = {"seconds": longer * seconds, "warmup": float(longer)}
    callers = max(2, _WAITING // case.inputs)
    found = load(server, case, concurrency=callers, **times)
    speed: float = found["items_per_s"]
    return speed


if __name__ == "__main__":
    main()
