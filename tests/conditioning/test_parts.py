"""Large replies: half the bytes, or in parts."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
import torch

from diptych.client import AsyncClient
from diptych.v1 import conditioning_pb2 as pb
from diptych.v1 import embedding_pb2
from diptych.wire_conditioning import Conditioning, ConditionReply
from tests.conditioning.conftest import LONG, TEXT, TEXT_2

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

BOTH = Conditioning(models=(TEXT, TEXT_2))


def embeds(reply: ConditionReply) -> np.ndarray[Any, Any]:
    return reply.tensors["prompt_embeds"]


async def test_half_precision_and_parts_hold_the_same_numbers(client: AsyncClient) -> None:
    whole = await client.condition("sdxl", [LONG] * 40, "a photo", how=BOTH)
    parts = await client.condition("sdxl", [LONG] * 40, "a photo", how=BOTH, in_parts=True)
    assert sum(tensor.nbytes for tensor in whole.tensors.values()) > 4 * 2**20
    assert list(parts.tensors) == list(whole.tensors)
    for name, tensor in whole.tensors.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(parts.tensors[name], tensor)
    half = await client.condition(
        "sdxl", "a red dog", how=Conditioning(models=(TEXT, TEXT_2), half=True)
    )
    assert {tensor.dtype for tensor in half.tensors.values()} == {np.dtype(np.float16)}
    full = await client.condition("sdxl", "a red dog", how=BOTH)
    np.testing.assert_allclose(embeds(half), embeds(full), rtol=2e-3, atol=2e-3)
    tensors = full.arguments(torch=True)
    assert tensors["prompt_embeds"].dtype == torch.float32


async def test_a_stream_answers_requests_in_order_and_ends_with_the_first_that_fails(
    client: AsyncClient,
) -> None:
    good = [pb.ConditionRequest(profile="sd15", prompts=[pb.Prompt(text=t)]) for t in "ab"]
    bad = pb.ConditionRequest(profile="sd15", data_type=embedding_pb2.DATA_TYPE_BOOL)
    stub: Any = client._conditioning
    call = stub.ConditionStream(
        iter([pb.ConditionStreamRequest(request=one) for one in (*good, bad)])
    )
    parts: list[pb.ConditionStreamResponse] = []

    async def read() -> None:
        async for part in call:
            parts.append(part)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "request.data_type" in str(caught.value.details())
    headers = [part.header for part in parts if part.HasField("header")]
    assert [header.profile for header in headers] == ["sd15", "sd15"]
    data = sum(len(part.data) for part in parts)
    assert data == 2 * 2 * 77 * 32 * 4
    assert not any(named.tensor.data for header in headers for named in header.tensors)
