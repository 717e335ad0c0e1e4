"""What a training run is asked for; it is kept beside the run, and going on must agree with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from diptych_export.errors import BadRun
from diptych_export.recipe import Recipe

FILE = "run.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Each field is a flag of `diptych-export train`, and changes what is learned."""

    model: str
    """A preset (shapes, tiny, vit-b-32, vit-l-14, rn50), or transformers' config of a CLIP or
    SigLIP model: a folder, or a JSON file."""

    data: tuple[str, ...]
    """Files of pairs, braces and wildcards allowed, local or at any fsspec URL: webdataset shards
    (.tar), tables (.csv, .tsv, .parquet). Repeatable. Or scenes that are drawn: `shapes`; or
    `lessons`, those of the demonstration, always in batches of 124."""

    steps: int = 10_000
    """Batches to learn from."""

    batch: int = 256
    """Pairs a step, over all processes."""

    chunk: int = 0
    """Pairs that are in memory with their graph at a time, on each process; 0: all of its part.
    Less memory for one more encoding: gradients are cached, the loss is that of the batch. Batch
    norms of ResNets see a chunk at a time."""

    loss: Literal["auto", "softmax", "sigmoid"] = "auto"
    """InfoNCE, or SigLIP's; auto: what the model's family is made for."""

    rate: float = 5e-4
    """The highest learning rate."""

    warmup: int = 500
    """Steps to reach it; then half a cosine down to zero."""

    weight_decay: float = 0.2
    """Of matrices; gains, biases and the scale never decay."""

    clip_norm: float = 1.0
    """The longest a gradient may be, all parameters together."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: towers multiply in bfloat16, weights stay float32."""

    least_view: float = 0.9
    """Training sees a random part of each picture, of at least this share of it; 1: all."""

    shuffle: int = 1000
    """Samples shuffled among themselves; they wait in memory, encoded, in every worker."""

    workers: int = 0
    """Processes that read and decode pairs, for each that trains; 0: it does that itself."""

    seed: int = 0
    """Of weights, order and views."""

    tokenizer: Path | None = None
    """A folder with transformers' tokenizer. Else the one beside the config, or none: then one
    is learned from the first captions, and kept with the run."""

    fine_tune: bool = False
    """Begin with the weights beside the config, not with fresh ones."""

    image_key: str | None = None
    """Column of paths or bytes, or extension in shards, where it is not a usual name."""

    text_key: str | None = None
    """Column, extension or JSON field of captions, likewise."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "shuffle"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1")
        for name in ("chunk", "warmup", "workers", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be negative")
        for name in ("rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0")
        if not 0 < self.least_view <= 1:
            raise ValueError("--least-view must be above 0, and at most 1")

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.steps, self.rate, self.warmup, self.weight_decay, self.clip_norm)

    def chunks_of(self, processes: int) -> int:
        """How many chunks a batch has on each of so many processes.

        Raises:
            BadRun: they would not be of one size.
        """
        if self.batch % processes:
            raise BadRun(f"--batch {self.batch} cannot be shared by {processes} processes")
        own = self.batch // processes
        if own % (self.chunk or own):
            raise BadRun(f"--chunk {self.chunk} does not divide the {own} pairs of a process")
        return own // (self.chunk or own)

    def keep_in(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(self), indent=2, default=str)
        (folder / FILE).write_text(content + "\n", encoding="utf-8")

    def check_against(self, folder: Path) -> None:
        """Refuse to go on with a run that was begun otherwise.

        Raises:
            BadRun: naming the first flag that differs.
        """
        try:
            begun = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadRun(f"{folder / FILE}: missing, or not JSON") from error
        own = json.loads(json.dumps(asdict(self), default=str))
        for field in fields(self):
            if own[field.name] != begun.get(field.name):
                flag = f"--{field.name.replace('_', '-')}"
                was, asked = begun.get(field.name), own[field.name]
                raise BadRun(f"{folder}: was begun with {flag} {was}, cannot go on with {asked}")
