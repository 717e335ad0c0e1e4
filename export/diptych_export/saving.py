"""A run in progress in, a folder that it can be taken up from out; whole, or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from diptych.disk import sync
from diptych_export.errors import BadRun
from diptych_export.trainer import Trainer
from diptych_export.world import World

TENSORS, REST = "training.safetensors", "training.json"

_UNFINISHED = ".unfinished-"


def checkpoints(root: Path) -> dict[int, Path]:
    """The finished checkpoints in `root` by the steps behind them, in order."""
    found = {int(path.name): path for path in root.glob("[0-9]*") if path.name.isdecimal()}
    return dict(sorted(found.items()))


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write into; it gets its name once all of it is on disk."""
    for left_over in path.parent.glob(f"{_UNFINISHED}*"):  # of a run that was killed
        shutil.rmtree(left_over)
    folder = path.with_name(_UNFINISHED + path.name)
    folder.mkdir(parents=True)
    yield folder
    for file in [*folder.rglob("*"), folder]:
        sync(file)
    if path.exists():  # of the same step: a run that was taken up and stopped at once
        shutil.rmtree(path)
    os.rename(folder, path)
    sync(path.parent)


def place(root: Path, step: int) -> Path:
    """The folder of the checkpoint behind so many steps."""
    return root / f"{step:07}"


def save(
    trainer: Trainer,
    world: World,
    data: dict[str, Any],
    root: Path,
    model: Callable[[Path], None],
    keep: int,
) -> None:
    """Write `place(root, STEP)`: what `model` writes there, and all the next step depends on.

    Every process must call this; the first one writes. Of older ones, `keep` in all are kept.
    """
    everyones = world.collect({"data": data, "random": _random_state()})
    if world.rank == 0:
        root.mkdir(parents=True, exist_ok=True)
        with written_whole(place(root, trainer.done)) as folder:
            model(folder)
            tensors = {name: value.contiguous() for name, value in trainer.tensors().items()}
            save_file(tensors, folder / TENSORS)
            rest = {"step": trainer.done, "seconds": trainer.seconds, "processes": everyones}
            (folder / REST).write_text(json.dumps(rest))
        _forget(root, keep)
    world.from_first(None)


def restore(folder: Path, trainer: Trainer, world: World) -> dict[str, Any]:
    """Bring `trainer` and torch's randomness where they were; answer where the data was.

    Raises:
        BadRun: nothing there to go on from, or not for so many processes.
    """
    try:
        rest = json.loads((folder / REST).read_text())
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError) as error:
        raise BadRun(f"{folder}: cannot be taken up: {error}") from error
    if len(rest["processes"]) != world.size:
        was = len(rest["processes"])
        raise BadRun(f"{folder}: was written by {was} processes, these are {world.size}")
    trainer.restore(tensors, rest["step"], rest["seconds"])
    own: dict[str, Any] = rest["processes"][world.rank]
    _set_random_state(own["random"])
    return dict(own["data"])


def _forget(root: Path, keep: int) -> None:
    """Remove what is too old; of the rest, only the newest can be taken up."""
    *older, _ = checkpoints(root).values()
    for path in older[: len(older) + 1 - keep]:
        shutil.rmtree(path)
    for path in older[len(older) + 1 - keep :]:
        for name in (REST, TENSORS):
            (path / name).unlink(missing_ok=True)


def _random_state() -> dict[str, str]:
    state = {"cpu": torch.get_rng_state().numpy().tobytes().hex()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def _set_random_state(state: dict[str, str]) -> None:
    def bytes_of(kind: str) -> torch.Tensor:
        return torch.frombuffer(bytearray.fromhex(state[kind]), dtype=torch.uint8)

    torch.set_rng_state(bytes_of("cpu"))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(bytes_of("cuda"))
