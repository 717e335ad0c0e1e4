"""`diptych condition`, and the client without asyncio."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from diptych.cli import app
from diptych.client import Client
from diptych.gateway.server import gateway
from diptych.wire_conditioning import Prompt
from tests.conditioning.conftest import IMAGE, LONG, TEXT, TEXT_2
from tests.serving import local

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_the_command_line_saves_tensors(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = local(repository=models, model=(TEXT, TEXT_2, IMAGE), precision="fp32")
    async with gateway(settings) as running:
        where = ["--address", running.address]
        saved = tmp_path / "cat.npz"
        arguments = [
            "condition", *where, "--profile", "sdxl", "--model", TEXT, "--model", TEXT_2,
            "--prompt", "a (red:1.2) dog", "--negative", LONG, "--save", str(saved), "--json",
        ]  # fmt: skip
        await asyncio.to_thread(command, *arguments)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        await asyncio.to_thread(command, "profiles", *where)
        listed = capsys.readouterr().out
        with_sync_client = await asyncio.to_thread(_sync, running.address)
    assert lines[0] == {"tensor": "prompt_embeds", "dtype": "float32", "shape": [1, 231, 64]}
    assert lines[-1]["negative"][0]["chunks"] == 3
    with np.load(saved) as arrays:
        assert arrays["prompt_embeds"].shape == (1, 231, 64)
    assert "ip_adapter_plus: " in listed
    assert with_sync_client == ["prompt_embeds", "negative_prompt_embeds"]


def command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    assert ended.value.code == 0


def _sync(address: str) -> list[str]:
    with Client(address) as client:
        first = client.condition("sd15", ["a", "b"], ["c", "d"])
        second = client.condition("sd15", [Prompt("a", "c"), Prompt("b", "d")], in_parts=True)
        assert client.profiles()
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(second.tensors[name], tensor)
    with pytest.raises(ValueError, match="2 negatives for 1 prompts"):
        client.condition("sd15", "a", ["b", "c"])
    return list(first.tensors)
