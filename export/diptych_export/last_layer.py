"""The last layer of an encoder, at the places alone that a vector is read off.

An embedding is the last state of one token. Keys and values are needed of every token, but the rest
of that layer, five sixths of its products, only of that one: 5 to 7 % of a tower of twelve layers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.altclip.modeling_altclip import AltCLIPEncoderLayer
from transformers.models.chinese_clip.modeling_chinese_clip import ChineseCLIPVisionLayer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.metaclip_2.modeling_metaclip_2 import MetaClip2EncoderLayer

# Word for word the same under four names.
_LAYERS = (CLIPEncoderLayer, MetaClip2EncoderLayer, AltCLIPEncoderLayer, ChineseCLIPVisionLayer)


def last_layer(encoder: nn.Module) -> LastLayer | None:
    """Of a transformers text or vision model; None where its layers are none of those known."""
    layers: Any = getattr(getattr(encoder, "encoder", None), "layers", None)
    return LastLayer(layers[-1]) if layers and isinstance(layers[-1], _LAYERS) else None


class LastLayer:
    """Computes what the layer would, where asked."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def at(self, own: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the layer makes of `own` [B, P, H], which are some of its inputs [B, L, H].

        `mask` [B, 1, P, L] is added to the weights of attention. As `CLIPEncoderLayer.forward`
        (transformers, modeling_clip.py).
        """
        layer, attention = self._layer, self._layer.self_attn
        every = layer.layer_norm1(states)
        heeded = nn.functional.scaled_dot_product_attention(
            self._heads(attention.q_proj(layer.layer_norm1(own))),
            self._heads(attention.k_proj(every)),
            self._heads(attention.v_proj(every)),
            attn_mask=mask,
            scale=attention.scale,
        )
        own = own + attention.out_proj(heeded.transpose(1, 2).flatten(2))
        made: Tensor = own + layer.mlp(layer.layer_norm2(own))
        return made

    def _heads(self, values: Tensor) -> Tensor:
        """[B, N, H] to [B, heads, N, head dim]."""
        parted: Tensor = values.unflatten(-1, (self._layer.self_attn.num_heads, -1))
        return parted.transpose(1, 2)
