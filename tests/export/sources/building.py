"""`diptych-export build` as a person runs it, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from diptych_export import cli


def built(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """The JSON object of a build that succeeds."""
    cli.app(["build", *map(str, arguments), "--json"], result_action="return_value")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> str:
    """The one line with which a build ends that fails."""
    monkeypatch.setattr("sys.argv", ["diptych-export", "build", *map(str, arguments)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")
        with pytest.raises(SystemExit) as caught:
            cli.main()
    message = caught.value.code
    assert isinstance(message, str), "status 1 is for a line on stderr"
    assert message.startswith("diptych-export: ")
    assert "\n" not in message
    return message.removeprefix("diptych-export: ")


def contents(root: Path) -> dict[str, str]:
    """Every file and folder below `root`, with the digest of its bytes."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in root.rglob("*")
    }
