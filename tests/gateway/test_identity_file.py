"""The file of callers: what it may say, and what is said about a bad one."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import math
import re
from pathlib import Path

import pytest

from diptych.contract import Priority
from diptych.errors import BadAccess, NotAllowed, Unidentified
from diptych.gateway.callers import read_callers
from diptych.gateway.identity import Identity, certificate_names
from diptych.gateway.watching import look_again
from diptych.metrics import Metrics

EMBED, SCORE = (f"/diptych.v1.EmbeddingService/{name}" for name in ("Embed", "Score"))
METHODS = [EMBED, SCORE, "/x.Other/Do"]
A, B = (hashlib.sha256(key.encode()).hexdigest() for key in ("key-a", "key-b"))

WHOLE = f"""
callers:
  - name: search
    keys:
      - sha256: {A}
        expires: 2030-01-02
      - sha256: {B}
    certificates: ["dns:search.example", "cn:old search"]
    rights: [EmbeddingService/Embed, Other]
    quota: {{inputs: 64, inputs_per_s: 500}}
    priority: bulk
    expires: 2031-01-01T12:00:00+02:00
  - name: all
    certificates: ["uri:spiffe://cluster/ns/a/sa/b"]
    rights: ["*"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "callers.yaml"
    path.write_text(text)
    return path


def test_a_file_says_who_may_call_what_until_when(tmp_path: Path) -> None:
    callers = read_callers(written(tmp_path, WHOLE), METHODS)
    first, second = callers.by_id[A], callers.by_id[B]
    assert first.paths == frozenset({EMBED, "/x.Other/Do"})
    assert first.expires == dt.datetime(2030, 1, 2, tzinfo=dt.UTC).timestamp()
    assert second.expires == dt.datetime(2031, 1, 1, 10, tzinfo=dt.UTC).timestamp()
    assert (first.priority, first.caller.quota.inputs) == (Priority.BULK, 64)
    free = callers.by_id["uri:spiffe://cluster/ns/a/sa/b"]
    assert (free.paths, free.expires, free.priority) == (None, math.inf, Priority.INTERACTIVE)
    assert callers.has_certificates
    assert set(callers.by_id) == {A, B, "dns:search.example", "cn:old search", free.name}


CALLER = f"callers: [{{name: a, keys: [{{sha256: {A}}}], rights: ['*']}}]"
SECRET = "dpt_S3cretS3cretS3cretS3cretS3cretS3cretS3cret"
BAD = {
    "whole file: must be fields": "",
    "callers: Field required": "{}",
    "whole file: must be fields and their values": "[]",
    "not YAML: line 2": "callers:\n  - [",
    "not YAML: a field stands twice": "callers: []\ncallers: []",
    "not YAML$": "callers: '\udcff'",
    ": not YAML": CALLER.replace("rights", "expires: 2030-13-45, rights"),
    "caller 'a': keys.0.sha256: String should match": CALLER.replace(A, "abc"),
    "caller 'a': keys.0.sha256: String should match ": CALLER.replace(A, SECRET),
    "caller number 1: name: String should match": CALLER.replace("name: a", f"name: {SECRET}"),
    "caller 'a': keyz: Extra inputs": CALLER.replace("keys", "keyz"),
    "caller 'a': has neither keys nor certificates": "callers: [{name: a, rights: ['*']}]",
    "caller 'a': rights.0: is none of *, EmbeddingService,": CALLER.replace("*", SECRET),
    "caller 'a': rights: Tuple should have at least 1": CALLER.replace("'*'", ""),
    "caller 'a': certificates.0: String should": CALLER.replace(
        "rights", "certificates: [search.example], rights"
    ),
    "caller 'a': expires": CALLER.replace("rights", "expires: 2030-01-01T12:00:00, rights"),
    "caller 'a': quota.inputs: Input should be greater": CALLER.replace(
        "rights", "quota: {inputs: 0}, rights"
    ),
    "caller 'a': priority: Input should be 'interactive' or 'bulk'": CALLER.replace(
        "rights", "priority: urgent, rights"
    ),
    "caller 'a': stands twice": CALLER.replace(
        "]}]", f"]}}, {{name: a, keys: [{{sha256: {B}}}], rights: ['*']}}]"
    ),
    "caller 'b': a key or certificate of it is one of 'a' too": CALLER.replace(
        "'*']}]", f"'*']}}, {{name: b, keys: [{{sha256: {A}}}], rights: ['*']}}]"
    ),
}


@pytest.mark.parametrize(("said", "text"), BAD.items())
def test_a_bad_file_is_told_in_one_line_without_what_may_be_a_key(
    said: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "callers.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadAccess) as refused:
        read_callers(path, METHODS)
    line = str(refused.value)
    pattern = re.escape(said.removesuffix("$")) + ("$" if said.endswith("$") else "")
    assert re.search(pattern, line), line
    assert "\n" not in line
    assert SECRET not in line
    assert line.startswith(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadAccess, match=r"callers\.yaml: No such file"):
        read_callers(tmp_path / "callers.yaml", METHODS)


async def test_a_certificate_is_known_by_its_names_and_by_its_common_name_only_without_any(
    tmp_path: Path,
) -> None:
    identity = Identity(written(tmp_path, WHOLE), METHODS, Metrics())
    await identity.start()
    shown = {"peer_dns": [b"other.example", b"search.example"], "x509_common_name": [b"x"]}
    assert identity.by_certificate(shown, EMBED).name == "search"
    assert identity.by_certificate({"x509_common_name": [b"old search"]}, EMBED).name == "search"
    assert certificate_names(shown) == ["dns:other.example", "dns:search.example"]
    with pytest.raises(NotAllowed):
        identity.by_certificate(shown, SCORE)
    for unknown in ({}, {"peer_dns": [b"a"], "x509_common_name": [b"old search"]}):
        with pytest.raises(Unidentified, match="no key was sent"):
            identity.by_certificate(unknown, EMBED)
    both = {**shown, "peer_uri": [b"spiffe://cluster/ns/a/sa/b"]}
    with pytest.raises(Unidentified, match="more than one caller"):
        identity.by_certificate(both, EMBED)


async def test_a_watch_outlives_a_look_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[int] = []

    async def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            raise RuntimeError("unforeseen")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await look_again(0.02, asyncio.Event(), look)
    assert len(looks) > 1
    assert "a look at changed files failed" in caplog.text
