"""Runs the steps of a Dockerfile without an engine, in a clean root, and proves what they made.

python deploy/images/prove.py [--image gateway|job|export] [--root debootstrap|venv] [--keep DIR]

Every RUN, COPY, ENV and ARG is taken from the Dockerfile itself. Root with debootstrap: each stage
has a Debian root of its own, with Python and nothing else, and RUN is run inside it. Otherwise: a
bare folder, in which the steps' virtual environment is made. Then, as user 10001 and with nothing
writable but /tmp, what was made serves the demonstration model. Linux, Python 3.11, no packages.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clean_root import Chroot, Folder, Root  # beside this file

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILES = {"gateway": "gateway", "job": "gateway", "export": "export"}
FINGERPRINT = "904c48e4b5b71df035fc882735e129c7dad20e391cc8d861f5df2e45f4ac4d7b"
USER = 10001
BARRED = {  # distributions that have no business in an image
    "gateway": {
        "torch",
        "transformers",
        "onnx",
        "onnxscript",
        "pyarrow",
        "pytest",
        "pip",
        "openvino-telemetry",
    },
    "job": {"torch", "transformers", "onnx", "onnxscript", "pytest", "pip"},
    "export": {"pytest", "mypy", "pip"},
}


@dataclass
class Stage:
    """One FROM of a Dockerfile."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile, comments and line ends taken out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[Stage] = []
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            base = next((stage.base for stage in found if stage.name == base), base)
            found.append(Stage(base, name or "final"))
        else:
            found[-1].steps.append((word, rest.strip()))
    return found


