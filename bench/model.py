"""The model the benchmark runs on: towers of full ViT-B/32 size, weights random.

    python -m bench.model FOLDER

Speed does not depend on what was learned. The checkpoint goes the way of any other: written in
transformers' layout, built by `diptych-export build` with its gate, served from a repository.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAME = "vit-b-32"


def build(folder: Path) -> Path:
    """The model repository in `folder`, made where it is not there yet."""
    repository = folder / "model_repository"
    if not (repository / f"{NAME}_text").is_dir():
        subprocess.run([sys.executable, "-m", "bench.model", str(folder)], check=True)
        command = [sys.executable, "-m", "diptych_export", "build", "--name", NAME]
        command += ["--from", str(folder / "checkpoint"), "--repository", str(repository)]
        subprocess.run([*command, "--target", "python", "--json"], check=True, stdout=sys.stderr)
    return repository


def write_checkpoint(folder: Path) -> None:
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


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]) / "checkpoint")
