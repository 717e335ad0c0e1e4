"""OpenCLIP's safetensors and `open_clip_config.json` in, a `Source` out.

Rules: open_clip, model.py (`CLIPVisionCfg`, `CLIPTextCfg`), transform.py (`PreprocessCfg`), and
what push_to_hf_hub.py writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from diptych.contract import ImageSpec, Triple
from diptych_export.errors import BadCheckpoint
from diptych_export.resnet import HEAD_WIDTH, ResNetSize
from diptych_export.sources import bpe
from diptych_export.sources.architecture import Architecture, Stack, Vision
from diptych_export.sources.assembled import assembled
from diptych_export.sources.base import Source
from diptych_export.sources.card import licence_of
from diptych_export.sources.weights import read_safetensors

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

# What the standard towers say of themselves, where they say it; another value is another tower.
_STANDARD_VISION: Mapping[str, tuple[Any, ...]] = {
    "timm_model_name": (None, ""),
    "ls_init_value": (None,),
    "attentional_pool": (False, None),
    "global_average_pool": (False, None),
    "input_patchnorm": (False, None),
    "no_ln_pre": (False, None),
    "pos_embed_type": ("learnable",),
    "final_ln_after_pool": (False, None),
    "pool_type": ("tok",),
    "act_kwargs": (None, {}),
}
_STANDARD_TEXT: Mapping[str, tuple[Any, ...]] = {
    "hf_model_name": (None, ""),
    "hf_tokenizer_name": (None, ""),
    "ls_init_value": (None,),
    "embed_cls": (False, None),
    "pad_id": (0, None),
    "no_causal_mask": (False, None),
    "final_ln_after_pool": (False, None),
    "pool_type": ("argmax",),
    "proj_type": ("linear",),
    "proj_bias": (False, None),
    "act_kwargs": (None, {}),
    "tokenizer_kwargs": (None, {}, {"clean": "lower"}),
}
_SIZES = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "norm_kwargs"}
_SIZES |= {"context_length", "vocab_size", "heads"}
_TRAINING = {"patch_dropout", "output_tokens", "hf_model_pretrained", "timm_model_pretrained"}
_TRAINING |= {"attn_pooler_queries", "attn_pooler_heads", "hf_proj_type", "hf_pooler_type"}
_TRAINING |= {"timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"}
_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_bias"}
_MODEL |= {"init_logit_scale", "output_dict", "cast_dtype"}


def open_openclip(folder: Path, licence: str | None = None) -> Source:
    """Read a directory as `open_clip` pushes it to a hub.

    Raises:
        BadCheckpoint: a file, setting or weight is missing, broken, or of a tower that is not
            OpenAI's.
    """
    config = _config(folder)
    model, preprocess = config["model_cfg"], config["preprocess_cfg"]
    where = str(folder)
    whole = _architecture(where, model)
    state = read_safetensors(_weights(folder))
    card = folder / "README.md"
    return assembled(
        where,
        _without_prefix(state),
        whole,
        image_spec(where, preprocess, whole.image_size),
        bpe.read_merges(folder, whole.vocabulary),
        origin=f"OpenCLIP {folder.name}",
        licence=licence or licence_of(card.read_text(encoding="utf-8") if card.is_file() else ""),
    )


def image_spec(where: str, settings: Mapping[str, Any], size: int) -> ImageSpec:
    """`image_transform` of open_clip, for inference; the tower's size counts, not the settings'.

    What older files leave out was not to be chosen when they were written: bicubic, shortest side.
    """
    place = f"{where}/{CONFIG}: preprocess_cfg"
    for name in ("mean", "std"):
        if len(settings.get(name) or ()) != 3:
            raise BadCheckpoint(f"{place}: {name} missing, or not three numbers")
    filters: dict[str, Literal["bicubic", "bilinear"]] = {
        "bicubic": "bicubic",
        "random": "bicubic",  # random in training only
        "bilinear": "bilinear",
    }
    ways: dict[str, Literal["shortest", "squash"]] = {"shortest": "shortest", "squash": "squash"}
    chosen = settings.get("interpolation", "bicubic"), settings.get("resize_mode", "shortest")
    if chosen[0] not in filters or chosen[1] not in ways:
        raise BadCheckpoint(f"{place}: interpolation {chosen[0]!r} with resize_mode {chosen[1]!r}")
    if settings.get("mode", "RGB") != "RGB":
        raise BadCheckpoint(f"{place}: mode {settings['mode']!r} is not RGB")
    return ImageSpec(
        size=size,
        resize=ways[chosen[1]],
        resize_to=size,
        interpolation=filters[chosen[0]],
        rgb="after_resize",
        rounding="torchvision",
        mean=_triple(settings["mean"]),
        std=_triple(settings["std"]),
    )


def _triple(numbers: Any) -> Triple:
    red, green, blue = (float(number) for number in numbers)
    return red, green, blue


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: missing, or not JSON") from error
    for name in ("model_cfg", "preprocess_cfg"):
        if not isinstance(config, dict) or not isinstance(config.get(name), dict):
            raise BadCheckpoint(f"{path}: {name} missing")
    return dict(config)


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if path.is_file():
        return path
    for pickled in sorted(folder.glob("open_clip_pytorch_model*.bin")):
        problem = f"{pickled.name} is a pickle, which runs code when it is read"
        raise BadCheckpoint(f"{folder}: {problem}; only safetensors are opened")
    raise BadCheckpoint(f"{folder}: no {WEIGHTS}")


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`CustomTextCLIP` keeps its text tower apart; its names are the same otherwise."""
    names = {name.removeprefix("text."): weights for name, weights in state.items()}
    if "text_projection.weight" in names:  # a module there, stored [out, in]
        names["text_projection"] = names.pop("text_projection.weight").T
    return names


