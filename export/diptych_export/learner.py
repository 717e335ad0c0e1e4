"""What is trained: two towers, and how pairs become their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from diptych.contract import ImageSpec, TextSpec
from diptych.preprocess.text import clean_as_openai
from diptych_export import blocks
from diptych_export.caching import Chunk
from diptych_export.data.batches import Batch
from diptych_export.dual import normalised
from diptych_export.world import World

Score: TypeAlias = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Learner:
    """Towers in training, with the rules that serving will keep to."""

    # A CLIPModel, a SiglipModel, or what is called like one: get_image_features,
    # get_text_features, logit_scale, and for the sigmoid loss logit_bias.
    model: Any
    tokenizer: Any  # of transformers
    image: ImageSpec
    text: TextSpec
    score: Score  # which loss, and so how a cosine is to be read

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def chunk(self, batch: Batch) -> Chunk:
        return Chunk(batch.pixels, self._ids(batch.texts))

    def encode(self, chunk: Chunk, device: torch.device, *, bf16: bool) -> tuple[Tensor, Tensor]:
        """Unit vectors of images and texts, float32 [b, D] each.

        With `bf16` the towers multiply in bfloat16; weights, norms and vectors stay float32.
        """
        pixels = torch.from_numpy(chunk.pixels).to(device, non_blocking=True)
        ids = torch.from_numpy(chunk.ids).to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            values = normalised(pixels, self.image.mean, self.image.std)
            images = self.model.get_image_features(pixel_values=values).pooler_output
            texts = self.model.get_text_features(input_ids=ids).pooler_output
        units = [functional.normalize(found.float(), dim=-1) for found in (images, texts)]
        return units[0], units[1]

    def contrast(self, images: Tensor, texts: Tensor, world: World) -> blocks.Share:
        """This process's share of the loss, from its own unit vectors [B, D]."""
        scale = self.model.logit_scale.detach().reshape(())
        if self.score == "softmax":
            return blocks.softmax(images, texts, scale, world)
        bias = self.model.logit_bias.detach().reshape(())
        return blocks.sigmoid(images, texts, scale, bias, world)

    def add_scale_gradients(self, share: blocks.Share) -> None:
        """Give scale and bias their gradients, which no tower passes on."""
        _add(self.model.logit_scale, share.log_scale)
        if self.score == "sigmoid":
            _add(self.model.logit_bias, share.bias)

    def _ids(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """[b, L'], over-long texts cut, with the end token kept."""
        cleaned = map(clean_as_openai, texts) if self.text.cleaning == "openai" else texts
        found = self.tokenizer(
            list(cleaned),
            padding=self.text.padding,
            truncation=True,
            max_length=self.text.context_length,
            return_tensors="np",
        )
        ids: npt.NDArray[np.int64] = found.input_ids.astype(np.int64)
        return ids


def _add(parameter: nn.Parameter, gradient: Tensor) -> None:
    own = gradient.reshape(parameter.shape).to(parameter.dtype)
    parameter.grad = own if parameter.grad is None else parameter.grad + own
