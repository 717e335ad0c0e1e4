"""Roots to run a Dockerfile's steps in: a Debian of its own, or a bare folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# What pip and OpenSSL of this machine are told: without it there may be no packages to be had.
_TOLD = ("PIP_", "SSL_CERT_")
_STEPS = ("/opt/diptych", "/src")  # where steps put things


class Root:
    """Runs steps, and then what they made with nothing writable but /tmp."""

    path = os.defpath + ":/usr/local/bin:/usr/sbin:/sbin"

    def __init__(self, place: Path) -> None:
        self.place = place

    def inside(self, path: str) -> Path:
        """Where a path of the image is on this machine."""
        return self.place / path.lstrip("/")

    def make(self, folder: str) -> None:
        self.inside(folder).mkdir(parents=True, exist_ok=True)

    def run(self, command: Sequence[str], *, env: Mapping[str, str], workdir: str) -> None:
        """Run a step; it may write.

        Raises:
            CalledProcessError: it failed; what it said is above.
        """
        told = {name: value for name, value in os.environ.items() if name.startswith(_TOLD)}
        argv = self._argv(command, {**told, **env}, workdir)
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    def output(self, command: Sequence[str], *, env: Mapping[str, str], user: int = 0) -> str:
        """What a command prints that may not write.

        Raises:
            SystemExit: it failed; with what it said.
        """
        done = self._ended(command, env, user)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)[:200]}: {done.returncode}\n{done.stderr}")
        return done.stdout

    @contextmanager
    def closed(
        self, command: Sequence[str], *, env: Mapping[str, str], user: int
    ) -> Iterator[subprocess.Popen[str]]:
        """The command as a process that may not write, of that very pid, gone at the end."""
        argv, who = self._closed(command, env, user)
        process = subprocess.Popen(
            argv,
            user=who,
            group=who,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def refuses(self, folder: str, *, user: int) -> str:
        """Why a file cannot be made in `folder`; nothing where it can."""
        done = self._ended(["touch", f"{folder}/written"], {"PATH": self.path}, user)
        return done.stderr.strip() if done.returncode else ""

    def _ended(
        self, command: Sequence[str], env: Mapping[str, str], user: int
    ) -> subprocess.CompletedProcess[str]:
        argv, who = self._closed(command, env, user)
        return subprocess.run(argv, user=who, group=who, capture_output=True, text=True)

    def seen(self, path: str) -> str:
        """How a process inside names a path of the image."""
        raise NotImplementedError

    def _argv(self, command: Sequence[str], env: Mapping[str, str], workdir: str) -> list[str]:
        raise NotImplementedError

    def _closed(
        self, command: Sequence[str], env: Mapping[str, str], user: int
    ) -> tuple[list[str], int | None]:
        """The command line that runs without writing, and the user to start it as, if any."""
        raise NotImplementedError


class Folder(Root):
    """No root of its own: paths in the steps are rewritten to lie in a folder."""

    def seen(self, path: str) -> str:
        return str(self.inside(path))

    def _argv(self, command: Sequence[str], env: Mapping[str, str], workdir: str) -> list[str]:
        words = [f"{name}={self._moved(value)}" for name, value in env.items()]
        place = self._moved(workdir) if workdir.startswith(_STEPS) else workdir
        return ["env", "-i", f"--chdir={place}", *words, *map(self._moved, command)]

    def _closed(
        self, command: Sequence[str], env: Mapping[str, str], user: int
    ) -> tuple[list[str], int | None]:
        subprocess.run(["chmod", "-R", "a-w", str(self.place)], check=True)
        is_root = os.getuid() == 0
        return self._argv(command, env, "/tmp"), user if is_root else None

    def _moved(self, text: str) -> str:
        pattern = "|".join(rf"(?<![\w/.-]){re.escape(path)}\b" for path in _STEPS)
        return re.sub(pattern, lambda found: f"{self.place}{found[0]}", text)


class Chroot(Root):
    """A Debian of its own. Mounts are made in a namespace of each command, and go with it."""

    def seen(self, path: str) -> str:
        return path

    def _argv(self, command: Sequence[str], env: Mapping[str, str], workdir: str) -> list[str]:
        lines = [self._mounted(place) for place in self._local(env)]
        lines += [f"mount -t proc proc {self.inside('proc')}"]
        lines += [f"cp /etc/resolv.conf {self.inside('etc/resolv.conf')}"]
        return self._in_namespace(lines, command, env, workdir, "0:0")

    def _closed(
        self, command: Sequence[str], env: Mapping[str, str], user: int
    ) -> tuple[list[str], int | None]:
        place = shlex.quote(str(self.place))
        lines = [
            f"mount --bind {place} {place}",
            f"mount -o remount,bind,ro {place}",
            f"mount -t tmpfs -o mode=1777 tmpfs {place}/tmp",
            f"mount -t proc proc {place}/proc",
            f"mount --bind /dev {place}/dev",
        ]
        return self._in_namespace(lines, command, env, "/tmp", f"{user}:{user}"), None

    def _in_namespace(
        self,
        lines: Sequence[str],
        command: Sequence[str],
        env: Mapping[str, str],
        workdir: str,
        who: str,
    ) -> list[str]:
        words = [f"{name}={value}" for name, value in env.items()]
        inner = ["env", "-i", f"--chdir={workdir}", *words, *command]
        last = shlex.join(["chroot", f"--userspec={who}", str(self.place), *inner])
        script = "\n".join(["set -e", *lines, f"exec {last}"])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    def _local(self, env: Mapping[str, str]) -> set[Path]:
        """The files and folders of this machine that pip is told of."""
        known = Path("/etc/pip.conf")
        text = " ".join([*env.values(), known.read_text() if known.is_file() else ""])
        named = {
            Path(found) for found in re.findall(r"(?:(?<=file://)|(?<![\w./:-]))/[\w./-]+", text)
        }
        outside = {path for path in named if path.exists() and path.parts[1] not in _OWN}
        return outside | ({known} if known.is_file() else set())

    def _mounted(self, path: Path) -> str:
        inside = self.inside(str(path))
        if path.is_dir():
            inside.mkdir(parents=True, exist_ok=True)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
        return f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(inside))}"


_OWN = {"src", "usr", "bin", "sbin", "tmp"}  # of the root itself
