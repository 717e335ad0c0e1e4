"""The virtual environment of tritonserver is made once, and anew when the pins change."""

from __future__ import annotations

import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from diptych.engines.triton_install import Installed, install
from diptych.errors import EngineUnavailable

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
INFO = "stand_in-1.dist-info"


def pinned(folder: Path, stub_for: str = VERSION) -> Path:
    """Pins of a stand-in for the wheel: the same files, empty, and no index is asked for it."""
    wheel = folder / "stand_in-1-py3-none-any.whl"
    root = "pytriton/tritonserver"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{root}/bin/tritonserver", "")
        archive.writestr(f"{root}/backends/python/libtriton_python.so", "")
        stub = f"{root}/python_backend_stubs/{stub_for}/triton_python_backend_stub"
        archive.writestr(stub, "the stub")
        archive.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: stand-in\nVersion: 1\n")
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{INFO}/RECORD", "")
    pins = folder / "pins.txt"
    pins.write_text(f"{wheel}\n")
    return pins


def stub(installed: Installed) -> Path:
    return installed.backends / "python" / "triton_python_backend_stub"


def test_everything_is_where_it_must_be(tmp_path: Path) -> None:
    installed = install(tmp_path / "venv", pinned(tmp_path))
    assert installed.server.is_file()
    assert (installed.programs / "python").exists()
    assert stub(installed).read_text() == "the stub"
    assert [link.name for link in installed.libraries.iterdir()] == [f"libpython{VERSION}.so.1.0"]


def test_it_is_made_once_and_anew_for_other_pins(tmp_path: Path) -> None:
    pins = pinned(tmp_path)
    installed = install(tmp_path / "venv", pins)
    stub(installed).write_text("kept")
    assert install(tmp_path / "venv", pins) == installed
    assert stub(installed).read_text() == "kept"
    pins.write_text(pins.read_text() + "# another version\n")
    install(tmp_path / "venv", pins)
    assert stub(installed).read_text() == "the stub"


def test_what_pip_says_is_passed_on(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text(f"{tmp_path}/missing-1-py3-none-any.whl\n")
    with pytest.raises(EngineUnavailable, match=r"cannot be installed here: .*missing-1"):
        install(tmp_path / "venv", pins)
    with pytest.raises(EngineUnavailable):  # and it does not pass for installed
        install(tmp_path / "venv", pins)


def test_a_python_without_a_stub_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=f"no stub for Python {VERSION}"):
        install(tmp_path / "venv", pinned(tmp_path, stub_for="2.7"))


def test_a_python_without_its_library_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = pinned(tmp_path)
    install(tmp_path / "venv", pins)
    pins.write_text(pins.read_text() + "# another version\n")
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"libpython.* is not installed"):
        install(tmp_path / "venv", pins)


def test_without_pins_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pins\.txt"):
        install(tmp_path / "venv", tmp_path / "pins.txt")
