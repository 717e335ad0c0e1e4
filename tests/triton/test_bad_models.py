"""A model that goes wrong inside a real Triton, as callers of the gateway see it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from diptych import repository
from diptych.client import AsyncClient
from diptych.contract import Tower
from diptych.engines.triton_install import Installed
from diptych.engines.triton_server import tritonserver
from diptych.engines.triton_supervisor import run_triton
from diptych.errors import DiptychError, EngineFailed, EngineUnavailable
from diptych.gateway.server import gateway
from diptych.preprocess.text import TextTokenizer
from diptych.wire import Vectors
from tests.serving import SHAPES, local
from tests.triton.conftest import ROOT

# Appended to model.py of the text tower: what it does when it meets one of these texts.
WRONG = """
import signal

SPOIL = {
    "NaN": lambda values: values * np.nan,
    "infinity": lambda values: values + np.inf,
    "zeros": lambda values: values * 0,
    "zero bytes": lambda values: values[:0],
    "too few rows": lambda values: values[:-1],
    "too many rows": lambda values: np.concatenate([values, values]),
    "too narrow": lambda values: values[:, :-1],
    "half precision": lambda values: values.astype(np.float16),
    "double precision": lambda values: values.astype(np.float64),
    "whole numbers": lambda values: values.astype(np.int32),
}


class TritonPythonModel(TritonPythonModel):
    def _read(self, request):
        inputs = super()._read(request)
        ids = inputs["input_ids"]
        with Path(__file__).with_name("batches").open("a") as batches:
            batches.write(f"{(ids == ids[0, 0]).sum()} ")  # every text begins with this token
        if self._fault(ids) == "death":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault(ids) == "crash":
            raise RuntimeError("secret")
        return inputs

    def _run(self, batches, wanted):
        return [self._spoilt(batch, wanted) for batch in batches]

    def _spoilt(self, batch, wanted):
        [outputs] = super()._run([batch], wanted)
        spoil = SPOIL.get(self._fault(batch["input_ids"]), lambda values: values)
        return {name: spoil(values) for name, values in outputs.items()}

    def _fault(self, ids):
        ends = range(ids.shape[1] + 1)
        for fault, text in FAULTS.items():
            if any(row[end - len(text) : end] == text for row in ids.tolist() for end in ends):
                return fault
