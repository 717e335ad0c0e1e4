"""Small checkpoints with random weights, as OpenAI's and OpenCLIP's own code writes them."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.export.sources import vocabularies
from tests.export.sources.published import CLIP, QuickGELU, Size

VOCABULARY = 2 * 256 + len(vocabularies.merges()) + 2

VIT = Size(VOCABULARY)
RESNET = Size(VOCABULARY, image_size=64, image_width=16, image_layers=(1, 2, 1, 1))
OPENCLIP = Size(VOCABULARY, image_width=64, text_width=48, text_heads=3)  # not 64 to a head


def merges_file(folder: Path) -> Path:
    """bpe_simple_vocab_16e6.txt.gz: a line for the version, more merges than are used."""
    pairs = [" ".join(pair) for pair in vocabularies.merges()]
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *pairs, "q z", "q x"]))
    return path


def state_dict(path: Path, model: CLIP, **more: Tensor) -> Path:
    """`torch.save` of weights in half precision, as OpenAI published them."""
    halves = {name: _half(weights) for name, weights in model.state_dict().items()}
    torch.save(halves | more, path)
    return path


def torchscript(path: Path, model: CLIP) -> Path:
    """An archive of `torch.jit`, with three numbers beside the weights as in OpenAI's."""
    for name, number in (("input_resolution", model.side), ("context_length", 24)):
        model.register_buffer(name, torch.tensor(number))
    model.register_buffer("vocab_size", torch.tensor(VOCABULARY))
    example = torch.zeros(1, 3, model.side, model.side), torch.zeros(1, 24, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated
        torch.jit.save(torch.jit.trace(model, example, check_trace=False), path)
    return path


def openclip(
    folder: Path,
    size: Size = OPENCLIP,
    activation: type[nn.Module] = nn.GELU,
    preprocess: Mapping[str, Any] | None = None,
    *,
    custom_text: bool = False,
    extra: Mapping[str, Tensor] | None = None,
) -> CLIP:
    """A directory as open_clip's push_to_hf_hub.py fills it; the model answers for it."""
    folder.mkdir(parents=True, exist_ok=True)
    merges_file(folder)
    model = CLIP(size, activation)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state |= extra or {}
    if custom_text:
        state = {_custom(name): value for name, value in state.items()}
    save_file(state, folder / "open_clip_model.safetensors")
    towers = model_cfg(size)
    if custom_text:
        towers["custom_text"] = True
    if activation is QuickGELU:
        towers["quick_gelu"] = True
    config = {"model_cfg": towers, "preprocess_cfg": preprocess or preprocess_cfg(size)}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return model


def model_cfg(size: Size) -> dict[str, Any]:
    vision: dict[str, Any] = {"image_size": size.image_size, "width": size.image_width}
    if isinstance(size.image_layers, tuple):
        vision |= {"layers": list(size.image_layers), "patch_size": None}
    else:
        heads = {"head_width": size.image_width // size.image_heads}
        vision |= {"layers": size.image_layers, "patch_size": size.patch_size} | heads
    text = {
        "context_length": size.context_length,
        "vocab_size": size.vocabulary,
        "width": size.text_width,
        "heads": size.text_heads,
        "layers": size.text_layers,
    }
    return {"embed_dim": size.embed_dim, "vision_cfg": vision, "text_cfg": text}


def preprocess_cfg(size: Size, **changes: Any) -> dict[str, Any]:
    return {
        "size": [size.image_size, size.image_size],
        "mode": "RGB",
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    } | changes


def _custom(name: str) -> str:
    """Where `CustomTextCLIP` keeps a weight."""
    return name if name.startswith(("visual.", "logit_")) else f"text.{name}"


def _half(weights: Tensor) -> Tensor:
    return weights.half() if weights.is_floating_point() else weights
