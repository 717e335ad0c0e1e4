"""TLS of the gateway's port: certificates proved before use, and changed while it runs."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from diptych.errors import BadAccess
from diptych.gateway.watching import State, state_of
from diptych.metrics import Metrics

if TYPE_CHECKING:  # no class at run time
    Configuration = grpc.ServerCertificateConfiguration

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where they lie, in PEM."""

    certificate: Path  # the server's own, with what leads to its CA
    key: Path
    client_ca: Path | None = None  # whoever connects must show a certificate of one of these

    def all(self) -> list[Path]:
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]


class Tls:
    """The certificate in use: the newest that was found good.

    Connections that are open keep what they were opened with; the server closes each within
    minutes of its age, so that what was replaced is soon gone.
    """

    def __init__(self, files: TlsFiles, metrics: Metrics) -> None:
        self._files = files
        self._metrics = metrics
        self._seen: State = []
        self._fresh: Configuration | None = None  # not yet taken by gRPC

    async def start(self) -> grpc.ServerCredentials:
        """Read the files.

        Raises:
            BadAccess: one cannot be used.
        """
        first = await asyncio.to_thread(self._read)
        return grpc.dynamic_ssl_server_credentials(
            first,
            self._next,  # type: ignore[arg-type] # may return None, as its documentation says
            require_client_authentication=self._files.client_ca is not None,
        )

    async def refresh(self) -> None:
        """Look at the files, and take up what changed."""
        try:
            fresh = await asyncio.to_thread(self._read_if_changed)
        except BadAccess as exc:
            self._metrics.certificates.labels("refused").inc()
            log.error("the certificate is not taken up, the last good one stays: %s", exc)
            return
        if fresh is not None:
            self._fresh = fresh
            self._metrics.certificates.labels("served").inc()
            log.info("certificate taken up: %s", self._files.certificate)

    def _next(self) -> Configuration | None:
        """What gRPC asks for, in a thread of its own, before each handshake; None: as before."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def _read_if_changed(self) -> Configuration | None:
        return None if state_of(self._files.all) == self._seen else self._read()

    def _read(self) -> Configuration:
        self._seen = state_of(self._files.all)
        parts = {path: _bytes(path) for path in self._files.all()}
        expires = prove(self._files)
        if state_of(self._files.all) != self._seen:
            self._seen = []  # the next look tries again
            raise BadAccess(f"{self._files.certificate}: changed while it was read")
        self._metrics.certificate_expires.set(expires)
        pair = parts[self._files.key], parts[self._files.certificate]
        client_ca = parts[self._files.client_ca] if self._files.client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], client_ca)


def prove(files: TlsFiles) -> float:
    """Shake hands with these files, in memory: when the certificate expires, seconds since 1970.

    Raises:
        BadAccess: one of them is not what it should be, the key is another's, or time is up.
    """
    chain = _text(files.certificate)
    client, server = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    )
    client.check_hostname = False  # whatever its names are
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whoever issued it
    try:
        client.load_verify_locations(cadata=chain)
    except (ssl.SSLError, ValueError) as exc:
        raise BadAccess(f"{files.certificate}: holds no certificate in PEM") from exc
    try:
        server.load_cert_chain(files.certificate, files.key, password=_no_password)
    except _Encrypted:
        raise BadAccess(f"{files.key}: is encrypted; a key without a password is needed") from None
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise BadAccess(f"{files.key}: is not the key of {files.certificate}") from exc
        raise BadAccess(f"{files.key}: holds no private key in PEM") from exc
    try:
        shown = _shake_hands(client, server)
    except ssl.SSLCertVerificationError as exc:
        raise BadAccess(f"{files.certificate}: {exc.verify_message}") from exc
    except ssl.SSLError as exc:
        raise BadAccess(f"{files.certificate}: {exc.reason}") from exc
    if files.client_ca is not None:
        _prove_ca(files.client_ca)
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _prove_ca(path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=_text(path))
    except (ssl.SSLError, ValueError) as exc:
        raise BadAccess(f"{path}: holds no certificate in PEM") from exc
    found = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()]
    if not found:
        raise BadAccess(f"{path}: holds no certificate of an authority")
    if max(found) <= time.time():
        raise BadAccess(f"{path}: every certificate in it has expired")


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> Mapping[str, object]:
    """What the client was shown."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up)
    answering = server.wrap_bio(up, down, server_side=True)
    waiting = [asking, answering]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    return asking.getpeercert() or {}


class _Encrypted(Exception):
    """The key asks for a password."""


def _no_password() -> str:
    raise _Encrypted


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise BadAccess(f"{path}: {exc.strerror}") from exc


def _text(path: Path) -> str:
    return _bytes(path).decode("ascii", errors="replace")