def _assigned(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value.strip('"')


@dataclass
class Built:
    """What a stage left: its root, and how a container of it would start."""

    root: Root
    env: dict[str, str]
    workdir: str = "/"
    user: str = "0"
    entrypoint: str = ""


def build(stage: Stage, root: Root, arguments: dict[str, str], before: dict[str, Built]) -> Built:
    """Run the stage's steps in `root`, as the builder would."""
    made = Built(root, {"PATH": root.path})
    variables: dict[str, str] = {}
    shell = ["/bin/sh", "-c"]
    for word, rest in stage.steps:
        say(f"  {stage.name}: {word} {rest[:100]}")
        if word == "ARG":
            name, default = _assigned(rest)
            variables[name] = arguments.get(name, default)
        elif word == "ENV":
            made.env |= {
                name: value.replace("$PATH", made.env["PATH"])
                for name, value in map(_assigned, shlex.split(rest))
            }
        elif word == "WORKDIR":
            made.workdir = rest
            root.make(rest)
        elif word == "SHELL":
            shell = re.findall(r'"([^"]+)"', rest)
        elif word == "COPY":
            _copy(rest, made, before)
        elif word == "RUN":
            root.run([*shell, rest], env=variables | made.env, workdir=made.workdir)
        elif word == "USER":
            made.user = rest
        elif word == "ENTRYPOINT":
            made.entrypoint = re.findall(r'"([^"]+)"', rest)[0]
        elif word not in ("LABEL", "EXPOSE", "CMD"):
            raise SystemExit(f"prove: {word} is an instruction that it does not know")
    return made


def _copy(rest: str, made: Built, before: dict[str, Built]) -> None:
    *sources, target = rest.split()
    origin = REPOSITORY
    if sources[0].startswith("--from="):
        other = before[sources.pop(0).removeprefix("--from=")].root
        if other.place == made.root.place:
            return
        origin = other.place
    into = made.root.inside(os.path.join(made.workdir, target))
    for source in sources:
        found = origin / source.lstrip("/")
        place = into / found.name if target.endswith("/") else into
        place.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy2(found, place)


def say(line: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {line}", flush=True)  # noqa: T201


STARTED = time.monotonic()


def expect(claim: str, holds: bool, detail: str = "") -> None:
    """Print what was proved, or end."""
    if not holds:
        raise SystemExit(f"prove: NOT so: {claim}. {detail}")
    say(f"proved: {claim}{f' ({detail})' if detail else ''}")


def prove_closure(image: str, made: Built) -> None:
    """No package that it should not have, none of another version than constraints.txt says."""
    listing = (
        "import importlib.metadata as m; "
        "print(*sorted({f\"{d.metadata['Name']}=={d.version}\" for d in m.distributions()}))"
    )
    there = set(made.root.output(["/opt/diptych/bin/python3", "-c", listing], env=made.env).split())
    pins = (REPOSITORY / "constraints.txt").read_text()
    pinned = {line.split()[0].lower() for line in pins.splitlines() if re.match(r"\w", line)}
    names = {one.partition("==")[0].lower().replace("_", "-") for one in there}
    others = {
        one  # without its local version: torch's wheel for CPUs is 2.13.0+cpu
        for one in there
        if one.lower().partition("+")[0] not in pinned and not one.startswith("diptych==")
    }
    bytes_ = sum(p.lstat().st_size for p in made.root.inside("/opt/diptych").rglob("*"))
    barred = ", ".join(sorted(BARRED[image]))
    expect(f"none of {barred} is installed", not names & BARRED[image])
    expect("every package is the pinned one", not others, f"{len(there)} in all, {sorted(others)}")
    say(f"size of /opt/diptych: {bytes_ / 2**20:.0f} MiB")


HEALTH = """
import sys, grpc
from grpc_health.v1 import health_pb2 as pb, health_pb2_grpc as rpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    for service in ("", "diptych.v1.EmbeddingService", "alive"):
        reply = rpc.HealthStub(channel).Check(pb.HealthCheckRequest(service=service), timeout=10)
        print(pb.HealthCheckResponse.ServingStatus.Name(reply.status))
"""


@contextmanager
def serving(made: Built, repository: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The image's own entry point with `serve`, and what it printed of its addresses."""
    ports = ["--host", "127.0.0.1", "--port", "0", "--health-port", "0", "--metrics-port", "0"]
    command = [made.entrypoint, "serve", "--repository", repository, *ports]
    with made.root.closed(command, env=made.env, user=USER) as process:
        assert process.stdout is not None
        told: dict[str, str] = {}
        for line in process.stdout:
            if found := re.match(r"(listening|health|metrics|  engine)\b.*?(\S+)$", line.rstrip()):
                told[found[1].strip()] = found[2] if found[1][0] != " " else line.strip()
            if "listening" in told:
                break
        expect("it listens", "listening" in told)
        yield process, told


def prove_serving(made: Built) -> None:
    """As in a pod: another user, nothing writable but /tmp, probes on a port of their own."""
    repository = made.root.seen("/opt/diptych/share/model_repository")

    def ask(*command: str) -> str:
        return made.root.output([*command], env=made.env, user=USER)

    expected = ask("diptych", "models", "--repository", repository, "--expect", FINGERPRINT)
    expect("its model is the expected one", FINGERPRINT[:12] in expected)
    with serving(made, repository) as (process, told):
        say(f"  {told['engine']}, at {told['listening']}")
        status = Path(f"/proc/{process.pid}/status").read_text()
        uids = set(re.findall(r"^[UG]id:\s+(.*)$", status, re.M)[0].split())
        expect("its user is not root", "0" not in uids, f"uid {' '.join(sorted(uids))}")
        for where in ("/", "/opt/diptych", "/opt/diptych/share/model_repository"):
            refusal = made.root.refuses(made.root.seen(where), user=USER)
            expect(f"it cannot write in {where}", bool(refusal), refusal)
        health = ask("python3", "-c", HEALTH, told["health"]).split()
        expect("gRPC health says SERVING, thrice", health == ["SERVING"] * 3)
        reply = ask("diptych", "embed", "--address", told["listening"], "--text", "a red circle")
        expect("it embeds", FINGERPRINT in reply, reply.strip()[:76] + " …")
        process.send_signal(signal.SIGTERM)
        expect("SIGTERM ends it with status 0", process.wait(timeout=60) == 0)


def prove_command(made: Built) -> None:
    """An image that serves nothing: its command line answers, as another user, without writing."""
    told = made.root.output([made.entrypoint, "--help"], env=made.env, user=USER)
    expect(f"{made.entrypoint} --help answers", "Commands" in told)


def make_roots(kind: str, folder: Path) -> Callable[[str], Root]:
    """What makes a stage's root."""
    if kind == "venv":
        place = folder / "root"
        place.mkdir()
        return lambda name: Folder(place)
    base = folder / "base"
    say("debootstrap: bookworm, minbase, python3 and python3-venv")
    packages = "--include=ca-certificates,python3,python3-venv"
    command = ["debootstrap", "--variant=minbase", packages, "bookworm", str(base)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def make(name: str) -> Root:
        subprocess.run(["cp", "-a", "--reflink=auto", base, folder / name], check=True)
        return Chroot(folder / name)

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    can = os.getuid() == 0 and shutil.which("debootstrap") is not None
    parser.add_argument("--image", choices=DOCKERFILES, default="gateway")
    parser.add_argument("--root", choices=["debootstrap", "venv"], help="default: what can be done")
    parser.add_argument("--keep", type=Path, help="build here, and leave it")
    given = parser.parse_args()
    kind = given.root or ("debootstrap" if can else "venv")
    if kind == "debootstrap" and not can:
        sys.exit("prove: a debootstrap root takes root and the package debootstrap; or --root venv")
    path = REPOSITORY / "deploy" / "images" / f"{DOCKERFILES[given.image]}.Dockerfile"
    say(f"{path.relative_to(REPOSITORY)}, image {given.image}, in a {kind} root")
    with tempfile.TemporaryDirectory(prefix="diptych-image-") as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # for the other user
        parts = stages(path.read_text())
        root_for, made = make_roots(kind, folder), dict[str, Built]()
        for stage in filter(lambda stage: stage.steps, parts):
            if stage.base.startswith("python:"):
                made[stage.name] = build(stage, root_for(stage.name), {"EXTRA": given.image}, made)
            else:
                say(f"  {stage.name}: not proved: it stands on {stage.base}")
        last = made[parts[-1].name]
        expect("it does not start as root", last.user.split(":")[0] == str(USER))
        prove_closure(given.image, last)
        prove_command(last) if given.image == "export" else prove_serving(last)
    say("all proved; an engine's own layers, and its base image, were not")


if __name__ == "__main__":
    main()
