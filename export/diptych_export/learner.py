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
        return Chunk(batch.pixels, self._ids(batch.texts), batch.groups)

    def encode(self, chunk: Chunk, device: torch.device, *, bf16: bool) -> tuple[Tensor, Tensor]:
        """Unit vectors of images and texts, float32 [b, D] each.

        With `bf16` the towers multiply in bfloat16; weights, norms and vectors stay float32.
        """
        pixels = torch.from_numpy(chunk.pixels).to(device, non_blocking=True)
        ids = torch.from_numpy(chunk.ids).to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            values = _normalised(pixels, self.image)
            images = self.model.get_image_features(pixel_values=values).pooler_output
            texts = self.model.get_text_features(input_ids=ids).pooler_output
        units = [functional.normalize(found.float(), dim=-1) for found in (images, texts)]
        return units[0], units[1]

    def contrast(
        self, images: Tensor, texts: Tensor, groups: tuple[int, ...], world: World
    ) -> blocks.Share:
        """This process's share of the loss, from its own unit vectors [B, D].

        Without groups every pair is contrasted with the joint batch of all processes; else with
        its own group, which lies on one process.
        """
        if not groups:
            return self._share(images, texts, world)
        parts = zip(images.split(groups), texts.split(groups), strict=True)
        shares = [self._share(*part, World()) for part in parts]
        return blocks.weighted(shares, len(images) * world.size)

    def _share(self, images: Tensor, texts: Tensor, world: World) -> blocks.Share:
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


def _normalised(pixels: Tensor, image: ImageSpec) -> Tensor:
    """uint8 [B, S, S, 3] to float32 [B, 3, S, S], as the processor of a checkpoint scales them."""
    mean, std = (pixels.new_tensor(own, dtype=torch.float32) for own in (image.mean, image.std))
    return ((pixels.float() - 255 * mean) / (255 * std)).permute(0, 3, 1, 2)


def _add(parameter: nn.Parameter, gradient: Tensor) -> None:
    own = gradient.reshape(parameter.shape).to(parameter.dtype)
    parameter.grad = own if parameter.grad is None else parameter.grad + own
