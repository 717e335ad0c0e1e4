"""One encoder alone, in the layout of diffusers, in; a `Source` whose other tower is absent out.

What repositories of image generators hold: `text_encoder/` beside `tokenizer/`, `text_encoder_2/`
beside `tokenizer_2/`, `image_encoder/` beside `feature_extractor/`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from diptych.contract import Canary, ImageSpec, TextSpec, Tower, canary_pixels, canary_tokens
from diptych_export.errors import BadCheckpoint
from diptych_export.graph import AbsentImage, AbsentText, ImageTower, TextTower, frame, more_states
from diptych_export.sources.absent import NO_PICTURES, NO_TEXTS, no_tokenizer, one_vector
from diptych_export.sources.base import Array, Source
from diptych_export.sources.families import FAMILIES
from diptych_export.sources.image_rules import image_spec
from diptych_export.sources.library import unit
from diptych_export.sources.pretrained import (
    TOKENIZERS,
    check_weights_file,
    load_model,
    local,
    quiet,
    read_json,
)
from diptych_export.sources.text_rules import TextNeeds, as_text, text_spec, tokenizer_json
from diptych_export.sources.weights import one_line

KINDS = {"clip_text_model": Tower.TEXT, "clip_vision_model": Tower.IMAGE}  # by `model_type`

_PROCESSOR = "preprocessor_config.json"
_PICTURES = ("feature_extractor", "image_processor")  # where diffusers keeps it
_ONE_SCALE = {"logit_scale": 1.0, "logit_bias": 0.0}  # there is nothing to compare


def open_lone(folder: Path, licence: str | None = None) -> Source:
    """Read a CLIPTextModel, a CLIPTextModelWithProjection or a CLIPVisionModelWithProjection.

    Raises:
        BadCheckpoint: a file, setting or weight is missing or broken.
    """
    where = str(folder)
    config = read_json(where, "config.json")
    check_weights_file(where)
    read = _text if KINDS[str(config["model_type"])] is Tower.TEXT else _image
    return read(folder, config, licence or "unknown")


def is_lone(folder: Path) -> bool:
    """Whether a directory holds one encoder alone, by its config.json."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever opens it says so
        return False
    return isinstance(config, dict) and config.get("model_type") in KINDS


def _text(folder: Path, config: Mapping[str, Any], licence: str) -> Source:
    where, projects = str(folder), "CLIPTextModelWithProjection" in config.get("architectures", ())
    home = _beside(folder, ("tokenizer" + folder.name.removeprefix("text_encoder"),), TOKENIZERS)
    with one_line(where), quiet():
        library = CLIPTextModelWithProjection if projects else CLIPTextModel
        model = load_model(where, library)
        tokenizer = AutoTokenizer.from_pretrained(str(home), **local(str(home)))
    text = text_spec(str(home), tokenizer, _needs(model.config))
    inner = getattr(model, "text_model", model)
    projection = model.text_projection if projects else nn.Identity()
    dim = model.config.projection_dim if projects else model.config.hidden_size
    return Source(
        image=NO_PICTURES,
        text=text,
        image_tower=AbsentImage(NO_PICTURES, dim),
        text_tower=TextTower(inner, projection, frame=frame(text) if projects else None),
        tokenizer_json=tokenizer_json(str(home), tokenizer, text),
        reference=_TextReference(inner, projection, tokenizer, text, dim),
        numbers=_ONE_SCALE
        | {
            "embed_dim": dim,
            "image_hidden_size": None,
            "text_hidden_size": model.config.hidden_size,
            "absent": Tower.IMAGE,
            "projected": projects,
        },
        score="softmax",
        origin=f"{library.__name__} {folder.name}",
        licence=licence,
    )


def _image(folder: Path, config: Mapping[str, Any], licence: str) -> Source:
    where = str(folder)
    with one_line(where), quiet():
        model = load_model(where, CLIPVisionModelWithProjection)
        processor, written = _processor(folder, model.config.image_size)
    image = image_spec(where, written, processor)
    if image.size != model.config.image_size:
        problem = f"pictures become {image.size} pixels a side, the image tower takes "
        raise BadCheckpoint(f"{where}: {problem}{model.config.image_size}")
    dim = model.config.projection_dim
    return Source(
        image=image,
        text=NO_TEXTS,
        image_tower=ImageTower(model.vision_model, model.visual_projection, image),
        text_tower=AbsentText(dim),
        tokenizer_json=no_tokenizer(),
        reference=_ImageReference(model, processor, dim),
        numbers=_ONE_SCALE
        | {
            "embed_dim": dim,
            "image_hidden_size": model.config.hidden_size,
            "text_hidden_size": dim,
            "absent": Tower.TEXT,
        },
        score="softmax",
        origin=f"CLIPVisionModelWithProjection {folder.name}",
        licence=licence,
    )


