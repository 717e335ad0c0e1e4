"""How many inputs a second of a case the machine could answer with no server at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.traffic import Case, Kind


def ceiling(case: Case, alone: dict[str, Any]) -> float | None:
    """Inputs per second, DESIGN §5. None where nothing need be computed."""
    return None if case.repeats else 1 / input_s(case, alone)


def input_s(case: Case, alone: dict[str, Any]) -> float:
    """Seconds for one input, the mean of a case's kinds: reading / cores + engine at its best
    batch. Texts count at their own length."""
    cores: int = alone["cores"]
    reading: list[float] = [
        alone[_READING[kind]] / cores for kind in case.kinds if kind in _READING
    ]
    engine = [_engine_s(kind, alone) for kind in case.kinds]
    return (sum(reading) + sum(engine)) / len(case.kinds)


_READING = {"image": "decode_image", "large": "decode_large", "text": "tokenize"}


def _engine_s(kind: Kind, alone: dict[str, Any]) -> float:
    if kind != "text":
        return _best(alone["image"])
    lengths: dict[str, float] = alone["lengths"]
    measured = sorted((int(length), _best(batches)) for length, batches in alone["text"].items())
    at, seconds = ([pair[side] for pair in measured] for side in (0, 1))
    own = np.interp([int(length) for length in lengths], at, seconds)
    return float(np.dot(own, list(lengths.values())))


def _best(batches: dict[str, float]) -> float:
    return min(batches.values())
