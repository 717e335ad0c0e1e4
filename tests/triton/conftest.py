"""A real tritonserver for the session, serving the shipped model in float32."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from diptych import repository
from diptych.engines.embedded import EmbeddedEngine
from diptych.engines.triton import TritonEngine
from diptych.engines.triton_install import PINS, VENV, Installed, install
from diptych.engines.triton_server import TritonServer, tritonserver
from diptych.repository import ModelFiles
from diptych_export import triton_config
from diptych_export.triton_config import Placement
from tests.serving import REPOSITORY, SHAPES
from tests.triton.far_end import FarEnd

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed() -> Installed:
    return install(ROOT / VENV, ROOT / PINS)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """The shipped model, told to compute in float32 on every CPU."""
    root = tmp_path_factory.mktemp("exact")
    for folder in SHAPES.spec.folders.values():
        shutil.copytree(REPOSITORY / folder, root / folder)
    triton_config.write(root, SHAPES.spec, Placement(precision="fp32"), {})
    return repository.load(root, SHAPES.spec.name)


@pytest.fixture(scope="session")
def served(files: ModelFiles) -> Path:
    """The model repository that `triton` serves."""
    return files.tokenizer.parents[2]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def triton(
    installed: Installed, served: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TritonServer]:
    log = tmp_path_factory.mktemp("triton") / "log"
    async with tritonserver(served, installed, log=log) as server:
        yield server


@pytest.fixture
async def engine(triton: TritonServer, files: ModelFiles) -> AsyncIterator[TritonEngine]:
    engine = await TritonEngine.connect(triton.address, files)
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def embedded(files: ModelFiles) -> EmbeddedEngine:
    return EmbeddedEngine(files.spec, files.graphs, threads=2, precision="fp32")


@pytest.fixture
async def far_end(files: ModelFiles) -> AsyncIterator[FarEnd]:
    """A stand-in for Triton that can be told to misbehave."""
    async with FarEnd(files).serving() as far_end:
        yield far_end


@pytest.fixture
async def near_end(far_end: FarEnd, files: ModelFiles) -> AsyncIterator[TritonEngine]:
    """An engine connected to `far_end`."""
    engine = await TritonEngine.connect(far_end.address, files)
    yield engine
    await engine.close()
