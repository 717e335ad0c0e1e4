"""`diptych models` on a model repository: what init containers run before a pod serves it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from diptych.commands.models import models
from diptych.errors import BadRepository
from tests.serving import REPOSITORY, SHAPES
from tests.test_cli import diptych, lines

FINGERPRINT = SHAPES.spec.fingerprint


def test_a_repository_is_listed_without_a_server() -> None:
    [model] = lines(diptych("models", "--repository", str(REPOSITORY), "--json"))
    assert (model["name"], model["version"]) == ("shapes", 1)
    assert model["fingerprint"] == FINGERPRINT


def test_a_repository_with_one_of_the_expected_fingerprints_passes() -> None:
    expected = f" {'0' * 64}  {FINGERPRINT} "
    assert diptych("models", "--repository", str(REPOSITORY), "--expect", expected).returncode == 0


def test_a_repository_with_another_fingerprint_is_refused() -> None:
    done = diptych("models", "--repository", str(REPOSITORY), "--expect", "0" * 64)
    assert done.returncode == 1
    assert f"shapes version 1 has the fingerprint {FINGERPRINT}; expected: 0000" in done.stderr


def test_one_changed_byte_of_a_graph_is_refused(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY, tmp_path / "models")
    graph = tmp_path / "models" / "shapes_text" / "1" / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    done = diptych("models", "--repository", str(tmp_path / "models"), "--expect", FINGERPRINT)
    assert done.returncode == 1
    assert "a file was changed after export" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "give --address or --repository"),
        ({"address": "a:1", "repository": REPOSITORY}, "give --address or --repository"),
        ({"address": "a:1", "expect": (FINGERPRINT,)}, "--expect is for a --repository"),
        ({"repository": REPOSITORY, "expect": (" ",)}, "names no fingerprint"),
        ({"repository": REPOSITORY, "expect": ("abc",)}, "'abc' is no fingerprint"),
        ({"repository": Path(__file__).parent}, "commands: no models"),
        ({"repository": Path("nowhere")}, "nowhere: no such folder"),
    ],
)
def test_a_mistake_says_what_is_wrong(args: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, BadRepository), match=re.escape(message)):
        models(**args)
