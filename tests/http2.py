"""gRPC calls frame by frame: what no gRPC client sends, a stranger may."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import h2.config
import h2.connection
import h2.events

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

MESSAGE = b"\0\0\0\0\0"  # an empty one, framed

_WAIT_S = 10.0

for _name in ("h2", "hpack"):  # they log every header they send, which is no log of ours
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass
class Answer:
    """What came back; code None where the stream was reset or the connection closed."""

    headers: dict[str, str] = field(default_factory=dict)  # and trailers
    data: bytes = b""
    is_reset: bool = False

    @property
    def code(self) -> int | None:
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def message(self) -> str:
        return self.headers.get("grpc-message", "")


def request(path: bytes, *extra: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers of a call."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *extra,
    ]


async def call(
    address: str, headers: Headers, *bodies: bytes, tls: ssl.SSLContext | None = None
) -> Answer:
    """One call on a connection of its own. Without `bodies` the request is never ended.

    Raises:
        TimeoutError: no answer.
    """
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    answer = Answer()
    try:
        async with asyncio.timeout(_WAIT_S):
            connection = _connection()
            connection.initiate_connection()
            connection.send_headers(1, headers)
            for body in bodies:
                connection.send_data(1, body)
            if bodies:
                connection.end_stream(1)
            writer.write(connection.data_to_send())
            while not await _read(reader, connection, answer):
                writer.write(connection.data_to_send())
    finally:
        writer.close()
    return answer


def _connection() -> h2.connection.H2Connection:
    """Checks nothing of what it is told to send."""
    return h2.connection.H2Connection(
        h2.config.H2Configuration(
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )


async def _read(
    reader: asyncio.StreamReader, connection: h2.connection.H2Connection, answer: Answer
) -> bool:
    """Whether that was all."""
    if not (data := await reader.read(65536)):
        answer.is_reset = True
        return True
    for event in connection.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            answer.headers |= {
                bytes(name).decode(): bytes(value).decode(errors="replace")
                for name, value in event.headers
            }
        elif isinstance(event, h2.events.DataReceived):
            answer.data += event.data
        elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
            answer.is_reset = True
        else:
            continue
    return answer.code is not None or answer.is_reset
