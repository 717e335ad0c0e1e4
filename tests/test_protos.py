"""What is generated is what the protos say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = Path("diptych/v1")


def test_the_committed_stubs_are_current(tmp_path: Path) -> None:
    venv = Path(sys.executable).parents[1]
    command = ["make", "--silent", "protos", f"OUT={tmp_path}", f"VENV={venv}"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / GENERATED).iterdir()}
    committed = ROOT / "service" / GENERATED
    assert fresh == {name: (committed / name).read_text() for name in fresh}
    assert len(fresh) == 4 * len(list((ROOT / "protos" / GENERATED).glob("*.proto")))
