"""Encoders alone, in the layout of diffusers: what is read, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych import repository
from diptych.contract import Tower
from diptych.errors import BadRepository
from diptych_export.errors import BadBuild, BadCheckpoint
from diptych_export.extras import extended, zero_image
from diptych_export.sources.opening import open_source
from tests.conditioning import pipelines
from tests.conditioning.conftest import IMAGE, TEXT, TEXT_2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.saved(tmp_path_factory.mktemp("lone"))


def test_a_text_encoder_brings_its_tokenizer_and_its_padding(folder: Path) -> None:
    first, second = (open_source(str(folder / name)) for name in ("text_encoder", "text_encoder_2"))
    assert (first.text.pad_id, second.text.pad_id) == (first.text.end_id, 0)
    assert first.numbers["absent"] is second.numbers["absent"] is Tower.IMAGE
    assert (first.numbers["projected"], second.numbers["projected"]) == (False, True)
    assert first.origin == "CLIPTextModel text_encoder"
    assert zero_image(first) == {}


def test_an_image_encoder_without_processor_is_read_as_diffusers_reads_it(
    folder: Path, tmp_path: Path
) -> None:
    whole = open_source(str(folder / "image_encoder"))
    shutil.copytree(folder / "image_encoder", tmp_path / "image_encoder")
    alone = open_source(str(tmp_path / "image_encoder"))
    assert alone.image == whole.image
    zero = zero_image(alone)
    with torch.inference_mode():
        right = pipelines.image_encoder()(torch.zeros(1, 3, 32, 32)).image_embeds[0]
    np.testing.assert_allclose(zero["image_embeds"], right, atol=1e-6)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "text_encoder", tmp_path / "text_encoder")
    with pytest.raises(BadCheckpoint, match=r"no tokenizer: none of .*/tokenizer$"):
        open_source(str(tmp_path / "text_encoder"))
    (tmp_path / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"no model\.safetensors"):
        open_source(str(tmp_path / "text_encoder"))


def test_hidden_states_beyond_the_tower_are_refused(folder: Path) -> None:
    text, image = (open_source(str(folder / name)) for name in ("text_encoder", "image_encoder"))
    with pytest.raises(BadBuild, match="--hidden-states 4: this text tower has 3 layers"):
        extended(text, hidden_states=4, attention_mask=False)
    with pytest.raises(BadBuild, match="--hidden-states 1: there is no text tower"):
        extended(image, hidden_states=1, attention_mask=False)
    more = extended(text, hidden_states=2, attention_mask=True)
    assert more.text.attention_mask
    assert more.text_tower.outputs == (
        "text_embeds", "last_hidden_state", "penultimate_hidden_state", "pooled",
        "hidden_state_0", "normed_hidden_state_1",
    )  # fmt: skip


def test_builds_say_what_is_absent_and_prove_what_is_there(models: Path) -> None:
    text, text_2, image = (repository.load(models, name) for name in (TEXT, TEXT_2, IMAGE))
    assert text.spec.outputs(Tower.IMAGE) == frozenset()
    assert "text_embeds" not in text.spec.outputs(Tower.TEXT)
    assert {"text_embeds", "hidden_state_2", "normed_hidden_state_2"} <= text_2.spec.outputs(
        Tower.TEXT
    )
    assert image.spec.outputs(Tower.TEXT) == frozenset()
    assert min(text_2.spec.parity[f"text.{name}"] for name in text_2.spec.outputs(Tower.TEXT)) > (
        0.99999
    )
    assert image.zero_image is not None
    assert text.zero_image is None


def test_a_changed_zero_image_is_not_served(models: Path, tmp_path: Path) -> None:
    for name in repository.load(models, IMAGE).spec.folders.values():
        shutil.copytree(models / name, tmp_path / name)
    path = tmp_path / f"{IMAGE}_image" / "1" / repository.ZERO_IMAGE
    with np.load(path) as arrays:
        changed = {name: array + 1 for name, array in arrays.items()}
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **changed)
    with pytest.raises(BadRepository, match=r"zero_image\.npz: not the file that spec\.json names"):
        repository.load(tmp_path, IMAGE)
    path.unlink()
    with pytest.raises(BadRepository, match=r"zero_image\.npz: missing"):
        repository.load(tmp_path, IMAGE)


def test_a_folder_of_another_kind_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(BadCheckpoint, match="t5"):
        open_source(str(tmp_path))
