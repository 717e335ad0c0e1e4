"""`make demo`: one real request after another through a real gateway process, explained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from diptych.client import Client
from diptych.errors import EngineUnavailable

PICTURES = Path("tests/pictures")
CAPTIONS = (
    "a red circle",
    "a blue square",
    "a green triangle",
    "a yellow star",
    "a red circle above a blue square",
    "a blue square above a red circle",
)
START_S = 60.0  # large models load slowly

_LISTENING = "listening on "


def run_demo(repository: Path, pictures: Path, out: Console) -> None:
    """Embed and score every picture in the folder `pictures`; print what came back and from where.

    Raises:
        OSError: no pictures there.
        EngineUnavailable: the gateway did not start.
    """
    files = sorted(path for path in pictures.glob("*") if path.suffix in (".png", ".jpg", ".webp"))
    if not files:
        raise OSError(f"{pictures}: no pictures")
    with _gateway(repository, out) as address, Client(address) as client:
        embedded = client.embed([*files, *CAPTIONS])
        out.print(f"\nEmbed: {len(files)} pictures and {len(CAPTIONS)} texts in one call")
        out.print(f"  vectors {embedded.vectors.shape}, of unit length, in one space")
        timings = embedded.timings
        out.print(
            f"  decode {timings.decode_s * 1e3:.1f} ms, queue {timings.queue_s * 1e3:.1f} ms, "
            f"engine {timings.engine_s * 1e3:.1f} ms"
        )
        for measure in ("cosine", "softmax"):
            scored = client.score(files, CAPTIONS, measure=measure)
            out.print(
                _table(
                    f"Score, {measure}",
                    [f.stem.replace("_", " ") for f in files],
                    scored.scores.tolist(),
                )
            )
        [model] = client.models().models
        out.print("Where these numbers came from")
        out.print(f"  model        {model.space.model} version {model.space.version}")
        out.print(f"  source       {model.source}", soft_wrap=True)
        out.print(f"  fingerprint  {model.space.fingerprint}", soft_wrap=True)
        out.print(f"  engine       {model.engine}", soft_wrap=True)
        out.print(f"  scale, bias  {model.logit_scale:.3f}, {model.logit_bias:.3f}")


@contextmanager
def _gateway(repository: Path, out: Console) -> Iterator[str]:
    """A gateway in a process of its own; yields its address, stops it as Kubernetes would."""
    command = [sys.executable, "-m", "diptych", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--repository", str(repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                out.print(f"gateway: {line.rstrip()}", soft_wrap=True)
                if line.startswith(_LISTENING):
                    yield line.removeprefix(_LISTENING).strip()
                    break
            else:
                raise EngineUnavailable("the gateway did not start")
        finally:
            process.terminate()
            process.wait(timeout=START_S)
    out.print(f"gateway: stopped, status {process.returncode}")


def _table(title: str, names: list[str], scores: list[list[float]]) -> Table:
    """Captions down, pictures across; each picture's best caption in bold."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column(no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", min_width=6, overflow="fold")  # numbers whole
    best = [max(row) for row in scores]
    for caption, column in zip(CAPTIONS, zip(*scores, strict=True), strict=True):
        cells = [
            f"[bold]{score:.3f}[/bold]" if score == top else f"{score:.3f}"
            for score, top in zip(column, best, strict=True)
        ]
        table.add_row(caption, *cells)
    return table
