"""The two towers as they are exported: scaling and pooling inside, unit length outside."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from diptych.contract import ImageSpec

Pooled: TypeAlias = Literal["end", "first", "last"]  # which position stands for the text

IMAGE_EMBEDS, TEXT_EMBEDS = "image_embeds", "text_embeds"
PENULTIMATE = "penultimate_hidden_state"


class ImageTower(nn.Module):
    """uint8 [B, S, S, 3] to `outputs`: [B, D], and [B, T, H] where the encoder is a transformer.

    Bytes are scaled in here, so that one byte a value crosses every wire.
    """

    def __init__(
        self, vision: nn.Module, projection: nn.Module, image: ImageSpec, *, states: bool = True
    ) -> None:
        """`vision` answers as transformers' vision models do, with hidden states if `states`."""
        super().__init__()
        self.vision = vision
        self.projection = projection
        self.outputs = (IMAGE_EMBEDS, PENULTIMATE) if states else (IMAGE_EMBEDS,)
        self.offset: Tensor
        self.scale: Tensor
        self.register_buffer("offset", 255 * torch.tensor(image.mean, dtype=torch.float32))
        self.register_buffer("scale", 255 * torch.tensor(image.std, dtype=torch.float32))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        values = ((pixel_values.float() - self.offset) / self.scale).permute(0, 3, 1, 2)
        if PENULTIMATE not in self.outputs:
            return (self.projection(self.vision(pixel_values=values).pooler_output),)
        answer = self.vision(pixel_values=values, output_hidden_states=True)
        return self.projection(answer.pooler_output), answer.hidden_states[-2]


class TextTower(nn.Module):
    """int64 [B, L'], and where the tower takes one a mask alike, to `outputs`.

    [B, D], then [B, L', H], [B, L', H] and [B, H]: the last hidden state has passed the final
    norm, the penultimate has not, and `pooled` is the last one where the text is read off, not
    projected: what image generators condition on.
    """

    def __init__(
        self,
        text: nn.Module,
        projection: nn.Module,
        *,
        pooled: Pooled = "end",
        penultimate: bool = True,
    ) -> None:
        """`text` answers as transformers' text models do.

        `pooled` "end" is its own `pooler_output`, at the end token; `penultimate` is to be False
        where the inner states are of another width than the last.
        """
        super().__init__()
        self.text = text
        self.projection = projection
        self.pooled = pooled
        names = (TEXT_EMBEDS, "last_hidden_state", PENULTIMATE, "pooled")
        self.outputs = tuple(name for name in names if penultimate or name != PENULTIMATE)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        answer = self.text(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        )
        last = answer.last_hidden_state
        if self.pooled == "end":
            pooled = answer.pooler_output
        else:
            pooled = last[:, 0 if self.pooled == "first" else -1]
        states = [last, answer.hidden_states[-2]] if PENULTIMATE in self.outputs else [last]
        return (self.projection(pooled), *states, pooled)
