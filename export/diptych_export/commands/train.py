"""`diptych-export train`."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from diptych_export.pretrain import Keeping, pretrain
from diptych_export.settings import Settings

progress = Console(highlight=False, stderr=True)


def train(
    settings: Annotated[Settings, Parameter(name="*")],
    keeping: Annotated[Keeping, Parameter(name="*")],
) -> None:
    """Train a dual encoder on pairs of images and texts; print where its last checkpoint lies.

    A checkpoint opens in transformers (or, where transformers has no such model, in OpenCLIP),
    and `diptych-export build --from` takes it. Over several processes: torchrun --nproc-per-node
    N -m diptych_export train …

    Example: diptych-export train --model vit-b-32 --data 'shards/{000..127}.tar' --out runs/b32
    --batch 32768 --chunk 512 --precision bf16 --workers 8
    """
    last = pretrain(settings, keeping, progress)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes, one
        print(last)  # noqa: T201 (for programs)