class _TextReference:
    """Answers as the text encoder of a pipeline does."""

    def __init__(
        self, model: Any, projection: nn.Module, tokenizer: Any, text: TextSpec, dim: int
    ) -> None:
        self._model = model
        self._projection = projection
        self._tokenizer = tokenizer
        self._limit = text.context_length
        self._dim = dim

    def image(self, file: bytes) -> dict[str, Array]:
        return {"image_embeds": one_vector(self._dim)}

    def text(self, text: str, layers: int = 0) -> dict[str, Array]:
        inputs = self._tokenizer(
            [text],
            truncation=True,
            max_length=self._limit,
            return_tensors="pt",
            **as_text(self._tokenizer),
        )
        return self._text(inputs.input_ids, layers)

    def canary(self, image: ImageSpec, text: TextSpec) -> Canary:
        ids = torch.from_numpy(canary_tokens(text))[None]
        own = unit(self._text(ids, 0)["text_embeds"])
        return Canary(image=unit(one_vector(self._dim)), text=own)

    @torch.inference_mode()
    def _text(self, ids: Tensor, layers: int) -> dict[str, Array]:
        answer = self._model(input_ids=ids, output_hidden_states=True)
        states = {
            "text_embeds": self._projection(answer.pooler_output),
            "last_hidden_state": answer.last_hidden_state,
            "penultimate_hidden_state": answer.hidden_states[-2],
            "pooled": answer.pooler_output,
        }
        for layer, norm, name in more_states(layers):
            state = answer.hidden_states[-1 - layer]
            states[name] = self._model.final_layer_norm(state) if norm else state
        return {name: state[0].numpy() for name, state in states.items()}


class _ImageReference:
    """Answers as the image encoder of a pipeline does."""

    def __init__(self, model: Any, processor: Any, dim: int) -> None:
        self._model = model
        self._processor = processor
        self._dim = dim

    def image(self, file: bytes) -> dict[str, Array]:
        return self._image(Image.open(io.BytesIO(file)))

    def text(self, text: str, layers: int = 0) -> dict[str, Array]:
        return {"text_embeds": one_vector(self._dim)}

    def canary(self, image: ImageSpec, text: TextSpec) -> Canary:
        settings = {"do_resize": False, "do_center_crop": False}
        own = self._image(Image.fromarray(canary_pixels(image)), **settings)["image_embeds"]
        return Canary(image=unit(own), text=unit(one_vector(self._dim)))

    @torch.inference_mode()
    def _image(self, picture: Image.Image, **settings: Any) -> dict[str, Array]:
        inputs = self._processor(images=picture, return_tensors="pt", **settings)
        values = torch.as_tensor(inputs["pixel_values"])
        answer = self._model(pixel_values=values, output_hidden_states=True)
        states = {
            "image_embeds": answer.image_embeds,
            "penultimate_hidden_state": answer.hidden_states[-2],
        }
        return {name: np.asarray(state[0]) for name, state in states.items()}


def _needs(config: Any) -> TextNeeds:
    legacy = config.eos_token_id == 2  # see CLIPTextModel.forward
    return TextNeeds(
        positions=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        padding=FAMILIES["clip"].padding,
        attention_mask=False,
        end_id=None if legacy else config.eos_token_id,
        highest_ends=legacy,
    )


def _processor(folder: Path, size: int) -> tuple[Any, Mapping[str, Any]]:
    """The image processor beside an image encoder, and what it says of itself.

    Where there is none, as beside IP-Adapter's encoders, it is CLIP's for the encoder's own size:
    so does diffusers, loaders/ip_adapter.py.
    """
    for home in (folder, *(folder.parent / name for name in _PICTURES)):
        if (home / _PROCESSOR).is_file():
            found = AutoImageProcessor.from_pretrained(str(home), **local(str(home)))
            return found, read_json(str(home), _PROCESSOR)
    usual = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    return usual, usual.to_dict()


def _beside(folder: Path, names: tuple[str, ...], files: tuple[str, ...]) -> Path:
    """The folder, or one of those beside it, that has any of `files`."""
    homes = [folder, *(folder.parent / name for name in names)]
    for home in homes:
        if any((home / file).is_file() for file in files):
            return home
    looked = " nor in ".join(map(str, homes))
    raise BadCheckpoint(f"{folder}: no tokenizer: none of {', '.join(files)} in {looked}")
