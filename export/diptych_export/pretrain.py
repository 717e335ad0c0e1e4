"""Settings in, a run out: its checkpoints, its record, and the way back into it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from diptych_export import layouts, saving, starting
from diptych_export.data import shapes
from diptych_export.data.loading import Chunks, PairChunks, Reading, State
from diptych_export.data.pairs import Keys, Pair, Reject, Shard
from diptych_export.data.scene_chunks import Lessons, SceneChunks
from diptych_export.data.shards import shards
from diptych_export.errors import BadRun
from diptych_export.learner import Learner
from diptych_export.settings import Settings
from diptych_export.trainer import Means, Trainer
from diptych_export.watching import watching
from diptych_export.world import Device, World, joined

SCENES, LESSONS = "shapes", "lessons"  # as data: they are drawn
CHECKPOINTS, TOKENIZER, REJECTS = "checkpoints", "tokenizer", "rejects.jsonl"

_CAPTIONS = 100_000  # that a tokenizer is learned from
_ALONE = {SCENES: 0.4, LESSONS: 1 / 3}  # of the steps show scenes of one thing


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """Where a run lies and how it is computed; nothing here changes what is learned."""

    out: Path
    """Folder of the run: checkpoints, metrics.jsonl, curves.png, rejects.jsonl."""

    resume: bool = False
    """Go on from the last checkpoint in the folder, if there is one."""

    every: int = 1000
    """Steps between checkpoints."""

    keep: int = 3
    """Checkpoints that are kept: the newest so many."""

    device: Device = "auto"
    """auto: a GPU where there is one; or cpu, or cuda."""

    spool: Path | None = None
    """Folder where the chunks of a batch wait for their second encoding; the system's temporary
    one by default."""

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1")


def pretrain(settings: Settings, keeping: Keeping, console: Console) -> Path:
    """Train, or go on; answer the folder of the last checkpoint.

    Under torchrun every process calls this. SIGTERM and Ctrl+C end the run after the step in
    progress, with a checkpoint.

    Raises:
        BadRun: settings, folder and processes do not go together, or the run was told to stop.
        BadData: the data cannot be read.
    """
    with joined(keeping.device) as (world, device):
        chunks = settings.chunks_of(world.size)
        last = world.from_first(_last_checkpoint(settings, keeping) if world.rank == 0 else None)
        drawn = settings.data in ((SCENES,), (LESSONS,))
        files = [] if drawn else shards(settings.data, _keys(settings))
        learner = _learner(settings, files, keeping.out, world)
        learner.model.to(device)
        torch.manual_seed(settings.seed + world.rank)  # dropout differs between processes
        means = Means(world, device, chunks, settings.precision == "bf16", keeping.spool)
        trainer = Trainer(learner, settings.recipe, means)
        state = saving.restore(last, trainer, world) if last else None
        if files:
            source = _pairs(settings, files, learner, world, chunks, state)
        else:
            source = _drawn(settings, learner, world, chunks, state)
        _train(trainer, source, world, settings, keeping, console)
        return saving.place(keeping.out / CHECKPOINTS, trainer.done)


def _last_checkpoint(settings: Settings, keeping: Keeping) -> Path | None:
    """Where to go on, if anywhere; a new run's settings are kept for later."""
    found = list(saving.checkpoints(keeping.out / CHECKPOINTS).values())
    if found and not keeping.resume:
        raise BadRun(f"{keeping.out}: holds a run; go on with --resume, or choose another folder")
    if not found:
        settings.keep_in(keeping.out)
        return None
    settings.check_against(keeping.out)
    return found[-1]


def _train(
    trainer: Trainer,
    source: Chunks,
    world: World,
    settings: Settings,
    keeping: Keeping,
    console: Console,
) -> None:
    with (
        _told_to_stop(console) as told,
        watching(keeping.out, settings.steps, trainer.done, console, world) as show,
    ):
        while trainer.done < settings.steps:
            show(trainer.step(source))
            stop = world.any(told())
            if stop or trainer.done == settings.steps or trainer.done % keeping.every == 0:
                _list_rejects(world.collect(source.rejects()), keeping.out / REJECTS, console)
                saving.save(
                    trainer,
                    world,
                    source.state(),
                    keeping.out / CHECKPOINTS,
                    lambda folder: layouts.write(trainer.learner, folder),
                    keeping.keep,
                )
            if stop and trainer.done < settings.steps:
                raise BadRun(f"stopped after step {trainer.done}, where it can be resumed")


@contextmanager
def _told_to_stop(console: Console) -> Iterator[Callable[[], bool]]:
    """Whether a signal said so; a second one is obeyed at once."""
    told = False

    def heed(number: int, _: Any) -> None:
        nonlocal told
        told = True
        signal.signal(number, before[signal.Signals(number)])
        console.print("stopping after this step; once more to stop at once")

    before = {number: signal.signal(number, heed) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _list_rejects(everyones: Iterable[list[Reject]], path: Path, console: Console) -> None:
    """Add to the list; a sample that is met again in a later epoch stands there once."""
    known = set()
    if path.exists():
        known = {json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()}
    before = len(known)
    for reject in (reject for own in everyones for reject in own):
        if reject.id not in known:
            known.add(reject.id)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(reject)) + "\n")
    if len(known) > before:
        console.print(f"samples skipped so far: {len(known)}, listed in {path}")


def _learner(settings: Settings, files: list[Shard], out: Path, world: World) -> Learner:
    """The same on every process. A learned tokenizer is made once, and kept in `out`."""
    if settings.fine_tune:
        return starting.taken_up(Path(settings.model))
    plan = starting.understood(settings.model)
    tokenizer = starting.tokenizer_for(plan, settings.tokenizer)
    if tokenizer is None:
        learned = out / TOKENIZER
        if world.rank == 0 and not learned.exists():
            with saving.written_whole(learned) as folder:
                starting.learned_tokenizer(plan, _captions(settings, files)).save_pretrained(folder)
        world.from_first(None)
        tokenizer = starting.tokenizer_for(plan, learned)
    torch.manual_seed(settings.seed)
    return starting.begun(plan, tokenizer, settings.loss)


def _captions(settings: Settings, files: list[Shard]) -> list[str]:
    if not files:
        return shapes.texts(settings.seed, _CAPTIONS // 5)
    pairs = (item for shard in files for item in shard.read(0) if isinstance(item, Pair))
    return [pair.text for pair in islice(pairs, _CAPTIONS)]


def _pairs(
    settings: Settings,
    files: list[Shard],
    learner: Learner,
    world: World,
    chunks: int,
    state: State | None,
) -> Chunks:
    reading = Reading(
        files,
        learner.image,
        settings.batch // world.size // chunks,
        settings.seed,
        settings.shuffle,
        settings.least_view,
    )
    return PairChunks(reading, world, settings.workers, state)


def _drawn(
    settings: Settings, learner: Learner, world: World, chunks: int, state: State | None
) -> Chunks:
    [kind] = settings.data
    alone, side_px = round(_ALONE[kind] * settings.steps), learner.image.size
    if kind == LESSONS:
        if settings.batch != shapes.LESSON or chunks * world.size > 1:
            raise BadRun(f"lessons need --batch {shapes.LESSON}, in one chunk, on one process")
        return Lessons(settings.seed, side_px=side_px, alone=alone, state=state)
    return SceneChunks(
        settings.batch,
        settings.seed,
        side_px=side_px,
        alone=alone,
        chunks=chunks,
        world=world,
        state=state,
    )


def _keys(settings: Settings) -> Keys:
    return Keys(settings.image_key, settings.text_key)
