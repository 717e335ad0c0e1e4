from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from diptych import repository
from diptych.canary import prove
from diptych.contract import ModelSpec, Tower
from diptych.engines.embedded import EmbeddedEngine
from diptych_export import build as building
from diptych_export import parity
from diptych_export.build import build
from diptych_export.errors import ParityError
from diptych_export.onnx import MAX_IR, OPSET
from diptych_export.repository import next_version
from diptych_export.sources.base import Source
from diptych_export.sources.huggingface import open_huggingface
from tests.export import tiny

OUTPUTS = {
    Tower.IMAGE: ["image_embeds", "penultimate_hidden_state"],
    Tower.TEXT: [
        "text_embeds",
        "last_hidden_state",
        "penultimate_hidden_state",
        "pooled",
        "packed_embeds",
    ],
}


def source(seed: int = 0) -> Source:
    with tempfile.TemporaryDirectory() as folder:
        tiny.model(seed).save_pretrained(folder)
        tiny.processor().save_pretrained(folder)
        return open_huggingface(folder, "Apache-2.0")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelSpec]:
    """A repository with one version of one model."""
    root = tmp_path_factory.mktemp("repository")
    return root, build(source(), "tiny", root)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_an_exported_model_is_what_the_serving_side_reads(
    published: tuple[Path, ModelSpec],
) -> None:
    root, spec = published
    assert files(root) == {
        "tiny_image/config.pbtxt",
        "tiny_image/1/model.onnx",
        "tiny_image/1/spec.json",
        "tiny_image/1/zero_image.npz",
        "tiny_text/config.pbtxt",
        "tiny_text/1/model.onnx",
        "tiny_text/1/spec.json",
        "tiny_text/1/tokenizer.json",
    }
    found = repository.load(root, "tiny")
    assert found.spec == spec
    assert found.spec.embed_dim == tiny.TINY.embed_dim
    assert found.spec.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)


async def test_the_engine_answers_the_canary_as_torch_did(
    published: tuple[Path, ModelSpec],
) -> None:
    found = repository.load(published[0], "tiny")
    engine = EmbeddedEngine(found.spec, found.graphs, threads=1, provider="cpu")
    await prove(engine, found.spec)
    await engine.close()


@pytest.mark.parametrize("tower", Tower)
def test_graphs_are_plain_onnx_with_named_outputs_and_dynamic_batch(
    published: tuple[Path, ModelSpec], tower: Tower
) -> None:
    path = repository.load(published[0], "tiny").graphs[tower]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {(o.domain, o.version) for o in model.opset_import} == {("", OPSET)}
    assert model.ir_version <= MAX_IR
    assert [output.name for output in model.graph.output] == OUTPUTS[tower]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param


@pytest.mark.parametrize("tower", Tower)
def test_no_graph_tells_where_it_was_exported(
    published: tuple[Path, ModelSpec], tower: Tower
) -> None:
    data = repository.load(published[0], "tiny").graphs[tower].read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in data
    assert b"site-packages" not in data
    assert b".py" not in data


def test_texts_run_at_any_length_and_padding_changes_nothing(
    published: tuple[Path, ModelSpec],
) -> None:
    found = repository.load(published[0], "tiny")
    session = ort.InferenceSession(found.graphs[Tower.TEXT], providers=["CPUExecutionProvider"])
    text = found.spec.text
    ids = np.array([[text.start_id, 300, 400, text.end_id]])
    padded = np.pad(ids, [(0, 0), (0, 28)], constant_values=text.pad_id)
    short, long = (session.run(["text_embeds"], {"input_ids": x})[0] for x in (ids, padded))
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_every_output_is_compared_and_its_figure_kept(
    published: tuple[Path, ModelSpec],
) -> None:
    figures = published[1].parity
    outputs = {f"{tower}.{name}" for tower, names in OUTPUTS.items() for name in names}
    assert set(figures) == {"images", "texts"} | outputs
    assert (figures["images"], figures["texts"]) >= (32, 64)
    assert min(figures[name] for name in outputs) >= 0.99999


def test_the_next_version_lies_beside_and_is_the_one_served(tmp_path: Path) -> None:
    first, second = (build(source(seed), "tiny", tmp_path) for seed in (0, 1))
    assert (first.version, second.version) == (1, 2)
    assert first.fingerprint != second.fingerprint
    assert repository.versions(tmp_path, "tiny") == [2, 1]
    assert repository.load(tmp_path, "tiny").spec == second
    assert repository.load(tmp_path, "tiny", 1).spec == first
    assert next_version(tmp_path, "other") == 1
    config = (tmp_path / "tiny_image" / "config.pbtxt").read_text()
    assert first.fingerprint in config
    assert second.fingerprint in config


@pytest.mark.parametrize("tower", Tower)
def test_a_perturbed_graph_is_refused_and_nothing_is_published(
    tower: Tower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"write_{tower}_graph"
    write: Callable[..., None] = getattr(building, name)

    def write_and_perturb(module: object, spec: object, path: Path, *, opset: int) -> None:
        write(module, spec, path, opset=opset)
        perturb(path)

    monkeypatch.setattr(building, name, write_and_perturb)
    with pytest.raises(ParityError, match=rf"{tower}\.\w+ of {tower} \d+ at batch 1: cosine 0\.9"):
        build(source(), "tiny", tmp_path)
    assert not list(tmp_path.iterdir())


def perturb(path: Path) -> None:
    """Add one percent of noise to the largest matrix."""
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda found: np.prod(found.dims))
    values = numpy_helper.to_array(weights)
    noise = np.random.default_rng(0).normal(size=values.shape) * values.std() * 0.01
    replaced = numpy_helper.from_array((values + noise).astype(np.float32), weights.name)
    weights.CopyFrom(replaced)
    onnx.save(model, path)


def test_a_wrong_preprocessing_rule_is_refused_as_well(tmp_path: Path) -> None:
    own = source()
    wrong = own.image.model_copy(update={"interpolation": "bilinear"})
    changed = Source(**{name: getattr(own, name) for name in Source.__slots__} | {"image": wrong})
    with pytest.raises(ParityError, match=r"image\.image_embeds"):
        build(changed, "tiny", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_lowest_cosine_is_taken_row_by_row() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    assert parity.lowest_cosine(rows, rows * 3) == pytest.approx(1.0)
    turned = np.array([[1.0, 0.0], [2.0, 2.0]], dtype=np.float32)
    assert parity.lowest_cosine(rows, turned) == pytest.approx(0.5**0.5)


def test_not_a_number_never_passes_the_gate(tmp_path: Path) -> None:
    nothing = np.full(4, np.nan, dtype=np.float32)
    assert not parity.lowest_cosine(nothing, nothing) >= parity.MIN_COSINE["int8"]


def test_the_spec_is_the_same_beside_both_towers(published: tuple[Path, ModelSpec]) -> None:
    image, text = ((published[0] / f"tiny_{t}/1/spec.json").read_bytes() for t in Tower)
    assert image == text
    assert json.loads(image)["licence"] == "Apache-2.0"
