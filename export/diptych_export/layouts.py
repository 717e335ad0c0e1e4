"""A learner in, a checkpoint out that others open: in transformers' layout, or in OpenCLIP's.

transformers has no model with a ModifiedResNet, and none of CLIP's with a bias; those are
written as open_clip would push them to a hub. Beside either lies spec.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import CLIPProcessor, SiglipProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from diptych_export import openai_names
from diptych_export.learner import Learner
from diptych_export.presets import ResNetClip
from diptych_export.resnet import ResNetSize
from diptych_export.sources import openclip
from diptych_export.sources.image_rules import FILTERS
from diptych_export.sources.pretrained import quiet

SPEC = "spec.json"


def is_openclip(model: Any) -> bool:
    return isinstance(model, ResNetClip) or (
        model.config.model_type == "clip" and hasattr(model, "logit_bias")
    )


def write(learner: Learner, folder: Path) -> None:
    """Weights, config, tokenizer, preprocessing and spec.json into an existing folder."""
    if is_openclip(learner.model):
        _write_openclip(learner, folder)
    else:
        with quiet():
            learner.model.save_pretrained(folder)
            processor(learner).save_pretrained(folder)
    _write_spec(learner, folder)


def processor(learner: Learner) -> Any:
    """transformers' own of images and texts, with the rules that the learner keeps to."""
    image = learner.image
    settings: dict[str, Any] = {
        "resample": next(number for number, name in FILTERS.items() if name == image.interpolation),
        "image_mean": list(image.mean),
        "image_std": list(image.std),
    }
    side = {"height": image.size, "width": image.size}
    if image.resize == "squash":
        squash = SiglipImageProcessorPil(size=side, **settings)
        return SiglipProcessor(image_processor=squash, tokenizer=learner.tokenizer)
    crop = CLIPImageProcessorPil(
        size={"shortest_edge": image.resize_to}, crop_size=side, **settings
    )
    return CLIPProcessor(image_processor=crop, tokenizer=learner.tokenizer)


def _write_spec(learner: Learner, folder: Path) -> None:
    """What an export will read of the checkpoint, in one place, for people and programs."""
    bias = getattr(learner.model, "logit_bias", None)
    content = {
        "image": learner.image.model_dump(),
        "text": learner.text.model_dump(),
        "score": learner.score,
        "logit_scale": learner.model.logit_scale.exp().item(),
        "logit_bias": 0.0 if bias is None else bias.item(),
    }
    (folder / SPEC).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_openclip(learner: Learner, folder: Path) -> None:
    save_file(openai_names.weights(learner.model), folder / openclip.WEIGHTS)
    config = {"model_cfg": _model_cfg(learner.model), "preprocess_cfg": _preprocess_cfg(learner)}
    (folder / openclip.CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    learner.tokenizer.save_pretrained(folder)


def _preprocess_cfg(learner: Learner) -> dict[str, Any]:
    image = learner.image
    return {
        "size": [image.size, image.size],
        "mode": "RGB",
        "mean": list(image.mean),
        "std": list(image.std),
        "interpolation": image.interpolation,
        "resize_mode": image.resize,
    }


def _model_cfg(model: Any) -> dict[str, Any]:
    resnet = isinstance(model, ResNetClip)
    text = model.text.config if resnet else model.config.text_config
    config: dict[str, Any] = {
        "embed_dim": text.projection_dim if resnet else model.config.projection_dim,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": _resnet_cfg(model) if resnet else _vision_cfg(model.config.vision_config),
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            **_stack_cfg(text),
        },
    }
    if hasattr(model, "logit_bias"):
        config["init_logit_bias"] = model.logit_bias.item()
    return config


def _resnet_cfg(model: ResNetClip) -> dict[str, Any]:
    size = model.architecture.vision
    assert isinstance(size, ResNetSize)
    return {"image_size": size.image_size, "layers": list(size.layers), "width": size.width}


def _vision_cfg(vision: Any) -> dict[str, Any]:
    return {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
        **_stack_cfg(vision),
    }


def _stack_cfg(config: Any) -> dict[str, Any]:
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "norm_kwargs": {"eps": config.layer_norm_eps},
    }
