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
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer, SiglipTokenizer

from diptych_export.sources.opening import open_source
from tests.export.sources import archives, directories
from tests.export.sources.comparing import refusal
from tests.export.sources.published import CLIP

Directory = Callable[[str], Path]


@pytest.fixture
def clip(directory: Directory, tmp_path: Path) -> Path:
    """A good directory, to be spoilt."""
    return shutil.copytree(directory("clip"), tmp_path / "clip")


@pytest.fixture
def openai(tmp_path: Path) -> Path:
    """A good `.pt` with its merges, to be spoilt."""
    archives.merges_file(tmp_path)
    return archives.state_dict(tmp_path / "model.pt", CLIP(archives.VIT))


def edit(path: Path, **changes: Any) -> None:
    """Change the top of a JSON file; None removes."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


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


class Bomb:
    """Unpickled, it leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_a_pt_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Bomb()}, tmp_path / "model.pt")
    refusal(tmp_path / "model.pt")
    assert not (tmp_path / "exploded").exists()


def test_a_published_name_on_another_file(openai: Path) -> None:
    other = openai.rename(openai.with_name("ViT-B-32.pt"))
    assert "OpenAI published 40d365715913" in refusal(other)


def test_a_pt_cut_short(openai: Path) -> None:
    openai.write_bytes(openai.read_bytes()[:1000])
    refusal(openai)


def test_a_pt_that_is_no_dictionary_of_weights(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "model.pt")
    assert "not a dictionary of weights" in refusal(tmp_path / "model.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    assert "not one of OpenAI's: 'ln_final.weight' missing" in refusal(tmp_path / "model.pt")


def test_a_training_checkpoint(openai: Path) -> None:
    torch.save({"epoch": 3, "state_dict": torch.load(openai)}, openai)
    assert "says neither activation nor preprocessing" in refusal(openai)


def test_facts_that_are_not_those_of_the_weights(tmp_path: Path) -> None:
    archives.merges_file(tmp_path)
    fact = {"input_resolution": torch.tensor(224)}
    path = archives.state_dict(tmp_path / "model.pt", CLIP(archives.VIT), **fact)
    assert "input_resolution is 224, the weights are for 48" in refusal(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("logit_scale"), "missing weights: logit_scale"),
        (lambda state: state.pop("ln_final.bias"), "missing weights: text_model.final_layer_norm"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected weights: extra"),
        (
            lambda state: state["visual.proj"][0, 0].fill_(float("inf")),
            "visual.proj has values that are not finite",
        ),
    ],
)
def test_a_pt_with_wrong_weights(
    openai: Path, change: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    state = torch.load(openai)
    change(state)
    torch.save(state, openai)
    assert complaint in refusal(openai)


def test_a_pt_without_its_tokenizer(openai: Path) -> None:
    (openai.parent / "bpe_simple_vocab_16e6.txt.gz").unlink()
    assert "no tokenizer: none of bpe_simple_vocab_16e6.txt.gz, " in refusal(openai, openai.parent)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("#version: 0.2\n" + "a b\n" * 3, "has 3 merges, the text tower needs 17"),
        ("#version: 0.2\n" + "a b c\n" * 17, "not a readable file of merges"),
    ],
)
def test_merges_of_another_vocabulary(openai: Path, content: str, complaint: str) -> None:
    (openai.parent / "bpe_simple_vocab_16e6.txt.gz").unlink()
    (openai.parent / "merges.txt").write_text(content)
    assert complaint in refusal(openai, openai.parent / "merges.txt")


def test_merges_that_are_not_packed(openai: Path) -> None:
    merges = openai.parent / "bpe_simple_vocab_16e6.txt.gz"
    merges.write_text("plain")
    assert "not a readable file of merges" in refusal(openai, merges)


def test_an_openclip_directory_with_a_pickle_only(tmp_path: Path) -> None:
    archives.openclip(tmp_path)
    (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "open_clip_pytorch_model.bin")
    assert "open_clip_pytorch_model.bin is a pickle" in refusal(tmp_path)


def test_an_openclip_directory_without_weights(tmp_path: Path) -> None:
    archives.openclip(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    assert "no open_clip_model.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("section", ["model_cfg", "preprocess_cfg"])
def test_an_openclip_config_without_a_section(tmp_path: Path, section: str) -> None:
    archives.openclip(tmp_path)
    edit(tmp_path / "open_clip_config.json", **{section: None})
    assert f"{section} missing" in refusal(tmp_path)


def test_an_openclip_config_without_a_size(tmp_path: Path) -> None:
    archives.openclip(tmp_path)
    path = tmp_path / "open_clip_config.json"
    config = json.loads(path.read_text())
    del config["model_cfg"]["text_cfg"]["heads"]
    path.write_text(json.dumps(config))
    assert "heads missing" in refusal(tmp_path)


def test_scale_by_layer_is_another_tower(tmp_path: Path) -> None:
    """LayerScale would show in the weights even if the config said nothing."""
    gain = {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(64)}
    archives.openclip(tmp_path, extra=gain)
    assert "unexpected weights" in refusal(tmp_path)
