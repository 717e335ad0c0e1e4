"""An id of the Hugging Face hub is read as a directory is; from the cache, without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PROGRAM = """
from diptych_export.errors import BadCheckpoint
from diptych_export.sources.opening import open_source

print(open_source("some/model").origin)
try:
    open_source("some/other")
except BadCheckpoint as error:
    print(error)
"""


def test_an_id_is_read_from_the_cache(directory: Callable[[str], Path], tmp_path: Path) -> None:
    cached = tmp_path / "models--some--model"
    shutil.copytree(directory("clip"), cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found, missing = answer.stdout.splitlines()
    assert found == "clip some/model"
    assert missing.startswith("some/other: We couldn't connect to")
    assert "Traceback" not in answer.stderr
