"""The processes that train together: who we are, and what we hand each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from diptych_export.errors import BadRun

Device: TypeAlias = Literal["auto", "cpu", "cuda"]  # auto: a GPU where there is one


@dataclass(frozen=True, slots=True)
class World:
    """One of `size` processes. Alone, every exchange is the identity."""

    rank: int = 0
    size: int = 1

    def gather(self, own: Tensor) -> Tensor:
        """[b, ...] of every process to [size * b, ...], by rank. No gradient flows back.

        All processes hand in the same shape.
        """
        if self.size == 1:
            return own.detach()
        whole = own.new_empty((self.size * len(own), *own.shape[1:]))
        dist.all_gather_single(whole, own.detach().contiguous())
        return whole

    def total(self, own: Tensor) -> Tensor:
        """The sum of every process's tensor, in place."""
        if self.size > 1:
            dist.all_reduce(own)
        return own

    def any(self, own: bool) -> bool:
        """Whether it is so for one of the processes."""
        if self.size == 1:
            return own
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return bool(self.total(torch.tensor(float(own), device=device)).item())

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes; None where all have none."""
        if self.size == 1:
            return
        waiting = []
        for parameter in parameters:
            if parameter.grad is None:  # the others wait for us all the same
                parameter.grad = torch.zeros_like(parameter)
            waiting.append(dist.all_reduce(parameter.grad, async_op=True))
        for work in waiting:
            work.wait()

    def collect(self, own: Any) -> list[Any]:
        """What every process hands in, by rank, on rank 0; elsewhere an empty list."""
        if self.size == 1:
            return [own]
        everyones: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(own, everyones)
        return everyones or []

    def from_first(self, own: Any) -> Any:
        """What rank 0 hands in, everywhere. Also a point that nobody passes before it."""
        if self.size == 1:
            return own
        box = [own]
        dist.broadcast_object_list(box)
        return box[0]


@contextmanager
def joined(device: Device) -> Iterator[tuple[World, torch.device]]:
    """This process among those torchrun started, or alone, and the device it computes on.

    Raises:
        BadRun: a GPU is asked for, and torch finds none.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = torch.device(kind)
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise BadRun("--device cuda: torch finds no GPU")
        place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    if size == 1:
        yield World(), place
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size), place
    finally:
        dist.destroy_process_group()
