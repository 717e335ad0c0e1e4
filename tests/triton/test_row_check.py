"""The answer to other inputs is never a vector, wherever on its way it was mixed up."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest

from diptych.client import AsyncClient
from diptych.contract import Tower
from diptych.engines.base import EMBEDS, PIXELS, TOKENS, Array
from diptych.engines.triton import TritonEngine
from diptych.engines.triton_install import Installed
from diptych.engines.triton_rows import ROW_CHECK, sums_of
from diptych.engines.triton_server import tritonserver
from diptych.errors import EngineFailed, EngineUnavailable
from diptych.gateway.server import gateway
from diptych.metrics import Metrics
from diptych.repository import ModelFiles
from diptych_export.triton_config import Target
from tests.serving import SHAPES, local
from tests.triton.far_end import Context, FarEnd, answer
from tests.triton.test_bad_models import persistent, version
from tests.triton.test_same_vectors import least_cosine, texts

SPEC = SHAPES.spec
TEXT = EMBEDS[Tower.TEXT]
GIVEN = {TOKENS: np.arange(24, dtype=np.int64).reshape(3, 8)}
Answer: TypeAlias = dict[str, Array]

# Appended to model.py of the text tower. What it does stands in a file beside it.
MIXED_UP = '''
class TritonPythonModel(TritonPythonModel):
    def _fault(self):
        path = Path(__file__).with_name("fault")
        return path.read_text() if path.exists() else ""

    def _before(self, kind, arrays):
        """What there was last time, in as many rows as there are now."""
        kept, kind = self.__dict__.setdefault("_kept", {}), (kind, *sorted(arrays))
        before, kept[kind] = kept.get(kind, arrays), arrays
        rows = len(next(iter(arrays.values())))
        return {name: np.resize(was, (rows, *was.shape[1:])) for name, was in before.items()}

    def _read(self, request):
        inputs = super()._read(request)
        return self._before("inputs", inputs) if self._fault() == "inputs out of step" else inputs

    def execute(self, requests):
        return [self._changed(request) for request in requests]

    def _changed(self, request):
        [response] = super().execute([request])
        tensors = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        before = self._before("answers", tensors)
        if self._fault() == "answers out of step":
            tensors = before
        if self._fault() == "answers torn":
            [name] = tensors.keys() & {"text_embeds", "packed_embeds"}
            tensors[name] = np.roll(tensors[name], 1, axis=-1)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*tensor) for tensor in tensors.items()])
'''


@pytest.fixture
async def checked() -> AsyncIterator[tuple[FarEnd, TritonEngine]]:
    """A stand-in for a Triton of the target `python`, and an engine connected to it."""
    async with FarEnd(SHAPES, Target.PYTHON).serving() as far_end:
        engine = await TritonEngine.connect(far_end.address, SHAPES)
        yield far_end, engine
        await engine.close()


async def right() -> Answer:
    """An answer to GIVEN that is its own."""
    vectors = np.random.default_rng(5).normal(size=(3, SPEC.embed_dim)).astype(np.float32)
    outputs = {TEXT: vectors}
    check = np.zeros((3, 2), np.int64)
    check[:, 0] = await sums_of(GIVEN)
    check[:, 1] = await sums_of({"all": vectors[None]})
    return {**outputs, ROW_CHECK: check}


def others(made: Answer) -> Answer:
    made[ROW_CHECK][1, 0] += 1
    return made


def torn(made: Answer) -> Answer:
    made[TEXT][1, 3] += 1e-6
    return made


def fewer(made: Answer) -> Answer:
    return {name: values[:2] for name, values in made.items()}


def of_floats(made: Answer) -> Answer:
    return {**made, ROW_CHECK: made[ROW_CHECK].astype(np.float64)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (others, "1 of 3 inputs are not those that were sent"),
        (torn, "the outputs are not those that were made"),
        (fewer, "3 inputs have a row_check of int64 [2, 2]"),
        (of_floats, "3 inputs have a row_check of float64 [3, 2]"),
    ],
)
async def test_an_answer_that_is_not_the_inputs_own_is_none(
    change: Callable[[Answer], Answer],
    reason: str,
    checked: tuple[FarEnd, TritonEngine],
    caplog: pytest.LogCaptureFixture,
) -> None:
    far_end, engine = checked
    made = await right()

    async def say(request: Any, context: Context) -> Any:
        return answer(**made)

    far_end.answer = say
    answered = await engine.run(Tower.TEXT, GIVEN, [TEXT])
    assert list(answered) == [TEXT]
    np.testing.assert_array_equal(answered[TEXT], made[TEXT])
    made = change(made)
    for number in (1, 2):
        with pytest.raises(EngineUnavailable, match="mixed up answers of the text tower"):
            await engine.run(Tower.TEXT, GIVEN, [TEXT])
        told = f"shapes_text: Triton mixed answers up, {number} times so far: {reason}"
        assert (logging.ERROR, told) in [(r.levelno, r.getMessage()) for r in caplog.records]


async def test_what_befalls_an_engine_is_counted() -> None:
    metrics = Metrics()
    metrics.watch_engine(SPEC.name)
    of_text = {"model": SPEC.name, "tower": "text"}

    def seen(name: str, of: dict[str, str]) -> float | None:
        return metrics.registry.get_sample_value(name, of)

    async with FarEnd(SHAPES, Target.PYTHON).serving() as far_end:
        engine = await TritonEngine.connect(far_end.address, SHAPES, metrics=metrics)
        made = others(await right())

        async def say(request: Any, context: Context) -> Any:
            return answer(**made)

        far_end.answer = say
        assert seen("diptych_engine_breaker_open", of_text) == 0
        for _ in range(5):
            with pytest.raises(EngineUnavailable):
                await engine.run(Tower.TEXT, GIVEN, [TEXT])
        await engine.close()
    assert seen("diptych_engine_mixed_answers_total", of_text) == 5
    assert seen("diptych_engine_mixed_answers_total", {**of_text, "tower": "image"}) == 0
    assert seen("diptych_engine_breaker_open", of_text) == 1
    assert seen("diptych_engine_breaker_open", {**of_text, "tower": "image"}) == 0


async def test_an_answer_that_proves_nothing_is_none(
    checked: tuple[FarEnd, TritonEngine],
) -> None:
    far_end, engine = checked

    async def say(request: Any, context: Context) -> Any:
        return answer(**{TEXT: made[TEXT]})

    made = await right()
    far_end.answer = say
    with pytest.raises(EngineFailed, match="left out row_check"):
        await engine.run(Tower.TEXT, GIVEN, [TEXT])


async def test_what_is_not_declared_is_not_asked_for(
    near_end: TritonEngine, far_end: FarEnd
) -> None:
    await near_end.run(Tower.TEXT, GIVEN, [TEXT])
    [request] = far_end.requests
    assert [output.name for output in request.outputs] == [TEXT]


@pytest.mark.parametrize("rows", [1, 64])
async def test_the_model_and_the_engine_count_alike(
    rows: int, engine: TritonEngine, files: ModelFiles
) -> None:
    """Small and large batches of both towers, several at once."""
    size = files.spec.image.size
    pixels = np.random.default_rng(6).integers(0, 256, (rows, size, size, 3), dtype=np.uint8)
    both = [(Tower.IMAGE, {PIXELS: pixels}), (Tower.TEXT, texts(rows))] * 4
    wanted = [[EMBEDS[tower]] for tower, _ in both[:-1]] + [["pooled", TEXT, "last_hidden_state"]]
    calls = [engine.run(*one, outputs) for one, outputs in zip(both, wanted, strict=True)]
    answers = await asyncio.gather(*calls)
    assert [list(answered) for answered in answers] == wanted


@asynccontextmanager
async def trusting(address: str) -> AsyncIterator[TritonEngine]:
    """An engine that believes whatever Triton says."""
    channel = grpc.aio.insecure_channel(address)
    most = dict.fromkeys(Tower, 64)
    engine = TritonEngine(
        *(SPEC, channel),
        max_batch=most,
        checked=frozenset(),
        description="",
        metrics=Metrics(),
        in_flight=2,
        call_tokens=32,
    )
    yield engine
    await engine.close()


async def test_what_a_real_triton_mixes_up_never_reaches_a_caller(
    served: Path, installed: Installed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(served, tmp_path / "root")
    model, fault = version(root) / "model.py", version(root) / "fault"
    model.write_text(f"{model.read_text()}\n{MIXED_UP}")
    two = [{TOKENS: rows} for rows in np.split(texts(4)[TOKENS], 2)]
    async with (
        tritonserver(root, installed, log=tmp_path / "log") as server,
        trusting(server.address) as believer,
        gateway(
            local(repository=root, engine=f"triton://{server.address}", text_cache_bytes=0)
        ) as running,
        AsyncClient(running.address, retries=False) as client,
    ):
        right = [(await believer.run(Tower.TEXT, one, [TEXT]))[TEXT] for one in two]
        [known] = (await client.embed(["a star"])).vectors
        for kind in ("answers out of step", "inputs out of step", "answers torn"):
            fault.write_text(kind)
            found = [(await believer.run(Tower.TEXT, one, [TEXT]))[TEXT] for one in two]
            assert least_cosine(found[1], right[1]) < 0.999, kind
            with pytest.raises(EngineUnavailable):
                await client.embed([f"a circle {number}" for number in range(20)])
            assert "shapes_text: Triton mixed answers up" in caplog.text, kind
            caplog.clear()
            fault.unlink()
            vector, _ = await persistent(client, "a star")
            assert isinstance(vector, np.ndarray)
            assert vector @ known >= 0.99999
