"""Keys made, handed out and used: `diptych keys`, and every client command over TLS with a key."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from diptych.commands import keys
from diptych.commands.connection import Connection
from diptych.commands.models import models
from diptych.errors import BadAccess
from tests.certificates import Authority
from tests.serving import REPOSITORY

ROOT = Path(__file__).parents[2]


def made(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    keys.new(name, as_json=True)
    found: dict[str, str] = json.loads(capsys.readouterr().out)
    return found


def test_a_key_is_random_and_told_once_with_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = made("search", capsys), made("search", capsys)
    assert re.fullmatch(r"dpt_[\w-]{43}", first["key"])
    assert first["key"] != second["key"]
    assert first["sha256"] == hashlib.sha256(first["key"].encode()).hexdigest()


def test_what_is_printed_for_the_file_is_an_entry_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    keys.new("search")
    printed = capsys.readouterr().out
    file = tmp_path / "callers.yaml"
    file.write_text("callers:\n" + printed.split("in the file:\n")[1])
    key = re.search(r"dpt_\S+", printed)
    assert key is not None
    assert key[0] not in file.read_text()
    keys.check(file, as_json=True)
    record = json.loads(capsys.readouterr().out)
    digest = hashlib.sha256(key[0].encode()).hexdigest()
    assert record == {
        "caller": "search",
        "shown_by": f"key {digest[:8]}…",
        "rights": "*",
        "quota": "none",
        "priority": "interactive",
        "expires": "no end",
    }


def test_what_a_file_grants_is_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "callers.yaml"
    file.write_text(
        "callers: [{name: nightly, certificates: ['dns:jobs.example'], priority: bulk, "
        "rights: [EmbeddingService], quota: {inputs: 64, inputs_per_s: 200}, expires: 2020-01-01}]"
    )
    keys.check(file)
    assert "nightly" in capsys.readouterr().out
    keys.check(file, as_json=True)
    printed = capsys.readouterr().out
    for words in ("dns:jobs.example", "bulk", "2020-01-01 00:00 UTC, expired", "64 inputs at once"):
        assert words in printed
    file.write_text("callers: [{name: a, rights: [Embedding]}]")
    with pytest.raises(BadAccess, match="caller 'a': has neither keys nor certificates"):
        keys.check(file)


@dataclass(frozen=True)
class Guarded:
    """A gateway process that wants TLS and keys."""

    address: str
    authority: Authority
    key: str
    key_file: Path

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "diptych", *args],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        assert self.key not in done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority, key = Authority(folder), "dpt_s3cret-key-0123456789abcdefghijkl"
    pair = authority.issue("localhost", "127.0.0.1")
    (folder / "key").write_text(key + "\n")
    callers = folder / "callers.yaml"
    digest = hashlib.sha256(key.encode()).hexdigest()
    callers.write_text(f"callers: [{{name: a, keys: [{{sha256: {digest}}}], rights: ['*']}}]")
    command = [sys.executable, "-m", "diptych", "serve", "--repository", str(REPOSITORY)]
    command += ["--host", "127.0.0.1", "--port", "0", "--api-keys", str(callers)]
    command += ["--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed: list[str] = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("listening on "):
            break
    else:
        raise AssertionError("".join(printed))
    address = printed[-1].split()[-1]
    yield Guarded(address, authority, key, folder / "key")
    process.terminate()
    rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    for secret in (key, digest):
        assert secret not in "".join(printed) + rest


def test_a_command_shows_its_key_from_the_environment(guarded: Guarded) -> None:
    asked = ["models", "--address", guarded.address, "--json"]
    asked += ["--tls-ca", str(guarded.authority.file)]
    known = guarded.run(*asked, DIPTYCH_CLIENT_KEY=f"{guarded.key}\n")
    assert json.loads(known.stdout)["space"]["model"] == "shapes"
    without = guarded.run(*asked)
    assert (without.returncode, without.stdout) == (1, "")
    assert "diptych: no key was sent" in without.stderr


def test_a_key_is_not_sent_where_all_could_read_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("dpt_key\n")
    with pytest.raises(ValueError, match=r"would travel to 192\.0\.2\.1:5 without TLS"):
        models(address="192.0.2.1:5", connection=Connection(api_key_file=file))
    assert Connection(api_key_file=file, plaintext_key=True).credentials().api_key == "dpt_key"


def test_a_job_embeds_through_a_gateway_that_wants_a_key(guarded: Guarded, tmp_path: Path) -> None:
    source, vectors = tmp_path / "captions.csv", tmp_path / "vectors"
    source.write_text("caption\n" + "\n".join(f"caption {number}" for number in range(20)) + "\n")
    done = guarded.run(
        *("job", "run", str(source), str(vectors), "--kind", "text", "--text", "caption"),
        *("--engine", f"gateway://{guarded.address}", "--tls-ca", str(guarded.authority.file)),
        *("--api-key-file", str(guarded.key_file), "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert '"ok": 20' in done.stdout
    written = [path for path in vectors.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if guarded.key.encode() in path.read_bytes()]
