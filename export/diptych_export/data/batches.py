"""What every source of training data yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Batch:
    """Image i belongs to text i, and to no other text of its group."""

    pixels: npt.NDArray[np.uint8]  # [B, S, S, 3], RGB
    texts: list[str]  # B of them
    groups: tuple[int, ...] = ()  # sizes of the runs contrasted apart; none: all are one group
