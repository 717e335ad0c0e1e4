"""What of OpenAI's and OpenCLIP's files is refused, and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.export.sources import archives
from tests.export.sources.comparing import refusal
from tests.export.sources.published import CLIP
from tests.export.sources.spoiling import Bomb, edit

Directory = Callable[[str], Path]


@pytest.fixture
def openai(tmp_path: Path) -> Path:
    """A good `.pt` with its merges, to be spoilt."""
    archives.merges_file(tmp_path)
    return archives.state_dict(tmp_path / "model.pt", CLIP(archives.VIT))


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
