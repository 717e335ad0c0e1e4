"""A gateway never starts on a Triton that serves something else."""

from __future__ import annotations

import time

import pytest

from diptych.contract import Tower
from diptych.engines.base import EMBEDS, PIXELS, TOKENS
from diptych.engines.triton import TritonEngine
from diptych.errors import BadRepository, EngineUnavailable
from diptych.repository import ModelFiles
from tests.serving import SHAPES
from tests.triton.far_end import FarEnd

IMAGE, TEXT = (SHAPES.spec.folders[tower] for tower in Tower)


async def refusal(far_end: FarEnd, files: ModelFiles) -> str:
    with pytest.raises(BadRepository) as caught:
        await TritonEngine.connect(far_end.address, files)
    return str(caught.value)


async def test_another_fingerprint(far_end: FarEnd, files: ModelFiles) -> None:
    far_end.configs[TEXT].parameters["fingerprint_1"].string_value = "0123456789ab" + 52 * "f"
    ours = files.spec.fingerprint[:12]
    assert await refusal(far_end, files) == (
        f"Triton's {TEXT}: its fingerprint is 0123456789ab…, the gateway's repository has {ours}…"
    )


async def test_no_fingerprint(far_end: FarEnd, files: ModelFiles) -> None:
    far_end.configs[IMAGE].parameters.clear()
    assert "its fingerprint is missing (parameter fingerprint_1)" in await refusal(far_end, files)


async def test_a_tower_that_is_not_there(far_end: FarEnd, files: ModelFiles) -> None:
    del far_end.configs[TEXT]
    assert await refusal(far_end, files) == f"Triton at {far_end.address} does not serve {TEXT}"


async def test_no_batches(far_end: FarEnd, files: ModelFiles) -> None:
    far_end.configs[TEXT].max_batch_size = 0
    assert "max_batch_size is 0" in await refusal(far_end, files)


async def test_tensors_of_other_names_types_and_shapes(far_end: FarEnd, files: ModelFiles) -> None:
    size, width = SHAPES.spec.image.size, SHAPES.spec.embed_dim
    inputs, outputs = far_end.tensors[IMAGE]
    inputs[PIXELS] = ("FP32", (-1, 3, size, size))
    outputs[EMBEDS[Tower.IMAGE]] = ("FP32", (-1, width + 1))
    told = await refusal(far_end, files)
    assert f"input pixel_values is FP32 [-1, 3, {size}, {size}], it must be UINT8 [-1, " in told
    assert f"it must be FP32 [-1, {width}]" in told

    inputs, outputs = far_end.tensors[TEXT]
    inputs["token_type_ids"] = inputs.pop(TOKENS)
    del outputs["pooled"]
    far_end.tensors[IMAGE] = FarEnd(files).tensors[IMAGE]
    told = await refusal(far_end, files)
    assert "input input_ids is missing" in told
    assert "input token_type_ids is not known here" in told
    assert "output pooled is missing" in told


async def test_one_more_output_harms_nobody(far_end: FarEnd, files: ModelFiles) -> None:
    far_end.tensors[TEXT][1]["attentions"] = ("FP32", (-1, -1, -1))
    await (await TritonEngine.connect(far_end.address, files)).close()


async def test_another_version_is_waited_for_and_then_told(
    far_end: FarEnd, files: ModelFiles
) -> None:
    far_end.versions = ["7", "8"]
    with pytest.raises(EngineUnavailable, match="in version 7, 8; the gateway has 1"):
        await TritonEngine.connect(far_end.address, files, wait_s=0.3)


async def test_a_server_that_is_not_ready_is_waited_for(far_end: FarEnd, files: ModelFiles) -> None:
    far_end.ready = False
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="is not ready"):
        await TritonEngine.connect(far_end.address, files, wait_s=0.5)
    assert time.monotonic() - started >= 0.5


async def test_a_model_that_loads_is_waited_for(far_end: FarEnd, files: ModelFiles) -> None:
    far_end.loading = True
    with pytest.raises(EngineUnavailable, match="has no available versions"):
        await TritonEngine.connect(far_end.address, files, wait_s=0)


async def test_nobody_there(files: ModelFiles) -> None:
    with pytest.raises(EngineUnavailable, match=r"Triton at 127\.0\.0\.1:1: UNAVAILABLE"):
        await TritonEngine.connect("127.0.0.1:1", files, wait_s=0)
