"""The gate's other side for what transformers reads: its own processor, tokenizer and model."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.contract import Canary, ImageSpec, TextSpec, canary_pixels, canary_tokens
from diptych.preprocess.text import pad_tokens
from diptych_export.graph import more_states
from diptych_export.sources.base import Array
from diptych_export.sources.pretrained import Pretrained
from diptych_export.sources.text_rules import as_text


class LibraryReference:
    """Answers as a user of transformers gets them, one input at a time."""

    def __init__(self, pretrained: Pretrained, text: TextSpec) -> None:
        self._own = pretrained
        self._text_spec = text

    def image(self, file: bytes) -> dict[str, Array]:
        return self._image(self._values(Image.open(io.BytesIO(file))))

    def text(self, text: str, layers: int = 0) -> dict[str, Array]:
        spec = self._text_spec
        inputs = self._own.tokenizer(
            [text],
            padding="max_length" if spec.padding == "max_length" else False,
            truncation=True,
            max_length=spec.context_length,
            return_tensors="pt",
            **as_text(self._own.tokenizer),
        )
        return self._text(dict(inputs), layers)

    def canary(self, image: ImageSpec, text: TextSpec) -> Canary:
        pixels = Image.fromarray(canary_pixels(image))
        ids, mask = pad_tokens([canary_tokens(text)], text)
        inputs = {"input_ids": torch.from_numpy(ids)}
        if text.attention_mask:
            inputs["attention_mask"] = torch.from_numpy(mask)
        values = self._values(pixels, do_resize=False, do_center_crop=False)
        return Canary(
            image=unit(self._image(values)["image_embeds"]),
            text=unit(self._text(inputs)["text_embeds"]),
        )

    def _values(self, picture: Image.Image, **settings: Any) -> Tensor:
        """Where the processor converts nothing, its users do: SigLIP's and ALIGN's leave it off."""
        if not self._own.processor.do_convert_rgb:
            settings["do_convert_rgb"] = True
        answer = self._own.processor(images=picture, return_tensors="pt", **settings)
        return torch.as_tensor(answer["pixel_values"])

    @torch.inference_mode()
    def _image(self, values: Tensor) -> dict[str, Array]:
        answer = self._own.model.get_image_features(pixel_values=values, output_hidden_states=True)
        states = {"image_embeds": answer.pooler_output}
        if answer.hidden_states is not None and answer.hidden_states[-1].ndim == 3:
            states["penultimate_hidden_state"] = answer.hidden_states[-2]
        return _arrays(states)

    @torch.inference_mode()
    def _text(self, inputs: dict[str, Tensor], layers: int = 0) -> dict[str, Array]:
        answer = self._own.model.get_text_features(**inputs, output_hidden_states=True)
        whole = self._own.model.text_model(**inputs)
        last, place = answer.last_hidden_state, self._own.family.pooled
        pooled = {"first": last[:, 0], "last": last[:, -1], "end": whole.pooler_output}[place]
        more = {
            name: self._own.model.text_model.final_layer_norm(answer.hidden_states[-1 - layer])
            if norm
            else answer.hidden_states[-1 - layer]
            for layer, norm, name in more_states(layers)
        }
        return _arrays(
            more
            | {
                "text_embeds": answer.pooler_output,
                "last_hidden_state": last,
                "penultimate_hidden_state": answer.hidden_states[-2],
                "pooled": pooled,
            }
        )


def unit(vector: Array) -> tuple[float, ...]:
    """Scaled to length one, as the canary is kept."""
    scaled = vector / np.linalg.norm(vector)
    return tuple(scaled.tolist())


def _arrays(states: dict[str, Tensor]) -> dict[str, Array]:
    return {name: state[0].float().numpy() for name, state in states.items()}
