"""Attention in our graphs is torch's, in few operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.functional import scaled_dot_product_attention

from diptych_export import attention

_SEEN = torch.rand((5, 5), generator=torch.Generator().manual_seed(3)) > 0.4
_SEEN.fill_diagonal_(True)

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attending(nn.Module):
    def __init__(self, how: Attention) -> None:
        super().__init__()
        self.how = how

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.how(query, key, value)


def exported(how: Attention, states: tuple[Tensor, ...], path: Path) -> onnx.ModelProto:
    program = torch.onnx.export(
        Attending(how).eval(),
        states,
        dynamo=True,
        dynamic_shapes=tuple({0: Dim("batch")} for _ in states),
        custom_translation_table=attention.translation(),
        opset_version=20,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    return program.model_proto


def answered(how: Attention, states: tuple[Tensor, ...], path: Path) -> Any:
    """What ONNX Runtime makes of the graph."""
    exported(how, states, path)
    session = ort.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    inputs = {name: each.numpy() for name, each in zip(names, states, strict=True)}
    [found] = session.run(None, inputs)
    return found


def drawn(*shape: int) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(len(shape))
    return tuple(torch.randn(shape, generator=source) for _ in range(3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:# The axis name")
@pytest.mark.parametrize("shape", [(3, 2, 5, 8), (3, 5, 8)], ids=["heads", "no heads"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.7},
        {"is_causal": True},
        {"attn_mask": torch.where(_SEEN, 0.25, -torch.inf)},
        {"attn_mask": _SEEN},
    ],
    ids=["plain", "scale", "causal", "added mask", "boolean mask"],
)
def test_attention_is_that_of_torch(
    options: dict[str, Any], shape: tuple[int, ...], tmp_path: Path
) -> None:
    def how(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, value, **options)

    states = drawn(*shape)
    found = answered(how, states, tmp_path / "graph.onnx")
    np.testing.assert_allclose(found, how(*states).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:# The axis name")
def test_who_sees_nothing_is_a_number_all_the_same(tmp_path: Path) -> None:
    seen = _SEEN.clone()
    seen[2] = False

    def how(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, value, attn_mask=seen)

    states = drawn(3, 2, 5, 8)
    found = answered(how, states, tmp_path / "graph.onnx")
    assert np.isfinite(found).all()
    others = [0, 1, 3, 4]
    expected = how(*states).numpy()[:, :, others]
    np.testing.assert_allclose(found[:, :, others], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:# The axis name")
def test_keys_are_turned_round_without_a_look_at_their_shape(tmp_path: Path) -> None:
    graph = exported(scaled_dot_product_attention, drawn(3, 2, 5, 8), tmp_path / "graph.onnx").graph
    assert [node.op_type for node in graph.node if node.op_type != "Constant"] == [
        "Mul",
        "Transpose",
        "MatMul",
        "Softmax",
        "MatMul",
    ]
