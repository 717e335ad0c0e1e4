"""Certificates for tests, by an authority of our own."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

from diptych.client_access import Credentials


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path


def written(issued: trustme.LeafCert, folder: Path, name: str) -> Pair:
    """Replaces what may lie there, the certificate first and then the key."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    pair.key.write_bytes(issued.private_key_pem.bytes())
    return pair


class Authority:
    """A CA, and what it has issued in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = trustme.CA()
        self.file = folder / "ca.crt"
        self.file.write_bytes(self.ca.cert_pem.bytes())

    def issue(self, *names: str, file: str = "server", common_name: str | None = None) -> Pair:
        issued = self.ca.issue_cert(*names, common_name=common_name)
        return written(issued, self.folder, file)

    def credentials(self, shown: Pair | None = None, api_key: str = "") -> Credentials:
        """What a client of ours needs to trust this authority, and to show `shown`."""
        return Credentials(
            ca=self.file,
            certificate=shown.certificate if shown else None,
            key=shown.key if shown else None,
            api_key=api_key,
        )

    def context(
        self, shown: Pair | None = None, protocols: Sequence[str] = ("h2",)
    ) -> ssl.SSLContext:
        """The same for a bare socket."""
        context = ssl.create_default_context(cafile=self.file)
        context.set_alpn_protocols(list(protocols))
        if shown:
            context.load_cert_chain(shown.certificate, shown.key)
        return context
