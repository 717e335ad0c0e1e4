"""Exported graphs in, graphs of the precision asked for out, proved by the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx

from diptych.contract import TextSpec, Tower
from diptych.engines.base import PIXELS
from diptych.preprocess.text import TextTokenizer, pad_tokens
from diptych.text_calls import inputs as text_inputs
from diptych_export.calibration import Calibration
from diptych_export.errors import ParityError
from diptych_export.halves import to_bfloat16, to_float16
from diptych_export.int8 import Feed, Quantizer
from diptych_export.onnx import OPSET, save
from diptych_export.parity import Gate, Precision

Graphs: TypeAlias = Mapping[Tower, Path]
Say: TypeAlias = Callable[[str], None]  # one line of progress

_BATCH = 16  # inputs a run while calibrating

_HALVES = {"fp16": to_float16, "bf16": to_bfloat16}


@dataclass(frozen=True, slots=True)
class Making:
    """How graphs are written."""

    precision: Precision = "fp32"
    opset: int = OPSET
    calibration: Calibration | None = None  # for int8, which cannot be made without

    def __post_init__(self) -> None:
        if self.precision == "int8" and self.calibration is None:
            raise ValueError("int8 needs calibration")


def convert(
    graphs: Graphs, tokenizer: Path, text: TextSpec, gate: Gate, making: Making, say: Say
) -> dict[str, float]:
    """Rewrite float32 `graphs` in their place; answer the gate's figures.

    Raises:
        ParityError: what came out is too far from its source.
    """
    if making.calibration is not None:
        return _int8(graphs, _feeds(making.calibration, tokenizer, text), gate, say)
    if making.precision in _HALVES:
        say(f"rewriting both towers in {making.precision}")
        for path in graphs.values():
            save(_HALVES[making.precision](onnx.load(path)), path)
    say("comparing every output with the source library's")
    return gate.check(graphs, making.precision)


def _int8(
    graphs: Graphs, feeds: Mapping[Tower, list[Feed]], gate: Gate, say: Say
) -> dict[str, float]:
    """The tower that the gate blames gets its worst products back in float32, and tries again."""
    say("calibrating both towers")
    makers = {
        tower: Quantizer(onnx.load(path), feeds[tower], gate.feeds(tower, _BATCH))
        for tower, path in graphs.items()
    }
    for tower, maker in makers.items():
        maker.write(graphs[tower])
    while True:
        say("comparing every output with the source library's")
        try:
            figures = gate.check(graphs, "int8")
        except ParityError as error:
            blamed = [tower for tower in Tower if error.output.startswith(f"{tower}.")]
            for tower in blamed or list(Tower):
                if not makers[tower].give_back():
                    raise
                makers[tower].write(graphs[tower])
                maker = makers[tower]
                say(
                    f"{error.output} strays: {maker.kept} of {maker.products} products of the "
                    f"{tower} tower go back to float32"
                )
            continue
        return figures | {
            f"{tower}.products_in_{kind}": number
            for tower, maker in makers.items()
            for kind, number in (
                ("int8", maker.products - maker.kept),
                ("float32", maker.kept),
            )
        }


def _feeds(calibration: Calibration, tokenizer: Path, text: TextSpec) -> dict[Tower, list[Feed]]:
    reader = TextTokenizer(tokenizer, text)
    tokens = [reader.tokenize(own, truncate=True).tokens for own in calibration.texts]
    found: dict[Tower, list[Feed]] = {Tower.IMAGE: [], Tower.TEXT: []}
    for start in range(0, len(tokens), _BATCH):
        part = slice(start, start + _BATCH)
        found[Tower.IMAGE].append({PIXELS: np.stack(calibration.pixels[part])})
        found[Tower.TEXT].append(text_inputs(text, *pad_tokens(tokens[part], text)))
    return found
