"""What cannot be served as it was meant is refused, in one line that says why."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer, SiglipTokenizer

from diptych_export.sources.opening import open_source
from tests.export.sources import directories
from tests.export.sources.comparing import refusal
from tests.export.sources.spoiling import edit, edit_weights

Directory = Callable[[str], Path]


@pytest.fixture
def clip(directory: Directory, tmp_path: Path) -> Path:
    """A good directory, to be spoilt."""
    return shutil.copytree(directory("clip"), tmp_path / "clip")


def test_no_such_place(tmp_path: Path) -> None:
    assert "neither a file, nor a directory" in refusal(tmp_path / "nowhere")


def test_an_empty_directory(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: no config.json"


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "processor_config.json"])
def test_a_json_file_that_is_none(clip: Path, name: str) -> None:
    if name == "processor_config.json":
        (clip / "preprocessor_config.json").unlink()
    (clip / name).write_text("{broken")
    assert refusal(clip)


def test_an_architecture_we_do_not_have(clip: Path) -> None:
    edit(clip / "config.json", model_type="blip")
    assert "model_type 'blip' is none of align, altclip" in refusal(clip)


def test_pictures_of_any_shape(clip: Path) -> None:
    edit(clip / "config.json", model_type="siglip2")
    assert "NaFlex" in refusal(clip)


def test_a_missing_tokenizer(clip: Path) -> None:
    """transformers would make an empty one, and every text the same."""
    (clip / "tokenizer.json").unlink()
    assert refusal(clip).startswith(f"{clip}: no tokenizer: none of tokenizer.json, ")


def test_another_models_tokenizer(clip: Path) -> None:
    directories.bert_tokenizer().save_pretrained(clip)
    assert "tokenizer" in refusal(clip)


def test_a_tokenizer_of_too_few_words(clip: Path) -> None:
    letters: Any = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    CLIPTokenizer(vocab=letters, merges=[]).save_pretrained(clip)
    assert "tokenizer: knows 3 tokens up to id 2, the tower 531" in refusal(clip)


def test_a_tokenizer_that_pads_on_the_left(clip: Path) -> None:
    edit(clip / "tokenizer_config.json", padding_side="left")
    assert "pads or cuts on the left" in refusal(clip)


def test_an_end_token_the_tower_does_not_look_for(directory: Directory, tmp_path: Path) -> None:
    """It would read every text off at its first place."""
    folder = shutil.copytree(directory("clip by id"), tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", text_config=config["text_config"] | {"eos_token_id": 7})
    assert "ends texts with 530, the tower with 7" in refusal(folder)


def test_tokens_above_the_end_where_the_highest_ends(directory: Directory, tmp_path: Path) -> None:
    """Textual inversion adds such: transformers would take the new word for the end."""
    tokenizer = directories.clip_tokenizer()
    tokenizer.add_tokens(["<cat-toy>"])
    folder = directories.clip(tmp_path / "clip", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(folder)
    assert "530 ends a text, but the tower takes the highest id, 531" in refusal(folder)


def test_a_sentencepiece_model_without_lower_case(directory: Directory, tmp_path: Path) -> None:
    folder = shutil.copytree(directory("siglip"), tmp_path / "siglip")
    pieces = folder / "spiece.model"
    SiglipTokenizer(str(pieces), model_max_length=16, do_lower_case=False).save_pretrained(folder)
    assert "do_lower_case is off" in refusal(folder)


def test_a_pickle(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    (clip / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    assert "pytorch_model.bin is a pickle, which runs code when it is read" in refusal(clip)


def test_no_weights(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    assert refusal(clip) == f"{clip}: no model.safetensors"


def test_weights_cut_short(clip: Path) -> None:
    path = clip / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert refusal(clip)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("text_projection.weight"), "missing weights: text_projection"),
        (
            lambda state: state.update({"text_model.extra.weight": torch.zeros(2)}),
            "unexpected weights: text_model.extra.weight",
        ),
        (
            lambda state: state.update({"visual_projection.weight": torch.zeros(24, 7)}),
            "mismatched weights: visual_projection.weight is [24, 7], not [24, 32]",
        ),
        (
            lambda state: state["text_projection.weight"][0, 0].fill_(float("nan")),
            "text_projection.weight has values that are not finite",
        ),
    ],
)
def test_wrong_weights(
    clip: Path, change: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    edit_weights(clip, change)
    assert complaint in refusal(clip)


def test_many_missing_weights_are_counted(clip: Path) -> None:
    edit_weights(clip, lambda state: [state.pop(k) for k in list(state) if ".layers.1." in k])
    assert refusal(clip).endswith(" and 31 more")


def test_counters_of_old_versions_are_no_weights(clip: Path) -> None:
    counter = {"text_model.embeddings.position_ids": torch.arange(24)[None]}
    edit_weights(clip, lambda state: state.update(counter))
    assert open_source(str(clip))


def test_no_preprocessing(clip: Path) -> None:
    (clip / "preprocessor_config.json").unlink()
    assert "nothing says how to treat pictures" in refusal(clip)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image_mean": None}, "image processor: image_mean missing"),
        ({"resample": None, "size": None}, "image processor: size, resample missing"),
        ({"resample": 0}, "resample 0 is none of"),
        ({"do_resize": False}, "do_resize is needed"),
        ({"do_center_crop": False}, "make no square"),
        ({"crop_size": {"height": 48, "width": 40}}, "is no square"),
        ({"size": {"height": 48, "width": 40}}, "make no square"),
        ({"image_std": [0.0, 1.0, 1.0]}, "image_std"),
        ({"image_mean": [0.5]}, "1 numbers in image_mean or image_std, not 3"),
        (
            {"crop_size": {"height": 36, "width": 36}},
            "pictures become 36 pixels a side, the image tower takes 48",
        ),
    ],
)
def test_preprocessing_without_a_rule_of_ours(
    clip: Path, changes: dict[str, Any], complaint: str
) -> None:
    edit(clip / "preprocessor_config.json", **changes)
    assert complaint in refusal(clip)


def test_towers_of_two_spaces(directory: Directory, tmp_path: Path) -> None:
    folder = shutil.copytree(directory("siglip"), tmp_path / "siglip")
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"] | {"projection_size": 20}
    edit(folder / "config.json", text_config=text)
    head = {"text_model.head.weight": torch.zeros(20, 32), "text_model.head.bias": torch.zeros(20)}
    edit_weights(folder, lambda state: state.update(head))
    assert "images become 32 numbers, texts 20" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "model.ckpt"])
def test_a_file_that_may_be_a_pickle(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    assert "may be a pickle" in refusal(tmp_path / name)


def test_a_file_of_another_kind(clip: Path) -> None:
    assert "not a single file" in refusal(clip / "model.safetensors")
