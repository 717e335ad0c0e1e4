"""Scaled dot-product attention as few plain operators, for the exporter.

Its own translation turns the keys round by way of their shape, with twelve operators a layer that
engines neither fold away nor can plan before they know the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnxscript
import torch
from onnxscript import ir

op: Any = onnxscript.opset18  # its annotations do not fit values that are traced

# Not infinite: whoever sees nothing at all, as in a row of padding alone, would become NaN.
_NEVER = torch.finfo(torch.float32).min


def translation() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export` takes as `custom_translation_table`."""
    return {torch.ops.aten.scaled_dot_product_attention.default: _attention}


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,  # of training
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(Q Kᵀ scale + mask) V of [..., L, head dim], as torch's `scaled_dot_product_attention`
    defines it; a mask of booleans has True for what is seen."""
    if enable_gqa:  # no tower of the families that are read has it
        raise NotImplementedError("attention with fewer keys than queries has no translation")
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    scaled = op.Mul(query, op.Constant(value_float=float(scale)))
    weights = op.MatMul(scaled, op.Transpose(key, perm=_turned(key)))
    if is_causal:
        weights = op.Add(weights, _added(_seen_so_far(query, key)))
    elif attn_mask is not None:
        is_boolean = attn_mask.dtype == ir.DataType.BOOL
        weights = op.Add(weights, _added(attn_mask) if is_boolean else attn_mask)
    return op.MatMul(op.Softmax(weights, axis=-1), value)


def _turned(key: Any) -> list[int]:
    *others, rows, columns = range(len(key.shape))
    return [*others, columns, rows]


def _seen_so_far(query: Any, key: Any) -> Any:
    """True where the key's place is the query's or before it: [L, S]."""
    queries, keys = (op.Shape(states, start=-2, end=-1) for states in (query, key))
    every = op.Expand(op.Constant(value_int=1), op.Concat(queries, keys, axis=0))
    return op.Equal(op.Trilu(every, upper=0), op.Constant(value_int=1))


def _added(seen: Any) -> Any:
    nothing, never = (op.Constant(value_float=value) for value in (0.0, _NEVER))
    return op.Where(seen, nothing, never)
