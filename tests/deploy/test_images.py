"""Dockerfiles, as far as they can be read; deploy/images/prove.py runs their steps."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_pods import ROOT, VERSION

IMAGES = ROOT / "deploy" / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
# Their digests could not be resolved where this was written.
BY_TAG_ONLY = {"nvcr.io/nvidia/tritonserver:26.09-py3", "nvcr.io/nvidia/tensorrt:26.09-py3"}


def lines(path: Path) -> list[str]:
    text = re.sub(r"\\\n\s*", "", path.read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def ids(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_bases_are_pinned(path: Path) -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)", path.read_text(), re.M)
    bases = set(re.findall(r"^FROM (\S+)", path.read_text(), re.M)) - {*stages, "scratch"}
    for base in bases - BY_TAG_ONLY:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base), base


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_images_end_as_another_user_than_root(path: Path) -> None:
    last = "\n".join(lines(path)).split("FROM ")[-1]
    assert re.findall(r"^USER (.*)$", last, re.M) == ["10001:10001"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_labels_and_tags_are_of_this_version(path: Path) -> None:
    text = path.read_text()
    assert "org.opencontainers.image.title=" in text
    versions = re.findall(r'image\.version="([^"]+)"', text)
    versions += re.findall(r"-t diptych/(?!models)\w+:(\S+)", text)
    assert set(versions) <= {VERSION}
    assert versions or path.stem == "models"


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_what_is_copied_is_there_and_in_the_context(path: Path) -> None:
    if path.stem == "models":  # its context is the model repository
        return
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if "!" in line]
    for line in lines(path):
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, f"{one}*") for one in let_in), source


@pytest.mark.parametrize("path", DOCKERFILES, ids=ids)
def test_everything_that_pip_installs_goes_through_a_file_of_pins(path: Path) -> None:
    for line in lines(path):
        if "pip install" in line:
            pinned = "PIP_CONSTRAINT=/src/constraints.txt" in path.read_text()
            assert pinned or ("--no-deps" in line and "requirements.txt" in line), line


def test_tritons_image_has_what_its_python_target_was_tested_with() -> None:
    text = (IMAGES / "triton.Dockerfile").read_text()
    assert "sed '/^nvidia-pytriton/d' constraints-triton.txt > requirements.txt" in text
    pins = (ROOT / "constraints-triton.txt").read_text()
    assert re.search(r"^nvidia-pytriton==", pins, re.M)
    assert re.search(r"^numpy==1\.", pins, re.M)
    assert re.search(r"^(openvino|onnxruntime)==", pins, re.M)


@pytest.mark.parametrize(
    ("extra", "there", "not_there"),
    [
        ("gateway", {"onnxruntime", "grpcio", "uvloop"}, {"torch", "pyarrow", "onnx"}),
        ("job", {"onnxruntime", "grpcio", "pyarrow"}, {"torch", "onnx"}),
        ("export", {"torch", "onnx", "pyarrow", "grpcio"}, {"pytest", "mypy"}),
    ],
)
def test_the_layer_of_dependencies_is_what_the_extra_needs(
    extra: str, there: set[str], not_there: set[str]
) -> None:
    script = [sys.executable, str(IMAGES / "requirements.py"), extra]
    with (ROOT / "pyproject.toml").open() as project:
        needs = subprocess.check_output(script, stdin=project, text=True).splitlines()
    names = {re.split(r"[^\w.-]", need)[0] for need in needs}
    assert there <= names
    assert not not_there & names
    assert "diptych" not in names
