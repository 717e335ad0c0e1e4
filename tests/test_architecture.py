"""The floors of the house. Imports point down, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Top floor first. A module may import from any floor below its own, never beside or above.
FLOORS = [
    ["diptych_export.__main__"],
    ["diptych_export.cli"],
    ["diptych_export.*"],  # with steps of its own
    ["diptych.__main__"],
    ["diptych.cli"],
    [
        "diptych.commands.keys",
        "diptych.commands.models",
        "diptych.commands.moderate",
        "diptych.commands.condition",
        "diptych.commands.policy",
    ],
    ["diptych.commands.common"],
    ["diptych.commands.job"],
    ["diptych.commands.connection"],
    ["diptych.job.progress", "diptych.job.scale"],
    ["diptych.job.destination", "diptych.job.launch"],
    ["diptych.job.run"],
    ["diptych.job.embedders"],
    ["diptych.gateway.server", "diptych.gateway.workers", "diptych.demo"],
    ["diptych.gateway.access"],
    ["diptych.gateway.identity_interceptor"],
    [
        "diptych.gateway.servicers",
        "diptych.gateway.moderating",
        "diptych.gateway.conditioning",
        "diptych.gateway.interceptors",
        "diptych.gateway.probing",
        "diptych.gateway.rollout",
        "diptych.gateway.tls",
    ],
    [
        "diptych.gateway.stream",
        "diptych.gateway.entrance",
        "diptych.gateway.translate_moderation",
        "diptych.gateway.translate_conditioning",
        "diptych.gateway.opening",
        "diptych.gateway.health",
        "diptych.gateway.gauges",
        "diptych.gateway.access_log",
        "diptych.gateway.exposition",
        "diptych.gateway.tracing",
    ],
    [
        "diptych.gateway.translate",
        "diptych.gateway.identity",
        "diptych.gateway.policing",
        "diptych.gateway.judgement_bytes",
    ],
    [
        "diptych.gateway.status",
        "diptych.gateway.telemetry",
        "diptych.gateway.served",
        "diptych.gateway.rules",
        "diptych.gateway.callers",
        "diptych.gateway.watching",
        "diptych.gateway.paths",
    ],
    ["diptych.moderation", "diptych.conditioning"],
    ["diptych.concepts", "diptych.policy_files", "diptych.wishes"],
    ["diptych.scorer", "diptych.policies", "diptych.conditioner"],
    ["diptych.labels", "diptych.profile_files", "diptych.conditioning_tensors"],
    ["diptych.encoder", "diptych.states", "diptych.profiles", "diptych.prompts"],
    [
        "diptych.towers",
        "diptych.decoding",
        "diptych.canary",
        "diptych.client",
        "diptych.settings",
        "diptych.engines.triton_supervisor",
    ],
    ["diptych.client_moderation", "diptych.client_conditioning"],
    [
        "diptych.client_channel",
        "diptych.client_access",
        "diptych.wire_moderation",
        "diptych.wire_conditioning",
    ],
    ["diptych.job.cutting", "diptych.job.shards", "diptych.job.preview"],
    ["diptych.job.sources", "diptych.job.manifest"],
    ["diptych.job.plan", "diptych.job.items"],
    ["diptych.job.tars", "diptych.job.tables"],
    ["diptych.job.places", "diptych.job.files", "diptych.job.patience"],
    [
        "diptych.engines.embedded",
        "diptych.engines.triton",
        "diptych.engines.triton_server",
        "diptych.wire",
        "diptych.testing",
    ],
    [
        "diptych.text_calls",
        "diptych.engines.breaker",
        "diptych.engines.triton_checks",
        "diptych.engines.triton_install",
        "diptych.engines.triton_wire",
    ],
    [
        "diptych.preprocess.packing",
        "diptych.engines.triton_rows",
        "diptych.engines.onnx_graph",
        "diptych.engines.openvino_graph",
    ],
    [
        "diptych.repository",
        "diptych.preprocess.*",
        "diptych.scoring",
        "diptych.batching",
        "diptych.admission",
        "diptych.cache",
        "diptych.metrics",
        "diptych.engines.base",
    ],
    [
        "diptych.suspects",
        "diptych.pace",
        "diptych.quotas",
        "diptych.strict_yaml",
        "diptych.wire_errors",
        "diptych.hosts",
    ],
    [
        "diptych.contract",
        "diptych.errors",
        "diptych.threads",
        "diptych.tracing",
        "diptych.disk",
        "diptych.external_data",
        "diptych.v1.*",
    ],
]

# Who may import what is heavy, by module.
OWNERS = {
    "torch": "diptych_export",
    "transformers": "diptych_export",
    "onnx": "diptych_export",
    "onnxscript": "diptych_export",
    "onnxruntime": "diptych.engines.onnx_graph|diptych_export",
    "openvino": "diptych.engines.openvino_graph|diptych_export",
    "opentelemetry": "diptych.gateway.tracing",
    "tritonclient": "diptych.engines.triton|diptych_export",
    "PIL": "diptych.preprocess.images|diptych_export",
    "tokenizers": "diptych.preprocess.text|diptych_export",
    "grpc": "diptych.gateway|diptych.client|diptych.engines.triton|diptych.v1",
    "pyarrow": "diptych.job|diptych_export",
    "fsspec": "diptych.job|diptych_export",
    "ray": "diptych.job.scale",
    "prometheus_client": "diptych.metrics|diptych.gateway.exposition|diptych.gateway.workers",
}


def sources() -> Iterator[tuple[str, Path]]:
    for top in ("service", "export"):
        for path in (ROOT / top).rglob("*.py"):
            yield ".".join(path.relative_to(ROOT / top).with_suffix("").parts), path


def imports(name: str, path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name: str) -> int | None:
    """How high `name` lives: the longest pattern that fits, or None outside the house."""
    best: tuple[int, int] | None = None
    for height, patterns in enumerate(reversed(FLOORS)):
        for pattern in patterns:
            stem = pattern.removesuffix(".*")
            if (name == stem or name.startswith(stem + ".")) and (not best or len(stem) > best[0]):
                best = (len(stem), height)
    return best[1] if best else None


MODULES = [pytest.param(name, path, id=name) for name, path in sorted(sources())]


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_imports_point_down(name: str, path: Path) -> None:
    if name.endswith("__init__") or ".v1." in name:
        return
    here = floor(name)
    assert here is not None, f"{name} has no floor: give it one"
    for target in imports(name, path):
        there = floor(target)
        own_package = here == floor("diptych_export.x") == there  # its steps are its own affair
        assert there is None or there < here or own_package, f"{name} must not import {target}"


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_heavy_packages_have_one_home(name: str, path: Path) -> None:
    for target in imports(name, path):
        owner = OWNERS.get(target.split(".")[0])
        assert owner is None or any(name.startswith(o) for o in owner.split("|")), (
            f"{target} belongs to {owner}, not to {name}"
        )


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_modules_and_functions_stay_small(name: str, path: Path) -> None:
    if ".v1." in name:
        return
    text = path.read_text()
    assert text.count("\n") <= 300, f"{name} is longer than 300 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 50, f"{name}.{node.name} is longer than 50 lines"


@pytest.mark.parametrize(
    ("module", "barred"),
    [
        (
            "diptych.client",
            ["PIL", "tokenizers", "onnxruntime", "tritonclient", "torch", "pydantic", "cyclopts"],
        ),
        ("diptych.cli", ["torch", "transformers", "onnx", "onnxscript"]),
    ],
)
def test_imports_without(module: str, barred: list[str]) -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({barred!r})); import {module}"
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, cwd=ROOT / "service")
