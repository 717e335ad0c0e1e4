"""A file of weights in, named tensors out; nothing in the file is ever run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from diptych_export.errors import BadCheckpoint
from diptych_export.sources import torchscript


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of `path`, floating ones as float32.

    Raises:
        BadCheckpoint: broken, or a value is not finite.
    """
    with one_line(str(path)):
        state = load_file(path)
    return _checked(str(path), state)


def read_archive(path: Path) -> dict[str, Tensor]:
    """Every tensor of a `.pt`: a TorchScript archive, or a state dict of `torch.save`.

    Raises:
        BadCheckpoint: broken, something else, or a value is not finite.
    """
    with one_line(str(path)):
        if torchscript.is_torchscript(path):
            state = torchscript.read_weights(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or "state_dict" in state:
        problem = "a training checkpoint, which says neither activation nor preprocessing"
        raise BadCheckpoint(f"{path}: {problem}; its export with open_clip_config.json is needed")
    if not all(isinstance(weights, Tensor) for weights in state.values()):
        raise BadCheckpoint(f"{path}: not a dictionary of weights")
    return _checked(str(path), state)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_finite(where: str, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not numbers: they make vectors that are not.

    Raises:
        BadCheckpoint: names the first.
    """
    for name, weights in state.items():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise BadCheckpoint(f"{where}: {name} has values that are not finite")


def refuse_names(where: str, problem: str, names: Sequence[str]) -> None:
    """Refuse if there are any `names` of weights, which are all `problem`.

    Raises:
        BadCheckpoint: names the first, and counts the others.
    """
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise BadCheckpoint(f"{where}: {problem} weights: {names[0]}{more}")


@contextmanager
def one_line(where: str) -> Iterator[None]:
    """Turn what a library raises, in many kinds and paragraphs, into one line of ours."""
    try:
        yield
    except BadCheckpoint:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise BadCheckpoint(f"{where}: {first.strip() or type(error).__name__}") from error


def _checked(where: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Causal masks, infinite on purpose: no weights, but a TorchScript archive keeps them by those.
    state = {name: tensor for name, tensor in state.items() if not name.endswith("attn_mask")}
    check_finite(where, state)
    return {
        name: weights.float() if weights.is_floating_point() else weights
        for name, weights in state.items()
    }