def _architecture(where: str, model: Mapping[str, Any]) -> Architecture:
    place = f"{where}/{CONFIG}: model_cfg"
    vision, text = model.get("vision_cfg"), model.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise BadCheckpoint(f"{place}: vision_cfg or text_cfg missing")
    if strange := sorted(set(model) - _MODEL):
        raise BadCheckpoint(f"{place}: {strange[0]} {model[strange[0]]!r}: not a tower we have")
    _check_standard(f"{place}.vision_cfg", vision, _STANDARD_VISION)
    _check_standard(f"{place}.text_cfg", text, _STANDARD_TEXT)
    try:
        return Architecture(
            vision=_vision(place, vision, model["embed_dim"]),
            text=_stack(text, text["heads"]),
            context_length=text["context_length"],
            vocabulary=text["vocab_size"],
            embed_dim=model["embed_dim"],
            activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        )
    except KeyError as error:
        raise BadCheckpoint(f"{place}: {error.args[0]} missing") from error


def _check_standard(
    place: str, settings: Mapping[str, Any], standard: Mapping[str, tuple[Any, ...]]
) -> None:
    for name, value in settings.items():
        if name in standard and value not in standard[name]:
            raise BadCheckpoint(f"{place}: {name} {value!r}: not a tower we have")
        # Unknown settings are off where they are nothing.
        if name not in standard and name not in _SIZES | _TRAINING and value:
            raise BadCheckpoint(f"{place}: {name} {value!r}: not a tower we have")


def _vision(place: str, settings: Mapping[str, Any], embed_dim: int) -> Vision | ResNetSize:
    size, layers = settings["image_size"], settings["layers"]
    if not isinstance(size, int):
        raise BadCheckpoint(f"{place}: image_size {size} is no square")
    head_width = settings.get("head_width", HEAD_WIDTH)
    if isinstance(layers, int):
        stack = _stack(settings, settings["width"] // head_width)
        return Vision(stack=stack, image_size=size, patch_size=settings["patch_size"])
    if head_width != HEAD_WIDTH:
        raise BadCheckpoint(f"{place}: head_width {head_width} of a ResNet is not {HEAD_WIDTH}")
    first, second, third, fourth = layers
    return ResNetSize((first, second, third, fourth), settings["width"], size, embed_dim)


def _stack(settings: Mapping[str, Any], heads: int) -> Stack:
    return Stack(
        width=settings["width"],
        layers=settings["layers"],
        heads=heads,
        mlp_width=int(settings["width"] * settings.get("mlp_ratio", 4.0)),
        epsilon=(settings.get("norm_kwargs") or {}).get("eps", 1e-5),
    )
