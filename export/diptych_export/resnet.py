"""OpenAI's ModifiedResNet: the image tower of RN50, RN101, RN50x4, RN50x16 and RN50x64.

As described in Radford et al., 2021, §2.4 and table 19 (https://arxiv.org/abs/2103.00020), and
published in openai/CLIP, clip/model.py. Three convolutions for a stem; an average pool, against
aliasing, before every convolution that would stride; attention instead of a global average. Names
of weights are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_outputs import BaseModelOutputWithPooling

EXPANSION = 4  # a block's output is so many times as wide as its 3x3 convolution
REDUCTION = 32  # pixels a side that become one place of the last feature map
HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True)
class ResNetSize:
    """One of the five, or one of your own."""

    layers: tuple[int, int, int, int]  # blocks in each of the four stages
    width: int  # channels behind the stem; the last stage has 32 times as many
    image_size: int  # S, pixels per side
    embed_dim: int  # D

    @property
    def heads(self) -> int:
        """Of the attention at the end."""
        return self.width * 8 * EXPANSION // HEAD_WIDTH


SIZES: dict[str, ResNetSize] = {
    "RN50": ResNetSize((3, 4, 6, 3), 64, 224, 1024),
    "RN101": ResNetSize((3, 4, 23, 3), 64, 224, 512),
    "RN50x4": ResNetSize((4, 6, 10, 6), 80, 288, 640),
    "RN50x16": ResNetSize((6, 8, 18, 8), 96, 384, 768),
    "RN50x64": ResNetSize((3, 15, 36, 10), 128, 448, 1024),
}


class ModifiedResNet(nn.Module):
    """float32 [B, 3, S, S] to embeddings [B, D]; answers as transformers' vision models do."""

    def __init__(self, size: ResNetSize) -> None:
        super().__init__()
        stem = size.width // 2
        self.conv1 = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.conv3 = nn.Conv2d(stem, size.width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(size.width)
        self.pool = nn.AvgPool2d(2)
        channels = size.width
        for stage, blocks in enumerate(size.layers):
            planes = size.width * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            inputs = [channels] + [planes * EXPANSION] * (blocks - 1)
            made = [Bottleneck(*both, planes) for both in zip(inputs, strides, strict=True)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
            channels = planes * EXPANSION
        places = (size.image_size // REDUCTION) ** 2
        self.attnpool = AttentionPool(places, channels, size.heads, size.embed_dim)

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """`last_hidden_state` [B, C, S/32, S/32], `pooler_output` [B, D]."""
        x = torch.relu(self.bn1(self.conv1(pixel_values)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.pool(torch.relu(self.bn3(self.conv3(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=self.attnpool(x))


class Bottleneck(nn.Module):
    """float32 [B, C, N, N] to [B, 4 planes, N / stride, N / stride]."""

    def __init__(self, channels: int, stride: int, planes: int) -> None:
        super().__init__()
        wide = planes * EXPANSION
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        nn.init.zeros_(self.bn3.weight)  # each block begins as its shortcut
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels != wide:
            shortcut = nn.Conv2d(channels, wide, 1, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(wide))
        self.shortcut_pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.pool(torch.relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y)) + self.downsample(self.shortcut_pool(x))
        return torch.relu(y)


class AttentionPool(nn.Module):
    """float32 [B, C, N, N] to [B, D]: the mean of all places asks every place, and itself.

    The published code lets every place ask; only the answer to the mean is ever used.
    """

    def __init__(self, places: int, channels: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        spread = channels**-0.5
        self.positional_embedding = nn.Parameter(torch.randn(places + 1, channels) * spread)
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, embed_dim)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(projection.weight, std=spread)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
        tokens = tokens + self.positional_embedding
        query = self._split(self.q_proj(tokens[:, :1]))
        key, value = self._split(self.k_proj(tokens)), self._split(self.v_proj(tokens))
        answer = scaled_dot_product_attention(query, key, value)
        pooled: Tensor = self.c_proj(answer.transpose(1, 2).flatten(1))
        return pooled

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, C] to [B, heads, T, C / heads]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
