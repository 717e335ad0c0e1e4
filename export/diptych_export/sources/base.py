"""What every kind of checkpoint becomes before it is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.contract import Canary, ImageSpec, TextSpec
from diptych_export.graph import ImageTower, TextTower

Array: TypeAlias = npt.NDArray[np.float32]


class Reference(Protocol):
    """The source library itself, from its own preprocessing to its own outputs.

    Outputs are those of our graph by name, for one input: [D] or [T, H]; of the text tower with
    so many last `layers`.
    """

    def image(self, file: bytes) -> dict[str, Array]: ...

    def text(self, text: str, layers: int = 0) -> dict[str, Array]: ...

    def canary(self, image: ImageSpec, text: TextSpec) -> Canary: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A dual encoder, read, in all that an export needs to know of it."""

    image: ImageSpec
    text: TextSpec
    image_tower: ImageTower
    text_tower: TextTower
    tokenizer_json: str
    reference: Reference
    numbers: Mapping[str, Any]  # the fields of ModelSpec that are numbers of the checkpoint
    score: Literal["softmax", "sigmoid"]
    origin: str  # where the weights came from, for a person
    licence: str  # SPDX identifier, or what the source says
