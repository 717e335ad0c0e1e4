"""The engine in this process, on the shipped model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from diptych.canary import prove
from diptych.contract import Matrix, Tokens, Tower, canary_pixels, canary_tokens
from diptych.engines import openvino_graph
from diptych.engines.base import PIXELS, TOKENS, Array, check_answer
from diptych.engines.embedded import EmbeddedEngine, Precision, Provider
from diptych.engines.openvino_graph import OpenVinoGraph
from diptych.errors import BadRepository, EngineFailed
from diptych.scoring import unit
from diptych.settings import cores
from diptych.text_calls import TextCalls
from tests.serving import SHAPES

SPEC = SHAPES.spec
D = SPEC.embed_dim


@pytest.fixture
async def engine() -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(SPEC, SHAPES.graphs, threads=cores())
    yield engine
    await engine.close()


async def test_the_canary_answers_as_the_reference_did(engine: EmbeddedEngine) -> None:
    await prove(engine, SPEC)
    await prove(engine, SPEC, rows=64)


async def test_another_models_canary_is_noticed(engine: EmbeddedEngine) -> None:
    turned = SPEC.canary.model_copy(update={"text": SPEC.canary.text[1:] + SPEC.canary.text[:1]})
    with pytest.raises(EngineFailed, match="the text tower's canary has cosine"):
        await prove(engine, SPEC.model_copy(update={"canary": turned}))


async def test_only_the_outputs_asked_for_come_back(engine: EmbeddedEngine) -> None:
    tokens = canary_tokens(SPEC.text)[None]
    wanted = ["last_hidden_state", "pooled", "penultimate_hidden_state"]
    answer = await engine.run(Tower.TEXT, {TOKENS: tokens}, wanted)
    assert list(answer) == wanted
    assert answer["pooled"].shape == (1, SPEC.text_hidden_size)
    assert answer["last_hidden_state"].shape == (1, tokens.shape[1], SPEC.text_hidden_size)


async def test_a_texts_vector_does_not_depend_on_its_padding(engine: EmbeddedEngine) -> None:
    tokens = canary_tokens(SPEC.text)
    lengths = (len(tokens), 16, SPEC.text.context_length)
    vectors = []
    for length in lengths:
        padded = np.full((1, length), SPEC.text.pad_id, np.int64)
        padded[0, : len(tokens)] = tokens
        answer = await engine.run(Tower.TEXT, {TOKENS: padded}, ["text_embeds"])
        vectors.append(unit(answer["text_embeds"])[0])
    assert min(float(vectors[0] @ other) for other in vectors) >= 0.9999


async def test_batches_of_both_towers_run_side_by_side(engine: EmbeddedEngine) -> None:
    pixels, tokens = canary_pixels(SPEC.image)[None], canary_tokens(SPEC.text)[None]
    runs = [engine.run(Tower.IMAGE, {PIXELS: pixels}, ["image_embeds"]) for _ in range(8)]
    runs += [engine.run(Tower.TEXT, {TOKENS: tokens}, ["text_embeds"]) for _ in range(8)]
    answers = await asyncio.gather(*runs)
    assert all(next(iter(answer.values())).shape == (1, D) for answer in answers)


def test_runs_begun_together_end_in_any_order_each_with_its_own_answer() -> None:
    if not openvino_graph.is_here():
        pytest.skip("no OpenVINO for this platform")
    path, wanted = SHAPES.graphs[Tower.IMAGE], ["image_embeds"]
    graph = OpenVinoGraph(path, wanted, threads=cores(), precision="fp32")
    side = SPEC.image.size
    batches = np.random.default_rng(6).integers(0, 256, (12, 2, side, side, 3), dtype=np.uint8)
    begun = [graph.begin({PIXELS: pixels.copy()}, wanted) for pixels in batches]
    together = [finish()[0] for finish in reversed(begun)][::-1]
    for pixels, answer in zip(batches, together, strict=True):
        [alone] = graph.begin({PIXELS: pixels}, wanted)()
        np.testing.assert_allclose(answer, alone, atol=1e-5)


async def test_what_the_graph_refuses_is_an_engine_failure_without_its_text(
    engine: EmbeddedEngine,
) -> None:
    for _ in range(3):
        with pytest.raises(EngineFailed) as caught:
            await engine.run(Tower.TEXT, {TOKENS: np.zeros((1, 3, 3), np.int64)}, ["text_embeds"])
        assert str(caught.value) == "the text tower failed"
    await prove(engine, SPEC)


@pytest.mark.parametrize(("provider", "runtime"), [("cpu", "ONNX Runtime"), ("auto", "OpenVINO")])
def test_a_graph_that_cannot_be_read_is_named(
    tmp_path: Path, provider: Provider, runtime: str
) -> None:
    if provider == "auto" and not openvino_graph.is_here():
        pytest.skip("no OpenVINO for this platform")
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a graph")
    graphs = {Tower.IMAGE: broken, Tower.TEXT: SHAPES.graphs[Tower.TEXT]}
    with pytest.raises(BadRepository, match=f"{broken}: not a graph {runtime} can load"):
        EmbeddedEngine(SPEC, graphs, threads=1, provider=provider)


async def test_both_runtimes_make_the_same_vectors() -> None:
    if not openvino_graph.is_here():
        pytest.skip("no OpenVINO for this platform")
    reference = EmbeddedEngine(SPEC, SHAPES.graphs, threads=1, provider="cpu")
    assert "onnxruntime" in reference.description
    fp32 = EmbeddedEngine(SPEC, SHAPES.graphs, threads=1, provider="openvino", precision="fp32")
    assert fp32.description.startswith("openvino")
    assert fp32.description.endswith("fp32, 1 threads")
    bf16 = EmbeddedEngine(SPEC, SHAPES.graphs, threads=1, provider="openvino", precision="bf16")
    for tower, outputs in (
        (Tower.IMAGE, ["image_embeds"]),
        (Tower.TEXT, ["text_embeds", "last_hidden_state", "penultimate_hidden_state", "pooled"]),
    ):
        inputs = (
            {PIXELS: np.stack([canary_pixels(SPEC.image)] * 3)}
            if tower is Tower.IMAGE
            else {TOKENS: np.stack([canary_tokens(SPEC.text)] * 3)}
        )
        expected = await reference.run(tower, inputs, outputs)
        for engine, bound in ((fp32, 0.999999), (bf16, 0.999)):
            answer = await engine.run(tower, inputs, outputs)
            for name, values in answer.items():
                cosines = np.sum(unit(values) * unit(expected[name]), axis=-1)
                assert cosines.min() >= bound, (engine.description, name)
    for engine in (reference, fp32, bf16):
        await engine.close()


async def test_without_openvino_onnx_runtime_runs_the_towers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_graph, "openvino", None)
    engine = EmbeddedEngine(SPEC, SHAPES.graphs, threads=1)
    assert engine.description.startswith("onnxruntime")
    assert engine.length_step == 1
    await prove(engine, SPEC)
    await engine.close()
    with pytest.raises(BadRepository, match="provider openvino: there is none for this machine"):
        EmbeddedEngine(SPEC, SHAPES.graphs, threads=1, provider="openvino")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.ones((2, D), np.float16), "is float16, not float32"),
        (np.ones((1, D), np.float32), r"has shape \(1, \d+\) for 2 inputs"),
        (np.ones((2, D + 1), np.float32), "has shape"),
        (np.ones(2, np.float32), "has shape"),
        (np.full((2, D), np.inf, np.float32), "holds NaN or infinity"),
        (np.ones((2, D), np.float64), "is float64"),
        (np.array([[1.0] * D, [0.0] * D], np.float32), "has a row of zeros"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused(values: Array, problem: str) -> None:
    with pytest.raises(EngineFailed, match=problem):
        check_answer(SPEC, Tower.TEXT, 2, {"text_embeds": values})


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.999)])
async def test_a_text_has_the_same_vector_in_a_batch_of_any_size(
    precision: Precision, least: float
) -> None:
    """OpenVINO 2026.4 adds integers wrongly where there are more than 32 rows."""
    spec, draw = SHAPES.spec, np.random.default_rng(8)
    frame = spec.text.start_id, spec.text.end_id
    lengths = draw.integers(1, spec.text.context_length - 2, 200)
    texts = [np.array([frame[0], *draw.integers(3, 600, n), frame[1]]) for n in lengths]
    engine = EmbeddedEngine(spec, SHAPES.graphs, threads=2, precision=precision)
    calls = TextCalls.on(engine, spec)

    async def vectors(batch: Sequence[Tokens]) -> Matrix:
        call = calls.call(batch)
        return unit(call.embeds(await engine.run(Tower.TEXT, call.inputs, [call.output])))

    alone = np.concatenate([await vectors([text]) for text in texts])
    for size in (2, 9, 33, 64, 200):
        assert np.einsum("nd,nd->n", await vectors(texts[:size]), alone[:size]).min() >= least
    await engine.close()
