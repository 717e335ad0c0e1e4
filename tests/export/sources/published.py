"""OpenAI's CLIP as modules with the published names: writes checkpoints, and answers for them.

Architecture of openai/CLIP, clip/model.py, built on torch's own attention module, so that neither
the towers under test nor the gate's arithmetic has any part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """`attn_mask` is no parameter and no buffer; TorchScript keeps it all the same."""

    def __init__(
        self, width: int, heads: int, activation: type[nn.Module], mask: Tensor | None
    ) -> None:
        super().__init__()
        self.attn_mask = mask
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", activation())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.attn_mask)[0]
        x = x + self.mlp(self.ln_2(x))
        return x


class Transformer(nn.Module):
    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        activation: type[nn.Module],
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        blocks = [Block(width, heads, activation, mask) for _ in range(layers)]
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.resblocks(x)
        return x


class VisionTransformer(nn.Module):
    def __init__(self, size: Size, layers: int, activation: type[nn.Module]) -> None:
        super().__init__()
        width, places = size.image_width, (size.image_size // size.patch_size) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, size.patch_size, size.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(places, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, size.image_heads, layers, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, size.embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        first = self.class_embedding + torch.zeros(x.shape[0], 1, x.shape[2])
        x = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding)
        x = self.ln_post(self.transformer(x)[:, 0]) @ self.proj
        return x


class Bottleneck(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool: nn.Module = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inplanes != planes * 4:
            self.downsample = nn.Sequential()
            self.downsample.add_module("-1", nn.AvgPool2d(stride))
            self.downsample.add_module("0", nn.Conv2d(inplanes, planes * 4, 1, bias=False))
            self.downsample.add_module("1", nn.BatchNorm2d(planes * 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.avgpool(torch.relu(self.bn2(self.conv2(y))))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class AttentionPool2d(nn.Module):
    def __init__(self, places: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(places + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x]) + self.positional_embedding[:, None]
        biases = torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])
        answer, _ = nn.functional.multi_head_attention_forward(
            x,
            x,
            x,
            x.shape[-1],
            self.heads,
            None,
            biases,
            None,
            None,
            False,
            0.0,
            self.c_proj.weight,
            self.c_proj.bias,
            training=False,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
        )
        return answer[0]


class ModifiedResNet(nn.Module):
    def __init__(self, size: Size, layers: tuple[int, int, int, int]) -> None:
        super().__init__()
        width = size.image_width
        self.conv1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        self.layer1 = self._layer(width, width, layers[0], 1)
        self.layer2 = self._layer(width * 4, width * 2, layers[1], 2)
        self.layer3 = self._layer(width * 8, width * 4, layers[2], 2)
        self.layer4 = self._layer(width * 16, width * 8, layers[3], 2)
        places = (size.image_size // 32) ** 2
        self.attnpool = AttentionPool2d(places, width * 32, width * 32 // 64, size.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.avgpool(torch.relu(self.bn3(self.conv3(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.attnpool(x)
        return x

    def _layer(self, inplanes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [Bottleneck(planes * 4, planes, 1) for _ in range(blocks - 1)]
        return nn.Sequential(Bottleneck(inplanes, planes, stride), *rest)


@dataclass(frozen=True, slots=True)
class Size:
    """Heads are 64 wide in OpenAI's, which no checkpoint says."""

    vocabulary: int
    image_size: int = 48
    patch_size: int = 12
    image_width: int = 128
    image_heads: int = 2
    image_layers: int | tuple[int, int, int, int] = 3
    text_width: int = 128
    text_heads: int = 2
    text_layers: int = 2
    context_length: int = 24
    embed_dim: int = 40


class CLIP(nn.Module):
    """Weights are drawn wide, so that inputs differ in their vectors."""

    def __init__(self, size: Size, activation: type[nn.Module] = QuickGELU) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.side = size.image_size
        layers = size.image_layers
        self.visual: nn.Module
        if isinstance(layers, tuple):
            self.visual = ModifiedResNet(size, layers)
        else:
            self.visual = VisionTransformer(size, layers, activation)
        mask = torch.full((size.context_length,) * 2, float("-inf")).triu(1)
        self.transformer = Transformer(
            size.text_width, size.text_heads, size.text_layers, activation, mask
        )
        self.token_embedding = nn.Embedding(size.vocabulary, size.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(size.context_length, size.text_width))
        self.ln_final = nn.LayerNorm(size.text_width)
        self.text_projection = nn.Parameter(torch.randn(size.text_width, size.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(3.0))
        self._settle()

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_image(image), self.encode_text(text)

    def encode_image(self, image: Tensor) -> Tensor:
        """float32 [N, 3, S, S], normalised, to [N, D]."""
        vectors: Tensor = self.visual(image)
        return vectors

    def encode_text(self, text: Tensor) -> Tensor:
        """int64 [N, L], zeros behind the end token, to [N, D]."""
        x = self.token_embedding(text) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        vectors: Tensor = x[torch.arange(x.shape[0]), text.argmax(dim=-1)] @ self.text_projection
        return vectors

    @torch.no_grad()
    def _settle(self) -> None:
        """Let inputs through: as drawn, their differences die out in untrained layers."""
        for name, weights in self.named_parameters():
            if weights.ndim == 4:
                nn.init.kaiming_normal_(weights)
            elif name.endswith(("in_proj_weight", "out_proj.weight", "c_fc.weight")):
                weights.mul_(2)
        self.train()  # batch norms take up the statistics of noise
        for _ in range(3):
            self.visual(torch.randn(16, 3, self.side, self.side))
        self.eval()
