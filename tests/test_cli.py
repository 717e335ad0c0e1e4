"""The command line as a user meets it: real processes, real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.drawing import PICTURES
from tests.serving import REPOSITORY, SHAPES

ROOT = Path(__file__).parents[1]
CIRCLE = str(PICTURES / "red_circle.png")


def diptych(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "diptych", *args],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **env},
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def serve(*args: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A serving process, and what it printed up to `listening on`."""
    command = [sys.executable, "-m", "diptych", "serve", "--repository", str(REPOSITORY)]
    command += ["--host", "127.0.0.1", "--port", "0", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed: list[str] = []
    for line in process.stdout:
        printed.append(line.rstrip())
        if line.startswith("listening on "):
            return process, printed
    raise AssertionError("\n".join(printed))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process, printed = serve()
    yield printed[-1].removeprefix("listening on ")
    process.terminate()
    process.communicate(timeout=30)  # closes its pipe too
    assert process.returncode == 0


def test_serve_says_what_it_serves_and_stops_cleanly_when_told() -> None:
    process, printed = serve("--metrics-port", "0")
    text = "\n".join(printed)
    assert f"fingerprint {SHAPES.spec.fingerprint}" in text
    assert re.search(r"engine (openvino|onnxruntime) \S+, CPU, \w+, \d+ threads", text)
    assert "metrics on http://127.0.0.1:" in text
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopping" in rest
    assert "Traceback" not in rest


def test_a_server_never_searches_what_it_imported_for_garbage() -> None:
    """It would take 60 ms, in which no call moves."""
    told = """
import gc, diptych.cli
from diptych.errors import BadRepository
def gateway(*_, **__): raise BadRepository(f"{gc.get_freeze_count()} kept, {len(gc.get_objects())}")
diptych.cli.gateway = gateway
diptych.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", told, "serve"], capture_output=True, text=True)
    kept, searched = map(int, re.findall(r"\d+", done.stderr))
    assert kept > 20 * searched


def test_embed_prints_one_line_per_input_in_the_order_given(address: str) -> None:
    done = diptych(
        "embed", "--address", address, "--text", "a=b", "--image", CIRCLE, "--text", "c", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = lines(done)
    assert [(line["kind"], line["input"]) for line in found] == [
        ("text", "a=b"),
        ("image", CIRCLE),
        ("text", "c"),
    ]
    for line in found:
        assert set(line) == {"kind", "input", "embedding", "model", "fingerprint"}
        assert line["fingerprint"] == SHAPES.spec.fingerprint
        vector = np.array(line["embedding"], dtype=np.float32)
        np.testing.assert_allclose(np.linalg.norm(vector), 1.0, rtol=1e-5)


def test_embed_prints_what_it_could_and_says_what_it_could_not(
    address: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"broken")
    done = diptych("embed", "--address", address, "--image", str(broken), "--text", "a", "--json")
    assert done.returncode == 1
    bad, good = lines(done)
    assert bad["error"]["code"] == "INVALID_ARGUMENT"  # type: ignore[index]
    assert "embedding" in good


def test_score_finds_the_right_caption(address: str) -> None:
    done = diptych(
        "score", "--address", address, "--image", CIRCLE, "--text", "a red circle",
        "--text", "a blue square", "--measure", "softmax", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [line] = lines(done)
    assert line["query"] == CIRCLE
    scores = line["scores"]
    assert isinstance(scores, dict)
    assert list(scores) == ["a red circle", "a blue square"]
    assert scores["a red circle"] > 0.9


def test_people_get_lines_and_tables(address: str) -> None:
    embedded = diptych("embed", "--address", address, "--text", "a star")
    assert "kind: text  input: a star  embedding: [" in embedded.stdout
    scored = diptych(
        "score", "--address", address, "--image", CIRCLE, "--text", "red", "--text", "blue",
        "--template", "a {} circle", "--top-k", "1",
    )  # fmt: skip
    assert "scores: {'red':" in scored.stdout
    listed = diptych("models", "--address", address)
    assert "shapes" in listed.stdout
    assert "inputs_per_request: 128" in listed.stdout
    [model] = lines(diptych("models", "--address", address, "--json"))
    assert model["space"]["fingerprint"] == SHAPES.spec.fingerprint  # type: ignore[index]


@pytest.mark.parametrize(
    ("args", "env", "status", "message"),
    [
        (["embed", "--address", "127.0.0.1:1", "--text", "a"], {}, 1, "connect"),
        (["embed", "--address", "127.0.0.1:1", "--image", "nowhere.png"], {}, 2, "nowhere.png"),
        (["embed", "--text", "a"], {}, 2, "--address"),
        (["serve", "--prot", "1"], {}, 2, "--prot"),
        (["serve", "--max-batch", "0"], {}, 2, "max_batch must be at least 1"),
        (["serve", "--drain-s", "-1"], {}, 2, "drain_s must not be negative"),
        (["serve"], {"DIPTYCH_PROT": "1"}, 2, "unknown settings: DIPTYCH_PROT"),
        (["serve"], {"DIPTYCH_PORT": "x"}, 2, "DIPTYCH_PORT"),
        (["serve", "--repository", "nowhere"], {}, 1, "nowhere: no such folder"),
        (["serve", "--model", "dalle"], {}, 1, "no model 'dalle'"),
        (["demo", "--pictures", "nowhere"], {}, 1, "nowhere: no pictures"),
        (["demo", "--repository", "nowhere"], {}, 1, "the gateway did not start"),
        (["dance"], {}, 2, "dance"),
    ],
)
def test_a_mistake_is_one_clear_line(
    args: list[str], env: dict[str, str], status: int, message: str
) -> None:
    done = diptych(*args, **env)
    assert done.returncode == status, done.stderr
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "embed", "score", "models", "demo"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = diptych(command, "--help")
    assert done.returncode == 0
    assert f"Example: diptych {command}" in done.stdout


def test_the_demonstration_runs_to_its_end() -> None:
    started = time.monotonic()
    done = diptych("demo")
    assert done.returncode == 0, done.stderr
    for part in (
        "listening on",
        "red circle",
        "fingerprint",
        "engine",
        "gateway: stopped, status 0",
    ):
        assert part in done.stdout
    assert time.monotonic() - started < 60
