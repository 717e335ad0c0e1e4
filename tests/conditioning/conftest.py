"""A gateway that serves the encoders of the pipelines, built from the folders that hold them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from diptych.client import AsyncClient
from diptych.gateway.server import gateway
from tests.conditioning import pipelines
from tests.serving import local

TEXT, TEXT_2, IMAGE = "clip-l", "clip-g", "clip-h"
LONG = "the red dog photo a circle " * 33 + "red dog"  # 200 tokens


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors so small take longer on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with each of the three encoders, built side by side as a person would."""
    folder = pipelines.saved(tmp_path_factory.mktemp("pipeline"))
    root = folder.parent / "models"
    layers = ("--hidden-states", "3")
    builds = [
        _build(folder / "text_encoder", TEXT, root, *layers),
        _build(folder / "text_encoder_2", TEXT_2, root, *layers, "--attention-mask"),
        _build(folder / "image_encoder", IMAGE, root),
    ]
    for build in builds:
        output, _ = build.communicate()
        assert build.returncode == 0, output
    return root


def _build(source: Path, name: str, root: Path, *options: str) -> subprocess.Popen[str]:
    where = ("--from", str(source), "--name", name, "--repository", str(root))
    return subprocess.Popen(
        [sys.executable, "-m", "diptych_export", "build", *where, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(models: Path) -> AsyncIterator[AsyncClient]:
    settings = local(repository=models, model=(TEXT, TEXT_2, IMAGE), precision="fp32")
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        yield client
