"""A real tritonserver from PyPI, in a virtual environment of its own.

The wheel of `nvidia-pytriton` carries the server, the Python backend, and one stub of it per
version of Python. The rest of that package is not used.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import EngineUnavailable

log = logging.getLogger(__name__)

PINS = Path("constraints-triton.txt")
VENV = Path(".venv-triton")

_STUB = "triton_python_backend_stub"


@dataclass(frozen=True, slots=True)
class Installed:
    """Where the parts of a tritonserver are."""

    server: Path  # the executable
    backends: Path  # a folder per backend
    programs: Path  # of the virtual environment the Python backend runs in
    libraries: Path  # what its stub needs and the system's loader may not find


def install(folder: Path = VENV, pins: Path = PINS) -> Installed:
    """Make the virtual environment in `folder`, unless it is there with these very `pins`.

    Takes seconds the first time; safe to call from several processes at once.

    Raises:
        EngineUnavailable: this machine or this Python cannot run it, or pip failed.
        OSError: `pins` cannot be read, or `folder` not be written.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "installed.txt"
    wanted = f"{sys.version}\n{pins.read_text()}"
    with _locked(folder / ".lock"):
        if not done.exists() or done.read_text() != wanted:
            _fill(folder, pins)
            done.write_text(wanted)
    return _parts(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield


def _fill(folder: Path, pins: Path) -> None:
    log.info("installing tritonserver into %s", folder)
    venv.create(folder, symlinks=True)
    # This environment's pip, told to install there: making another takes longer than the rest.
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--requirement", str(pins)]
    done = subprocess.run([*pip, "install", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-2:])
        raise EngineUnavailable(f"tritonserver cannot be installed here: {last}")
    parts = _parts(folder)
    _place_stub(parts.backends / "python")
    # Nothing but the model belongs in a model repository. The stub heeds no PYTHON… variable.
    packages = parts.server.parents[3]
    (packages / "sitecustomize.py").write_text("import sys\n\nsys.dont_write_bytecode = True\n")
    parts.libraries.mkdir(exist_ok=True)
    _link_libpython(parts.libraries)


def _parts(folder: Path) -> Installed:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    root = folder / "lib" / python / "site-packages" / "pytriton" / "tritonserver"
    return Installed(
        server=root / "bin" / "tritonserver",
        backends=root / "backends",
        programs=folder / "bin",
        libraries=folder / "libraries",
    )


def _place_stub(backend: Path) -> None:
    """Put the stub of this Python's version where the backend looks for it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = backend.parents[1] / "python_backend_stubs" / version / _STUB
    if not stub.is_file():
        raise EngineUnavailable(f"tritonserver's wheel has no stub for Python {version}")
    shutil.copy(stub, backend / _STUB)  # not a link: it finds its libraries from where it lies


def _link_libpython(folder: Path) -> None:
    """Link the library that holds this Python; the stub embeds it.

    A folder with nothing else in it: a whole library folder on the loader's path would give the
    server other versions of what its wheel brings along.
    """
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    places = [sysconfig.get_config_var(key) for key in ("LIBDIR", "LIBPL")]
    places += [f"{sys.base_prefix}/lib", f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"]
    for place in filter(None, places):
        found = Path(place) / name
        if found.is_file():
            link = folder / name
            link.unlink(missing_ok=True)
            os.symlink(found, link)
            return
    raise EngineUnavailable(f"{name} is not installed; tritonserver's Python stub needs it")