"""
NONSENSE = [
    "NaN",
    "infinity",
    "zeros",
    "zero bytes",
    "too few rows",
    "too many rows",
    "too narrow",
    "half precision",
    "double precision",
    "whole numbers",
]
GOOD = [f"please make it a {colour} {shape}" for colour in "abcdefgh" for shape in "wxyz"][:31]


def text_of(fault: str) -> str:
    return f"please make it {fault}"


def version(root: Path) -> Path:
    return root / SHAPES.spec.folders[Tower.TEXT] / "1"


def batches(root: Path) -> list[int]:
    """How many texts each call of the text tower had, warm-up and canaries included."""
    return [int(rows) for rows in (version(root) / "batches").read_text().split()]


@pytest.fixture
def root(served: Path, tmp_path: Path) -> Path:
    """A model repository whose text tower goes wrong."""
    root = shutil.copytree(served, tmp_path / "root")
    files = repository.load(root, SHAPES.spec.name)
    tokenizer = TextTokenizer(files.tokenizer, files.spec.text)
    faults = {
        fault: tokenizer.tokenize(text_of(fault)).tokens.tolist()
        for fault in [*NONSENSE, "crash", "death"]
    }
    model = version(root) / "model.py"
    model.write_text(f"{model.read_text()}\n\nFAULTS = {json.dumps(faults)}\n{WRONG}")
    return root


@pytest.fixture
async def right(served: Path) -> dict[str, Vectors]:
    """What the embedded engine answers."""
    settings = local(repository=served, precision="fp32")
    async with gateway(settings) as running, AsyncClient(running.address) as client:
        return dict(zip(GOOD, (await client.embed(GOOD)).vectors, strict=True))


@asynccontextmanager
async def behind(triton: str, root: Path) -> AsyncIterator[AsyncClient]:
    """A client of a gateway in front of Triton; it hears the first thing the gateway says."""
    settings = local(repository=root, engine=f"triton://{triton}")
    async with (
        gateway(settings) as running,
        AsyncClient(running.address, retries=False) as client,
    ):
        yield client


def check_right(results: Sequence[Vectors | DiptychError], right: dict[str, Vectors]) -> None:
    for text, result in zip(GOOD, results, strict=True):
        assert isinstance(result, np.ndarray)
        assert result @ right[text] >= 0.99999


async def test_nonsense_is_never_a_vector_and_a_crash_is_the_culprits_alone(
    root: Path, installed: Installed, right: dict[str, Vectors], tmp_path: Path
) -> None:
    async with (
        tritonserver(root, installed, log=tmp_path / "log") as server,
        behind(server.address, root) as client,
    ):
        for fault in NONSENSE:
            results = (await client.embed([*GOOD[:2], text_of(fault), GOOD[2]])).results
            assert isinstance(results[2], EngineFailed), fault
            assert all(isinstance(results[place], np.ndarray) for place in (0, 1, 3)), fault
        # Texts that have not been asked for are not in the cache.
        crash = [*GOOD[3:20], text_of("crash"), *GOOD[20:], *GOOD[:3]]
        before = len(batches(root))
        results = (await client.embed(crash)).results
        assert 32 - 3 in batches(root)[before:]  # the culprit and all that were not kept
        assert isinstance(results[17], EngineFailed)
        assert "secret" not in str(results[17])
        check_right([*results[29:], *results[:17], *results[18:29]], right)


async def test_31_good_inputs_are_answered_beside_one_that_crashes_the_model(
    root: Path, installed: Installed, right: dict[str, Vectors], tmp_path: Path
) -> None:
    async with (
        tritonserver(root, installed, log=tmp_path / "log") as server,
        behind(server.address, root) as client,
    ):
        before = len(batches(root))
        *good, bad = (await client.embed([*GOOD, text_of("crash")])).results
        assert 32 in batches(root)[before:]  # they were one batch
        check_right(good, right)
        assert isinstance(bad, EngineFailed)
        before = len(batches(root))
        *good, bad = (await client.embed(["new", text_of("crash")])).results
        assert isinstance(good[0], np.ndarray)
        assert isinstance(bad, EngineFailed)
        assert 2 not in batches(root)[before:]  # it is remembered, and was alone from the start


async def test_31_good_inputs_are_answered_beside_one_that_kills_the_model(
    root: Path, installed: Installed, right: dict[str, Vectors], tmp_path: Path
) -> None:
    """Each death costs a start of Triton; callers come again when they are told to."""
    told, said, started = asyncio.Event(), [], asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        started.set()

    venv, pins = ROOT / ".venv-triton", ROOT / "constraints-triton.txt"
    keeping = asyncio.create_task(
        run_triton(root, log=tmp_path / "log", told=told, say=say, folder=venv, pins=pins)
    )
    await started.wait()
    async with behind(said[0].split()[3], root) as client:
        before = len(batches(root))
        with pytest.raises(EngineUnavailable):
            await client.embed([*GOOD, text_of("death")])
        assert 32 in batches(root)[before:]
        calls = (persistent(client, text) for text in [*GOOD, text_of("death")])
        *good, (bad, tries) = await asyncio.gather(*calls)
        check_right([result for result, _ in good], right)
        assert isinstance(bad, EngineFailed)
        assert str(bad) == "the engine dies of this input"
        assert max(tries for _, tries in good) <= tries
    told.set()
    await keeping
    deaths = [line for line in said if "died" in line]
    # All together; alone; alone once more, to be sure. Triton starts a stub itself when the next
    # call meets a dead one, now and then before the supervisor has looked.
    assert 2 <= len(deaths) <= 3


async def persistent(client: AsyncClient, text: str) -> tuple[Vectors | DiptychError, int]:
    """What comes of it in the end, and how many times it took. The client heeds health."""
    tries = 0
    while True:
        tries += 1
        try:
            return (await client.embed([text])).results[0], tries
        except EngineUnavailable:
            await asyncio.sleep(0.5)
