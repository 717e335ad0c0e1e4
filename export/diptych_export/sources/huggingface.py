"""A Hugging Face checkpoint in, a `Source` out. Every setting is read, none is assumed."""

from __future__ import annotations

import io
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from diptych.contract import (
    Canary,
    ImageSpec,
    TextSpec,
    Tower,
    Triple,
    canary_pixels,
    canary_tokens,
)
from diptych_export.errors import BadCheckpoint
from diptych_export.graph import ImageTower, TextTower
from diptych_export.sources.base import Array, Source

_FILTERS: dict[int, Literal["lanczos", "bilinear", "bicubic"]] = {
    Image.Resampling.LANCZOS: "lanczos",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}
_STEPS = ("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize")


def describe(model: CLIPModel, processor: CLIPProcessor, *, origin: str, licence: str) -> Source:
    """All that an export needs to know of `model` and its `processor`.

    Raises:
        BadCheckpoint: a setting is missing, or one the serving side has no rule for.
    """
    model.eval()
    image, text = image_spec(processor), text_spec(model, processor)
    return Source(
        image=image,
        text=text,
        graphs={
            Tower.IMAGE: ImageTower(model.vision_model, model.visual_projection, image),
            Tower.TEXT: TextTower(model.text_model, model.text_projection),
        },
        tokenizer_json=processor.tokenizer.backend_tokenizer.to_str(pretty=True),
        reference=ClipReference(model, processor),
        numbers={
            "embed_dim": model.projection_dim,
            "image_hidden_size": model.vision_embed_dim,
            "text_hidden_size": model.text_embed_dim,
            "logit_scale": model.logit_scale.exp().item(),
            "logit_bias": 0.0,
        },
        score="softmax",
        origin=origin,
        licence=licence,
    )


def image_spec(processor: CLIPProcessor) -> ImageSpec:
    settings = processor.image_processor
    for step in _STEPS:
        if not getattr(settings, step, None):
            raise BadCheckpoint(f"image processor: {step} is not set; CLIP's steps are needed")
    resize_to, crop = settings.size.shortest_edge, settings.crop_size
    if resize_to is None or crop is None or crop.height != crop.width:
        raise BadCheckpoint(f"image processor: size {settings.size}, crop_size {crop}")
    if settings.resample not in _FILTERS or abs(settings.rescale_factor * 255 - 1) > 1e-6:
        raise BadCheckpoint(
            f"image processor: resample {settings.resample}, "
            f"rescale_factor {settings.rescale_factor}"
        )
    return ImageSpec(
        size=crop.height,
        resize="shortest",
        resize_to=resize_to,
        interpolation=_FILTERS[settings.resample],
        rgb="before_resize",
        rounding="huggingface",
        mean=cast(Triple, tuple(settings.image_mean)),
        std=cast(Triple, tuple(settings.image_std)),
    )


def text_spec(model: CLIPModel, processor: CLIPProcessor) -> TextSpec:
    config, tokenizer = model.text_model.config, processor.tokenizer
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(tokenizer, name) is None:
            raise BadCheckpoint(f"tokenizer: {name} is not set")
    return TextSpec(
        context_length=config.max_position_embeddings,
        cleaning="none",  # tokenizer.json normalises by itself
        padding="longest",
        pad_id=tokenizer.pad_token_id,
        start_id=tokenizer.bos_token_id,
        end_id=tokenizer.eos_token_id,
        vocabulary=config.vocab_size,
        attention_mask=False,
    )


class ClipReference:
    """transformers' own processor and model, one input at a time."""

    def __init__(self, model: CLIPModel, processor: CLIPProcessor) -> None:
        self._model = model
        self._processor = processor

    def image(self, file: bytes) -> dict[str, Array]:
        picture = Image.open(io.BytesIO(file))
        values = self._processor.image_processor(images=picture, return_tensors="pt").pixel_values
        return self._image(values)

    def text(self, text: str) -> dict[str, Array]:
        length = self._model.text_model.config.max_position_embeddings
        ids = self._processor.tokenizer(
            [text], truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        return self._text(ids)

    def canary(self, image: ImageSpec, text: TextSpec) -> Canary:
        square = Image.fromarray(canary_pixels(image))
        values = self._processor.image_processor(
            images=square, do_resize=False, do_center_crop=False, return_tensors="pt"
        ).pixel_values
        ids = torch.from_numpy(canary_tokens(text))[None]
        return Canary(
            image=_unit(self._image(values)["image_embeds"]),
            text=_unit(self._text(ids)["text_embeds"]),
        )

    @torch.inference_mode()
    def _image(self, values: Tensor) -> dict[str, Array]:
        answer = self._model.get_image_features(pixel_values=values, output_hidden_states=True)
        return {
            "image_embeds": answer.pooler_output[0].numpy(),
            "penultimate_hidden_state": answer.hidden_states[-2][0].numpy(),
        }

    @torch.inference_mode()
    def _text(self, ids: Tensor) -> dict[str, Array]:
        whole = self._model.text_model(input_ids=ids, output_hidden_states=True)
        return {
            "text_embeds": self._model.get_text_features(input_ids=ids).pooler_output[0].numpy(),
            "last_hidden_state": whole.last_hidden_state[0].numpy(),
            "penultimate_hidden_state": whole.hidden_states[-2][0].numpy(),
            "pooled": whole.pooler_output[0].numpy(),
        }


def _unit(vector: Array) -> tuple[float, ...]:
    numbers: Any = vector / np.linalg.norm(vector)
    return tuple(float(number) for number in numbers)
