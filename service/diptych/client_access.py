"""How a client shows who it is, and how it knows whom it talks to."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from diptych.hosts import is_target_loopback

Options: TypeAlias = list[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """TLS and a key. Without any, a plain connection: to this machine, or inside a mesh.

    Files are read when a client is made; a client that outlives its certificate is made anew.
    """

    tls: bool = False
    """Speak TLS; any of the files below means so too."""

    ca: Path | None = None
    """Authorities that may vouch for the server, PEM; none: those gRPC brings."""

    certificate: Path | None = None
    """What to show to a server that asks for a certificate, PEM, with its key."""

    key: Path | None = None

    server_name: str = ""
    """The name the server's certificate must have; by default the one in the address."""

    api_key: str = field(default="", repr=False)

    plaintext_key: bool = False
    """Send the key without TLS, and not to this machine alone: where a mesh encrypts."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client's certificate and its key belong together")
        # Never in the message: what is wrong with a key may be most of a key.
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("the API key has characters that no key has")
        if " " in self.api_key:
            raise ValueError("the API key has a space in it")

    @property
    def is_tls(self) -> bool:
        return self.tls or self.ca is not None or self.certificate is not None

    def check(self, address: str) -> None:
        """Raises ValueError where the key would travel for all to read."""
        if self.api_key and not (self.is_tls or self.plaintext_key or is_target_loopback(address)):
            raise ValueError(
                f"the API key would travel to {address} without TLS: speak TLS, or say "
                "plaintext_key where a mesh encrypts"
            )


PLAIN = Credentials()


def open_channel(address: str, credentials: Credentials, options: Options) -> grpc.Channel:
    """A channel for threads.

    Raises:
        ValueError: the key would travel for all to read.
        OSError: a file cannot be read.
    """
    credentials.check(address)
    if credentials.is_tls:
        channel = grpc.secure_channel(address, _tls(credentials), _named(credentials, options))
    else:
        channel = grpc.insecure_channel(address, options)
    keyed: Any = _Keyed(channel, credentials.api_key) if credentials.api_key else channel
    return keyed  # type: ignore[no-any-return]


def open_aio_channel(address: str, credentials: Credentials, options: Options) -> grpc.aio.Channel:
    """As `open_channel`, for asyncio."""
    credentials.check(address)
    if credentials.is_tls:
        channel = grpc.aio.secure_channel(address, _tls(credentials), _named(credentials, options))
    else:
        channel = grpc.aio.insecure_channel(address, options)
    keyed: Any = _Keyed(channel, credentials.api_key) if credentials.api_key else channel
    return keyed  # type: ignore[no-any-return]


def _tls(credentials: Credentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        *(
            path.read_bytes() if path is not None else None
            for path in (credentials.ca, credentials.key, credentials.certificate)
        )
    )


def _named(credentials: Credentials, options: Options) -> Options:
    if not credentials.server_name:
        return options
    return [*options, ("grpc.ssl_target_name_override", credentials.server_name)]


class _Keyed:
    """A channel whose calls carry a key.

    Metadata of the call, not gRPC's call credentials: those pass a thread of their own each time,
    and refuse every connection without TLS, a mesh's too.
    """

    def __init__(self, channel: Any, api_key: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, *given: Any, **named: Any) -> Any:
        return self._with_key(self._channel.unary_unary(*given, **named))

    def stream_stream(self, *given: Any, **named: Any) -> Any:
        return self._with_key(self._channel.stream_stream(*given, **named))

    def unary_stream(self, *given: Any, **named: Any) -> Any:
        return self._with_key(self._channel.unary_stream(*given, **named))

    def stream_unary(self, *given: Any, **named: Any) -> Any:
        return self._with_key(self._channel.stream_unary(*given, **named))

    def _with_key(self, call: Any) -> Any:
        return partial(call, metadata=self._metadata)
