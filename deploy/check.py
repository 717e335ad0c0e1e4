"""Everything that can be said of the deployment without a cluster: `make check-deploy`.

Renders every overlay and job and the components mixed, validates them against Kubernetes' schemas,
scans them and the Dockerfiles, and has promtool check what is monitored. Ends with status 1 if
anything is wrong; what could not be checked here is said, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from deploy import rendering

_BIN = rendering.TOOLS / "bin"
_SCHEMAS = "1.37.0"  # the newest that kubernetes-validate brings


def main() -> int:
    images = sorted(str(path) for path in (rendering.DEPLOY / "images").glob("*.Dockerfile"))
    failed = [] if _run("hadolint", [str(_BIN / "hadolint"), *images]) else ["hadolint"]
    failed += _check_manifests(images)
    if not _run("promtool", ["sh", str(rendering.DEPLOY / "monitoring" / "check.sh")]):
        failed.append("promtool")
    print(f"check-deploy: {'FAILED: ' + ', '.join(failed) if failed else 'clean'}")  # noqa: T201
    return 1 if failed else 0


def _check_manifests(images: Sequence[str]) -> list[str]:
    """The names of what found something."""
    started = time.monotonic()
    try:
        manifests = rendering.shipped() | rendering.mixed()
        with_what = " ".join(rendering.tool())
    except rendering.NoTool as reason:
        print(f"SKIPPED: manifests are neither rendered nor validated: {reason}")  # noqa: T201
        return [] if _run("checkov", _checkov(images)) else ["checkov"]
    except subprocess.CalledProcessError as error:
        print(error.stderr)  # noqa: T201
        return [f"rendering {error.cmd[-1]}"]
    _say(f"{with_what}: {len(manifests)} kustomizations", started)
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for name, text in manifests.items():
            path = Path(scratch) / f"{name}.yaml"
            path.write_text(text)
            files.append(str(path))
        checks = {
            "kubernetes-validate": [
                *(str(_BIN / "kubernetes-validate"), "--strict", "--quiet", "--no-warn"),
                *("-k", _SCHEMAS, *files),
            ],
            "checkov": _checkov([*files, *images]),
        }
        return [name for name, command in checks.items() if not _run(name, command)]


def _checkov(files: Sequence[str]) -> list[str]:
    config = rendering.DEPLOY / "tools" / "checkov.yaml"
    return [str(_BIN / "checkov"), "--config-file", str(config), "--file", *files]


def _run(name: str, command: Sequence[str]) -> bool:
    """Whether it found nothing; what it found is printed."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    is_clean = done.returncode == 0
    said = (done.stdout + done.stderr).strip()
    _say(f"{name}: {'clean' if is_clean else 'FOUND SOMETHING'}", started)
    if said and (not is_clean or "SKIPPED" in said):
        print(said)  # noqa: T201
    return is_clean


def _say(line: str, started: float) -> None:
    print(f"{line} ({time.monotonic() - started:.1f} s)", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
