"""The way back from a roll-out, as a user goes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from diptych import repository
from diptych_export.triton_config import fingerprints
from tests.serving import REPOSITORY, SHAPES


def republish(root: Path, version: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diptych_export", "republish", "--repository", str(root)]
    command += ["--name", "shapes", "--version", str(version), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_older_version_is_the_newest_once_more_or_nothing_changes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in SHAPES.spec.folders.values():
        shutil.copytree(REPOSITORY / folder, root / folder)
    done = republish(root, 1)
    old = SHAPES.spec.fingerprint
    assert json.loads(done.stdout) == {"model": "shapes", "version": 2, "fingerprint": old}
    assert repository.load(root, "shapes").spec == SHAPES.spec.model_copy(update={"version": 2})
    for folder in SHAPES.spec.folders.values():
        config = (root / folder / "config.pbtxt").read_text()
        assert {f'key: "fingerprint_{n}"' for n in (1, 2)} <= {
            line.strip() for line in config.splitlines()
        }
        assert fingerprints(root / folder) == {1: old, 2: old}

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    failed = republish(root, 9)
    assert failed.returncode == 1
    assert "no version 9; there are: [2, 1]" in failed.stderr
    assert "Traceback" not in failed.stderr
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path for path in before.keys() | after.keys() if path.is_file()} == {
        path for path in before if path.is_file()
    }
