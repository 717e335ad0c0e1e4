"""TLS: what stops the start, and what changes while it runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization

from diptych.client import AsyncClient
from diptych.client_access import Credentials
from diptych.errors import BadAccess, DiptychError
from diptych.gateway import tls
from diptych.gateway.identity_interceptor import methods_of
from diptych.gateway.server import GUARDED, gateway
from diptych.gateway.tls import TlsFiles, prove
from diptych.settings import Settings
from tests.certificates import Authority, Pair, written
from tests.serving import local

OK, INVALID, DENIED, UNAUTHENTICATED = 0, 3, 7, 16
METHODS = sorted(methods_of(GUARDED))
MODELS = "/diptych.v1.EmbeddingService/ListModels"
KEY = "dpt_s3cret-key-0123456789"
DIGEST = "f1cf1f4a0ea0fa3e4b0b8bd3d5a3ec8a7a4d0f1d7e8a6c5b4a39281706f5e4d3"  # of no key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def encrypt(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    password = serialization.BestAvailableEncryption(b"secret")
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(*kinds, password))


def aged(authority: Authority, *, begins: int, ends: int) -> Pair:
    now = dt.datetime.now(dt.UTC)
    issued = authority.ca.issue_cert(
        "localhost",
        not_before=now + dt.timedelta(days=begins),
        not_after=now + dt.timedelta(days=ends),
    )
    return written(issued, authority.folder, "server")


BAD: dict[str, tuple[Callable[[Authority, Pair], object], str]] = {
    "another's key": (
        lambda a, p: p.key.write_bytes(a.issue("x", file="other").key.read_bytes()),
        r"server\.key: is not the key of .*server\.crt",
    ),
    "expired": (lambda a, p: aged(a, begins=-2, ends=-1), r"server\.crt: certificate has expired"),
    "not yet": (lambda a, p: aged(a, begins=1, ends=2), r"server\.crt: certificate is not yet"),
    "a password": (lambda a, p: encrypt(p.key), r"server\.key: is encrypted"),
    "no certificate": (lambda a, p: p.certificate.write_text("x"), r"server\.crt: holds no cert"),
    "a key for it": (
        lambda a, p: p.certificate.write_bytes(p.key.read_bytes()),
        r"server\.crt: holds no certificate",
    ),
    "no key": (lambda a, p: p.key.write_text(""), r"server\.key: holds no private key"),
    "missing": (lambda a, p: p.certificate.unlink(), r"server\.crt: No such file"),
    "no key at all": (lambda a, p: p.key.rename(p.key.parent / "x"), r"server\.key: No such file"),
    "no authority": (lambda a, p: a.file.write_text(""), r"ca\.crt: holds no certificate"),
    "no CA": (
        lambda a, p: a.file.write_bytes(p.certificate.read_bytes()),
        r"ca\.crt: holds no certificate of an authority",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
async def test_what_cannot_be_used_stops_the_start_in_one_line(
    spoil: Callable[[Authority, Pair], object], said: str, authority: Authority
) -> None:
    pair = authority.issue("localhost")
    spoil(authority, pair)
    settings = local(
        tls_certificate=pair.certificate, tls_key=pair.key, tls_client_ca=authority.file
    )
    with pytest.raises(BadAccess, match=said) as refused:
        async with gateway(settings):
            pytest.fail("served")
    assert "\n" not in str(refused.value)


def test_an_authority_whose_time_is_up_lets_nobody_in_and_stops_the_start(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.issue("localhost")
    files = TlsFiles(pair.certificate, pair.key, authority.file)
    assert prove(files) > time.time()
    monkeypatch.setattr(tls, "time", SimpleNamespace(time=lambda: 1e11))  # the year 5138
    with pytest.raises(BadAccess, match=r"ca\.crt: every certificate in it has expired"):
        prove(files)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_certificate": "a"}, "belong together"),
        ({"tls_key": "a"}, "belong together"),
        ({"tls_client_ca": "a"}, "needs tls_certificate"),
        ({"api_keys": "a"}, "keys would travel for all to read"),
        ({"api_keys": "a", "host": "10.1.2.3"}, "api_keys on 10.1.2.3 without TLS"),
    ],
)
def test_settings_that_would_not_protect_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**given)  # type: ignore[arg-type]


def test_keys_without_tls_are_taken_on_loopback_or_where_it_is_said() -> None:
    file = Path("callers.yaml")
    for host in ("127.0.0.1", "::1", "localhost"):
        Settings(api_keys=file, host=host)
    Settings(api_keys=file, plaintext_keys=True)
    Settings(api_keys=file, tls_certificate=Path("a"), tls_key=Path("b"))


@pytest.mark.parametrize(
    "address", ["10.0.0.1:5", "dns:///gateway:5", "ipv4:127.0.0.1:1,8.8.8.8:2"]
)
def test_a_client_sends_no_key_past_this_machine_without_tls(address: str) -> None:
    with pytest.raises(ValueError, match="would travel to") as refused:
        AsyncClient(address, credentials=Credentials(api_key=KEY))
    assert KEY not in str(refused.value)
    assert KEY not in repr(Credentials(api_key=KEY))
    for fine in (Credentials(api_key=KEY, plaintext_key=True), Credentials(api_key=KEY, tls=True)):
        fine.check(address)
    for near in ("localhost:5", "127.0.0.1:5", "dns:///localhost:5", "[::1]:5", "unix:/run/x"):
        Credentials(api_key=KEY).check(near)
    for odd in ("two words", "line\nline", "clé"):
        with pytest.raises(ValueError, match="the API key has") as refused:
            Credentials(api_key=odd)
        assert odd not in str(refused.value)


def served_name(address: str, context: ssl.SSLContext) -> str:
    """The first name of the certificate that a new connection is shown."""
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as bare,
        context.wrap_socket(bare, server_hostname="localhost") as secure,
    ):
        shown = secure.getpeercert()
        assert shown is not None
        assert secure.version() in ("TLSv1.2", "TLSv1.3")
        return str(shown["subjectAltName"][0][1])


async def test_a_new_certificate_is_taken_up_without_a_restart_and_a_bad_one_is_not(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "diptych")
    pair = authority.issue("one.example", "localhost", "127.0.0.1")
    settings = local(
        tls_certificate=pair.certificate, tls_key=pair.key, refresh_s=0.05, metrics_port=0
    )
    context = authority.context()

    async def shown(address: str) -> str:
        return await asyncio.to_thread(served_name, address, context)

    async def said(words: str) -> None:
        for _ in range(200):
            if words in caplog.text:
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"{words!r} was not said")

    async with (
        gateway(settings) as running,
        AsyncClient(running.address, credentials=authority.credentials()) as client,
    ):
        await client.models()
        assert await shown(running.address) == "one.example"
        authority.issue("two.example", "localhost", "127.0.0.1")
        await said("certificate taken up")
        assert await shown(running.address) == "two.example"
        await client.models()  # on the connection it has
        pair.key.write_bytes(authority.issue("x", file="other").key.read_bytes())
        await said("the last good one stays")
        assert await shown(running.address) == "two.example"
        caplog.clear()
        authority.issue("three.example", "localhost", "127.0.0.1")
        await said("certificate taken up")
        assert await shown(running.address) == "three.example"
        with pytest.raises(DiptychError):
            async with AsyncClient(running.address, timeout_s=1, retries=False) as plain:
                await plain.models()
        url = f"http://{running.metrics_address}/metrics"
        metrics = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
        counts = dict(
            re.findall(r'diptych_certificate_reloads_total{outcome="(\w+)"} (\d)', metrics)
        )
        assert (int(counts["served"]) >= 2, int(counts["refused"]) >= 1) == (True, True)
        assert re.search(r"diptych_certificate_expires_timestamp_seconds [1-9]", metrics)
        stranger = Authority(authority.folder / "other").credentials()
        with pytest.raises(DiptychError):
            async with AsyncClient(
                running.address, timeout_s=1, retries=False, credentials=stranger
            ) as mistrusting:
                await mistrusting.models()
