"""The two towers as they are exported: normalisation and pooling inside, unit length outside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diptych.contract import ImageSpec

IMAGE_OUTPUTS = ("image_embeds", "penultimate_hidden_state")
TEXT_OUTPUTS = ("text_embeds", "last_hidden_state", "penultimate_hidden_state", "pooled")


class ImageTower(nn.Module):
    """uint8 [B, S, S, 3] to `IMAGE_OUTPUTS`: [B, D] and [B, T, H].

    Bytes are scaled in here, so that one byte a value crosses every wire.
    """

    def __init__(self, vision: nn.Module, projection: nn.Module, image: ImageSpec) -> None:
        super().__init__()
        self.vision = vision
        self.projection = projection
        self.offset: Tensor
        self.scale: Tensor
        self.register_buffer("offset", 255 * torch.tensor(image.mean, dtype=torch.float32))
        self.register_buffer("scale", 255 * torch.tensor(image.std, dtype=torch.float32))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        values = ((pixel_values.float() - self.offset) / self.scale).permute(0, 3, 1, 2)
        answer = self.vision(pixel_values=values, output_hidden_states=True)
        return self.projection(answer.pooler_output), answer.hidden_states[-2]


class TextTower(nn.Module):
    """int64 [B, L'] to `TEXT_OUTPUTS`: [B, D], [B, L', H], [B, L', H] and [B, H].

    The last hidden state has passed the final norm, the penultimate has not, and `pooled` is
    the last one at the end token, not projected: what image generators condition on.
    """

    def __init__(self, text: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.text = text
        self.projection = projection

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        answer = self.text(input_ids=input_ids, output_hidden_states=True)
        return (
            self.projection(answer.pooler_output),
            answer.last_hidden_state,
            answer.hidden_states[-2],
            answer.pooler_output,
        )
