from __future__ import annotations

from pathlib import Path

import pytest

from diptych import settings
from diptych.settings import Settings, check_environment, cores


def test_a_misspelt_variable_stops_the_start() -> None:
    check_environment({"DIPTYCH_PORT": "1", "PATH": "x"})
    with pytest.raises(ValueError, match="unknown settings: DIPTYCH_PROT"):
        check_environment({"DIPTYCH_PROT": "1"})
    check_environment({"DIPTYCH_CLIENT_KEY": "for the commands that are clients"})
    with pytest.raises(ValueError, match="unknown settings: DIPTYCH_API_KEY;"):
        check_environment({"DIPTYCH_API_KEY": "a file that would silently let everybody in"})


@pytest.mark.parametrize("name", ["max_batch", "max_inputs", "stream_inputs", "max_image_pixels"])
def test_a_bound_must_let_something_through(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Settings(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("150000 100000", 2), ("10000 100000", 1), ("900000 100000", 8), ("", 8)],
)
def test_cores_are_what_the_cgroup_grants(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(settings, "_CPU_MAX", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert cores() == expected
