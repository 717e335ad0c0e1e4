"""The gate's other side for OpenAI's and OpenCLIP's checkpoints: their arithmetic, told again.

Works on the weights under their own names, with torch's functions alone: it shares nothing with
the towers that are exported. Rules: openai/CLIP, clip/model.py and clip/clip.py; the same in
open_clip, transformer.py, modified_resnet.py and transform.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diptych.contract import Canary, ImageSpec, TextSpec, canary_pixels, canary_tokens
from diptych_export.graph import more_states
from diptych_export.resnet import ResNetSize
from diptych_export.sources.architecture import Architecture, Stack
from diptych_export.sources.base import Array
from diptych_export.sources.bpe import Merges, PlainTokenizer
from diptych_export.sources.library import unit

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class PublishedReference:
    """Answers as a user of openai/CLIP or open_clip gets them, one input at a time."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        whole: Architecture,
        image: ImageSpec,
        text: TextSpec,
        merges: Merges,
    ) -> None:
        self._weights = weights
        self._whole = whole
        self._spec = image
        self._limit = text.context_length
        self._tokenizer = PlainTokenizer(merges)

    def image(self, file: bytes) -> dict[str, Array]:
        return self._image(square(Image.open(io.BytesIO(file)), self._spec))

    def text(self, text: str, layers: int = 0) -> dict[str, Array]:
        return self._text(self._tokenizer.ids(text, self._limit), layers)

    def canary(self, image: ImageSpec, text: TextSpec) -> Canary:
        return Canary(
            image=unit(self._image(Image.fromarray(canary_pixels(image)))["image_embeds"]),
            text=unit(self._text(canary_tokens(text).tolist())["text_embeds"]),
        )

    @torch.inference_mode()
    def _image(self, picture: Image.Image) -> dict[str, Array]:
        side, mean, std = self._spec.size, self._spec.mean, self._spec.std
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        planes = values.view(side, side, 3).permute(2, 0, 1).float() / 255
        planes = (planes - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        return _arrays(encode_image(self._weights, planes[None], self._whole))

    @torch.inference_mode()
    def _text(self, ids: list[int], layers: int = 0) -> dict[str, Array]:
        return _arrays(encode_text(self._weights, torch.tensor([ids]), self._whole, layers))


def square(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    """Resize, crop the centre, make it RGB: torchvision's arithmetic, with Pillow."""
    (width, height), to = picture.size, spec.resize_to
    if spec.resize == "squash":
        size = (to, to)
    elif width <= height:
        size = (to, int(to * height / width))
    else:
        size = (int(to * width / height), to)
    resized = picture.resize(size, _FILTERS[spec.interpolation])
    left, top = (round((side - spec.size) / 2.0) for side in size)
    cropped = resized.crop((left, top, left + spec.size, top + spec.size))
    cropped.info.pop("transparency", None)  # Pillow warns of what it then drops
    return cropped.convert("RGB")


def encode_image(w: Mapping[str, Tensor], values: Tensor, whole: Architecture) -> dict[str, Tensor]:
    """float32 [N, 3, S, S], normalised, to the outputs of the image tower by name."""
    if isinstance(whole.vision, ResNetSize):
        return {"image_embeds": _resnet(w, values, whole.vision)}
    stack = whole.vision.stack
    x = F.conv2d(values, w["visual.conv1.weight"], stride=whole.vision.patch_size)
    x = x.flatten(2).transpose(1, 2)
    first = w["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + w["visual.positional_embedding"]
    x = _norm(w, "visual.ln_pre", x, stack)
    states = [x]
    for number in range(stack.layers):
        name = f"visual.transformer.resblocks.{number}"
        states.append(_block(w, name, states[-1], whole, stack, causal=False))
    pooled = _norm(w, "visual.ln_post", states[-1][:, 0], stack)
    return {"image_embeds": pooled @ w["visual.proj"], "penultimate_hidden_state": states[-2]}


def encode_text(
    w: Mapping[str, Tensor], ids: Tensor, whole: Architecture, layers: int = 0
) -> dict[str, Tensor]:
    """int64 [N, L'] to the outputs of the text tower by name, with so many last `layers`."""
    x = w["token_embedding.weight"][ids] + w["positional_embedding"][: ids.shape[1]]
    states = [x]
    for number in range(whole.text.layers):
        name = f"transformer.resblocks.{number}"
        states.append(_block(w, name, states[-1], whole, whole.text, causal=True))
    last = _norm(w, "ln_final", states[-1], whole.text)
    pooled = last[torch.arange(len(ids)), ids.argmax(dim=-1)]
    more = {
        name: _norm(w, "ln_final", states[-1 - layer], whole.text) if norm else states[-1 - layer]
        for layer, norm, name in more_states(layers)
    }
    return more | {
        "text_embeds": pooled @ w["text_projection"],
        "last_hidden_state": last,
        "penultimate_hidden_state": states[-2],
        "pooled": pooled,
    }


def _norm(w: Mapping[str, Tensor], name: str, x: Tensor, stack: Stack) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], stack.epsilon)


def _block(
    w: Mapping[str, Tensor],
    name: str,
    x: Tensor,
    whole: Architecture,
    stack: Stack,
    *,
    causal: bool,
) -> Tensor:
    """`ResidualAttentionBlock`, batch first."""
    length = x.shape[1]
    mask = torch.full((length, length), float("-inf")).triu(1) if causal else None
    y = _norm(w, f"{name}.ln_1", x, stack).transpose(0, 1)
    y, _ = F.multi_head_attention_forward(
        y,
        y,
        y,
        embed_dim_to_check=stack.width,
        num_heads=stack.heads,
        in_proj_weight=w[f"{name}.attn.in_proj_weight"],
        in_proj_bias=w[f"{name}.attn.in_proj_bias"],
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=w[f"{name}.attn.out_proj.weight"],
        out_proj_bias=w[f"{name}.attn.out_proj.bias"],
        training=False,
        need_weights=False,
        attn_mask=mask,
    )
    x = x + y.transpose(0, 1)
    y = _linear(w, f"{name}.mlp.c_fc", _norm(w, f"{name}.ln_2", x, stack))
    y = y * torch.sigmoid(1.702 * y) if whole.activation == "quick_gelu" else F.gelu(y)
    return x + _linear(w, f"{name}.mlp.c_proj", y)


def _linear(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _resnet(w: Mapping[str, Tensor], x: Tensor, size: ResNetSize) -> Tensor:
    """`ModifiedResNet`, block by block."""
    x = F.relu(_conv(w, "visual", 1, x, stride=2, padding=1))
    x = F.relu(_conv(w, "visual", 2, x, padding=1))
    x = F.avg_pool2d(F.relu(_conv(w, "visual", 3, x, padding=1)), 2)
    for stage, blocks in enumerate(size.layers, start=1):
        for number in range(blocks):
            name = f"visual.layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            y = F.relu(_conv(w, name, 1, x))
            y = F.avg_pool2d(F.relu(_conv(w, name, 2, y, padding=1)), stride)
            if f"{name}.downsample.0.weight" in w:
                x = F.conv2d(F.avg_pool2d(x, stride), w[f"{name}.downsample.0.weight"])
                x = _batch_norm(w, f"{name}.downsample.1", x)
            x = F.relu(_conv(w, name, 3, y) + x)
    return _attention_pool(w, x, size)


def _conv(
    w: Mapping[str, Tensor], name: str, number: int, x: Tensor, stride: int = 1, padding: int = 0
) -> Tensor:
    """Convolution `number` of a block, and the norm behind it."""
    x = F.conv2d(x, w[f"{name}.conv{number}.weight"], stride=stride, padding=padding)
    return _batch_norm(w, f"{name}.bn{number}", x)


def _batch_norm(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"])


def _attention_pool(w: Mapping[str, Tensor], x: Tensor, size: ResNetSize) -> Tensor:
    name = "visual.attnpool"
    x = x.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(dim=0, keepdim=True), x]) + w[f"{name}.positional_embedding"][:, None]
    parts = [f"{name}.{letter}_proj" for letter in "qkv"]
    answer, _ = F.multi_head_attention_forward(
        x,
        x,
        x,
        embed_dim_to_check=x.shape[-1],
        num_heads=size.heads,
        in_proj_weight=torch.cat([w[f"{part}.weight"] for part in parts]),
        in_proj_bias=torch.cat([w[f"{part}.bias"] for part in parts]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=w[f"{name}.c_proj.weight"],
        out_proj_bias=w[f"{name}.c_proj.bias"],
        training=False,
        need_weights=False,
    )
    return answer[0]


def _arrays(outputs: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: values[0].numpy() for name, values in outputs.items()}
