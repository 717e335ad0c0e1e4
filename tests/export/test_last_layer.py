"""The last layer is computed where a vector is read off, and nowhere else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from transformers import (
    AltCLIPVisionConfig,
    ChineseCLIPVisionConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    MetaClip2VisionConfig,
    SiglipVisionConfig,
)
from transformers.models.altclip.modeling_altclip import AltCLIPVisionModel
from transformers.models.chinese_clip.modeling_chinese_clip import ChineseCLIPVisionModel
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPVisionModel
from transformers.models.metaclip_2.modeling_metaclip_2 import MetaClip2VisionModel
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from diptych.contract import TEXTS_A_ROW, Tower
from diptych.engines.base import EMBEDS, PACKED, PIXELS, TOKENS
from diptych_export.graph import TextTower, frame
from diptych_export.last_layer import last_layer
from diptych_export.onnx import write_image_graph, write_text_graph
from diptych_export.sources.base import Source
from diptych_export.sources.huggingface import open_huggingface
from tests.export import tiny

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize(
    "model",
    [
        CLIPVisionModel(CLIPVisionConfig(**SIZES)),
        MetaClip2VisionModel(MetaClip2VisionConfig(**SIZES)),
        AltCLIPVisionModel(AltCLIPVisionConfig(**SIZES)),
        ChineseCLIPVisionModel(ChineseCLIPVisionConfig(**SIZES)),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
def test_some_places_are_what_the_whole_layer_makes_of_them(model: Any, masked: bool) -> None:
    states, places = drawn(2, 7, 32), [5, 0, 3]
    mask = torch.where(drawn(2, 1, 7, 7) > 0.5, -torch.inf, 0.0) if masked else None
    if mask is not None:
        mask.diagonal(dim1=-2, dim2=-1).zero_()
    last = last_layer(model.eval())
    assert last is not None
    with torch.inference_mode():
        whole = model.encoder.layers[-1](states, mask)[:, places]
        some = last.at(states[:, places], states, None if mask is None else mask[:, :, places])
    torch.testing.assert_close(some, whole, rtol=1e-5, atol=1e-5)


def test_a_layer_of_another_kind_is_left_to_its_own_model() -> None:
    assert last_layer(SiglipVisionModel(SiglipVisionConfig(**SIZES))) is None
    assert last_layer(torch.nn.Identity()) is None


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.model().save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return open_huggingface(str(folder), "Apache-2.0")


@pytest.fixture(scope="module")
def graphs(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[Tower, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    paths = {tower: folder / f"{tower}.onnx" for tower in Tower}
    write_image_graph(source.image_tower, source.image, paths[Tower.IMAGE])
    write_text_graph(source.text_tower, source.text, paths[Tower.TEXT])
    return paths


@pytest.mark.parametrize(
    ("tower", "given", "wanted", "last"),
    [
        (Tower.IMAGE, PIXELS, EMBEDS[Tower.IMAGE], 1),
        (Tower.TEXT, TOKENS, PACKED, TEXTS_A_ROW),
    ],
)
def test_what_a_vector_needs_ends_with_the_tokens_that_are_read_off(
    graphs: dict[Tower, Path], tower: Tower, given: str, wanted: str, last: int, tmp_path: Path
) -> None:
    path = tmp_path / "part.onnx"
    onnx.utils.extract_model(graphs[tower], path, [given], [wanted])
    part = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in part.value_info}
    layers = [shapes[node.output[0]] for node in part.node if node.op_type == "Gelu"]
    assert [tokens.dim_value == last for _, tokens, _ in layers] == [False, True]


def test_weights_that_are_used_twice_are_stored_once_and_turned_before(
    source: Source, tmp_path: Path
) -> None:
    wide = CLIPTextConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
    )
    model = CLIPTextModel(wide)
    tower = TextTower(model, torch.nn.Identity(), frame=frame(source.text))
    write_text_graph(tower, source.text, tmp_path / "text.onnx")
    graph = onnx.load(tmp_path / "text.onnx").graph
    stored = {each.name: math.prod(each.dims) for each in graph.initializer}
    parameters = sum(each.numel() for each in model.parameters())
    matrix = wide.hidden_size**2  # the smallest of the last layer's
    assert sum(stored.values()) == pytest.approx(parameters, abs=0.9 * matrix)
    assert not [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in stored]
