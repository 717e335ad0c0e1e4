"""The model the benchmark runs on: towers of full ViT-B/32 size, weights random.

Speed does not depend on what was learned. The checkpoint goes the way of any other: written in
transformers' layout, built by `diptych-export build` with its gate, served from a repository.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

NAME = "vit-b-32"


def build(folder: Path) -> Path:
    """The model repository in `folder`, made where it is not there yet."""
    repository, checkpoint = folder / "model_repository", folder / "checkpoint"
    if not (repository / f"{NAME}_text").is_dir():
        _python("bench.model", "checkpoint", str(checkpoint))
        command = ["build", "--from", str(checkpoint), "--repository", str(repository)]
        _python("diptych_export", *command, "--name", NAME, "--target", "python")
    return repository


def build_padded(folder: Path) -> Path:
    """The same model in a repository of its own, but every text is padded to the whole context."""
    build(folder)
    repository = folder / "padded_repository"
    if not (repository / f"{NAME}_text").is_dir():
        _python("bench.model", "padded", str(folder / "checkpoint"), str(repository))
    return repository


def _python(module: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", module, *words], check=True, stdout=sys.stderr)


def _write_checkpoint(folder: Path) -> None:
    """Fresh towers and a tokenizer that knows the benchmark's words."""
    import torch

    from bench.traffic import texts
    from diptych_export import layouts
    from diptych_export.starting import begun, learned_tokenizer, understood

    torch.manual_seed(0)
    plan = understood(NAME)
    learner = begun(plan, learned_tokenizer(plan, texts()), "softmax")
    folder.mkdir(parents=True, exist_ok=True)
    layouts.write(learner, folder)


def _build_padded(checkpoint: Path, repository: Path) -> None:
    from diptych_export.build import build as export
    from diptych_export.sources.opening import open_source

    source = open_source(str(checkpoint))
    text = source.text.model_copy(update={"padding": "max_length"})
    export(replace(source, text=text), NAME, repository)


if __name__ == "__main__":
    if sys.argv[1] == "padded":
        _build_padded(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        _write_checkpoint(Path(sys.argv[2]))
