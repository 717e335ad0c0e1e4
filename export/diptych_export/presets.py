"""Names in, sizes of two towers out; and fresh towers of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection
from transformers.modeling_outputs import BaseModelOutputWithPooling

from diptych_export.resnet import SIZES, ModifiedResNet, ResNetSize
from diptych_export.sources.architecture import Architecture, Stack, Vision

INITIAL_LOG_SCALE = 2.6592  # log(1 / 0.07): CLIP §2.5

# The text tower of the CLIP paper, §2.4: 63 million parameters with a vocabulary of 49,408.
TEXT_63M = Stack(width=512, layers=12, heads=8, mlp_width=2048)

# A vocabulary here is the largest that is learned from captions.
PRESETS: dict[str, Architecture] = {
    "shapes": Architecture(
        vision=ResNetSize((1, 1, 1, 1), width=12, image_size=64, embed_dim=96),
        text=Stack(128, 3, 4, 256),
        context_length=32,
        vocabulary=4096,
        embed_dim=96,
        activation="gelu",
    ),
    "tiny": Architecture(
        vision=Vision(Stack(32, 1, 1, 64), image_size=16, patch_size=8),
        text=Stack(32, 1, 1, 64),
        context_length=16,
        vocabulary=1024,
        embed_dim=32,
        activation="gelu",
    ),
    "vit-b-32": Architecture(
        vision=Vision(Stack(768, 12, 12, 3072), image_size=224, patch_size=32),
        text=TEXT_63M,
        context_length=77,
        vocabulary=49_408,
        embed_dim=512,
        activation="gelu",
    ),
    "vit-l-14": Architecture(
        vision=Vision(Stack(1024, 24, 16, 4096), image_size=224, patch_size=14),
        text=Stack(768, 12, 12, 3072),
        context_length=77,
        vocabulary=49_408,
        embed_dim=768,
        activation="gelu",
    ),
    "rn50": Architecture(
        vision=SIZES["RN50"],
        text=TEXT_63M,
        context_length=77,
        vocabulary=49_408,
        embed_dim=SIZES["RN50"].embed_dim,
        activation="gelu",
    ),
}


class ResNetClip(nn.Module):
    """A ModifiedResNet beside CLIP's text tower, called as transformers' CLIPModel is."""

    def __init__(self, whole: Architecture, text: Any) -> None:
        super().__init__()
        assert isinstance(whole.vision, ResNetSize)
        self.architecture = whole
        self.vision_model = ModifiedResNet(whole.vision)
        self.text: Any = CLIPTextModelWithProjection(text)
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """float32 [B, 3, S, S] to `pooler_output` [B, D]."""
        answer: BaseModelOutputWithPooling = self.vision_model(pixel_values)
        return answer

    def get_text_features(self, input_ids: Tensor) -> BaseModelOutputWithPooling:
        """int64 [B, L'] to `pooler_output` [B, D]."""
        return BaseModelOutputWithPooling(pooler_output=self.text(input_ids=input_ids).text_embeds)


def fresh(whole: Architecture, tokenizer: Any) -> Any:
    """Initialised towers for the ids of `tokenizer`: a `CLIPModel` or a `ResNetClip`."""
    text = whole.text_config()
    text.vocab_size = len(tokenizer)
    set_control_ids(text, tokenizer)
    if isinstance(whole.vision, ResNetSize):
        return ResNetClip(whole, text)
    vision = whole.vision_config(whole.vision)
    return CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=whole.embed_dim,
            logit_scale_init_value=INITIAL_LOG_SCALE,
        )
    )


def set_control_ids(text: Any, tokenizer: Any) -> None:
    """Tell a text config which ids begin, end and fill up a text."""
    text.bos_token_id = tokenizer.bos_token_id
    text.eos_token_id = tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
