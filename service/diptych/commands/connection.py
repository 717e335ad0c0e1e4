"""The options of every command that is a gateway's client: TLS, and a key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import ExistingFile

from diptych.client import Client
from diptych.client_access import Credentials
from diptych.settings import CLIENT_KEY


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """How to reach a gateway that speaks TLS or wants to know its callers."""

    tls: Annotated[bool, Parameter(negative="")] = False
    """Speak TLS; any of the next three means so too."""

    tls_ca: ExistingFile | None = None
    """Authorities that may vouch for the server, PEM; by default the public ones."""

    tls_certificate: ExistingFile | None = None
    """A client certificate to show, PEM."""

    tls_key: ExistingFile | None = None
    """Its key."""

    tls_server_name: str = ""
    """The name the server's certificate must have, where it is not the address's."""

    api_key_file: ExistingFile | None = None
    """A file with the API key; or put the key itself into DIPTYCH_CLIENT_KEY."""

    plaintext_key: Annotated[bool, Parameter(negative="")] = False
    """Send the key without TLS, and not to this machine alone: where a mesh encrypts."""

    def credentials(self, env: Mapping[str, str] = os.environ) -> Credentials:
        """Raises ValueError for a key that cannot be one."""
        path = self.api_key_file
        key = env.get(CLIENT_KEY, "") if path is None else path.read_text(errors="replace")
        return Credentials(
            tls=self.tls,
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            server_name=self.tls_server_name,
            api_key=key.strip(),
            plaintext_key=self.plaintext_key,
        )

    def client(self, address: str) -> Client:
        """A client of the gateway at `address`."""
        return Client(address, credentials=self.credentials())


NO_CONNECTION = Connection()
Connecting = Annotated[Connection, Parameter(name="*")]
