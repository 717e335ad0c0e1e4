"""Unary gRPC calls over HTTP/2 in cleartext, at a third of what Python's gRPC costs a caller.

A load client beside the server it measures must not take the cores it measures. This one speaks
frames (RFC 9113) and gRPC's mapping onto them
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) and knows no more than that asks
for: headers are compressed (RFC 7541) once for a connection, and the peer is told to compress
none, so that a status is found without a table.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Final, cast

_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4  # frames
_PUSH, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 5, 6, 7, 8, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY, _ACK = 0x1, 0x4, 0x8, 0x20, 0x1
_TABLE_SIZE, _INITIAL_WINDOW, _FRAME_SIZE = 0x1, 0x4, 0x5  # settings
_CANCEL = 8
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW, _LARGEST_WINDOW = 65_535, 2**31 - 1
_STATUS = b"grpc-status"
_LONGEST_US = 99_999_999  # a timeout has eight digits

# gRPC's status codes, each at its number.
_CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)


@dataclass(slots=True)
class _Call:
    ended: asyncio.Future[tuple[str, bytes]]
    timer: asyncio.TimerHandle | None
    window: int  # bytes the peer takes of this stream yet
    unsent: memoryview | None = None
    frames: list[bytes] = field(default_factory=list)  # of the reply


class Connection(asyncio.Protocol):
    """One connection: any number of calls of one method, each with the same deadline.

    Whatever the peer does that these pages do not allow for ends all calls with the reason as
    their code, so that nothing is counted as an answer that is none.
    """

    def __init__(self, host: str, method: str, deadline_s: float | None) -> None:
        self._deadline_s = deadline_s
        self._first, self._later = _headers(host, method, deadline_s)
        self._calls: dict[int, _Call] = {}
        self._held: dict[int, _Call] = {}  # calls that have bytes to send yet
        self._rest = b""  # received, and no whole frame
        self._stream = -1
        self._window, self._stream_window, self._frame_size = _WINDOW, _WINDOW, 16_384
        self._received = 0  # bytes the peer was given no room for again
        self._lost: str | None = None
        self._ready = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, address: str, method: str, deadline_s: float | None = None) -> Connection:
        """To a server at HOST:PORT; returns once it has said its settings.

        Raises OSError when there is none.
        """
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: cls(address, method, deadline_s), host, int(port)
        )
        await connection._ready
        return connection

    def close(self) -> None:
        """What is open ends as lost."""
        self._transport.close()

    def call(self, message: bytes) -> asyncio.Future[tuple[str, bytes]]:
        """One call with a serialized request: its code, and the serialized reply where that is OK.

        The code is gRPC's, or says what became of the connection.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[tuple[str, bytes]] = loop.create_future()
        if self._lost:
            ended.set_result((self._lost, b""))
            return ended
        self._stream += 2
        stream, timer = self._stream, None
        if self._deadline_s is not None:
            timer = loop.call_later(self._deadline_s, self._give_up, stream)
        call = self._calls[stream] = _Call(ended, timer, self._stream_window)
        whole = struct.pack(">BI", 0, len(message)) + message
        block = self._first if stream == 1 else self._later
        head = _frame(_HEADERS, _END_HEADERS, stream, block)
        if len(whole) <= min(self._window, call.window, self._frame_size):
            self._window -= len(whole)
            self._transport.write(head + _frame(_DATA, _END_STREAM, stream, whole))
        else:
            self._transport.write(head)
            call.unsent = memoryview(whole)
            self._held[stream] = call
            self._send_held()
        return ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HIHI", _TABLE_SIZE, 0, _INITIAL_WINDOW, _LARGEST_WINDOW)
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        self._give_room(_LARGEST_WINDOW - _WINDOW)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("CONNECTION_LOST")

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at = 0
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3])
            if end > len(data):
                break
            stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFFFFFF
            self._take(data[at + 3], data[at + 4], stream, data[at + 9 : end])
            at = end
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        call = self._calls.get(stream)
        if kind == _DATA:
            self._received += len(content)
            if self._received > _LARGEST_WINDOW // 2:
                self._give_room(self._received)
                self._received = 0
        if kind in (_PUSH, _CONTINUATION) or (kind <= _HEADERS and flags & (_PADDED | _PRIORITY)):
            self._lose(f"UNREADABLE_FRAME_{kind}_{flags}")
        elif stream and call is None:
            pass  # of a call that was given up
        elif call and kind == _DATA:
            call.frames.append(content)
        elif call and kind == _HEADERS and flags & _END_STREAM:
            self._end(stream, _code(content), b"".join(call.frames)[5:])
        elif call and kind == _RST_STREAM:
            self._end(stream, f"RST_STREAM_{int.from_bytes(content)}", b"")
        elif kind == _SETTINGS and not flags & _ACK:
            self._settle(content)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, content))
        elif kind == _WINDOW_UPDATE:
            if call:
                call.window += int.from_bytes(content)
            else:
                self._window += int.from_bytes(content)
            self._send_held()
        elif kind == _GOAWAY:
            self._lose("GOAWAY")

    def _settle(self, content: bytes) -> None:
        for setting, value in struct.iter_unpack(">HI", content):
            if setting == _INITIAL_WINDOW:
                for call in self._calls.values():
                    call.window += value - self._stream_window
                self._stream_window = value
            if setting == _FRAME_SIZE:
                self._frame_size = value
        self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        self._send_held()
        if not self._ready.done():
            self._ready.set_result(None)

    def _send_held(self) -> None:
        """Of what waits for room in the peer's windows, all there is room for."""
        for stream, call in list(self._held.items()):
            while call.unsent is not None:
                room = min(self._window, call.window, self._frame_size)
                if room <= 0:
                    break
                part, rest = call.unsent[:room], call.unsent[room:]
                self._window -= len(part)
                call.window -= len(part)
                call.unsent = rest if len(rest) else None
                last = 0 if len(rest) else _END_STREAM
                self._transport.write(_frame(_DATA, last, stream, part))
            if call.unsent is None:
                del self._held[stream]

    def _give_room(self, bytes_: int) -> None:
        self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", bytes_)))

    def _give_up(self, stream: int) -> None:
        self._transport.write(_frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL)))
        self._end(stream, "DEADLINE_EXCEEDED", b"")

    def _end(self, stream: int, code: str, reply: bytes) -> None:
        call = self._calls.pop(stream)
        self._held.pop(stream, None)
        if call.timer:
            call.timer.cancel()
        if not call.ended.done():
            call.ended.set_result((code, reply))

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        for stream in list(self._calls):
            self._end(stream, why, b"")
        if not self._ready.done():
            self._ready.set_exception(OSError(f"no gRPC server: {why}"))
        self._transport.close()


def _headers(authority: str, method: str, deadline_s: float | None) -> tuple[bytes, bytes]:
    """A call's headers (RFC 7541): written out for the first, their places in the table after."""
    fields = [
        (b":path", method.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    if deadline_s is not None:
        fields.append((b"grpc-timeout", b"%du" % min(round(deadline_s * 1e6), _LONGEST_US)))
    fixed = b"\x83\x86"  # :method POST, :scheme http
    written = b"".join(b"\x40" + _text(name) + _text(value) for name, value in fields)
    places = bytes(0x80 | 62 + place for place in reversed(range(len(fields))))
    return fixed + written, fixed + places


def _text(text: bytes) -> bytes:
    return bytes([len(text)]) + text  # of fewer than 127 bytes, not Huffman coded


def _frame(kind: int, flags: int, stream: int, content: bytes | memoryview) -> bytes:
    return b"".join((struct.pack(">IBI", len(content) << 8 | kind, flags, stream), content))


def _code(block: bytes) -> str:
    """The status among trailers that no table has compressed."""
    at = block.find(_STATUS) + len(_STATUS)
    number = block[at + 1 : at + 1 + block[at]]
    if at < len(_STATUS) or not number.isdigit():
        return "NO_STATUS"
    return _CODES[int(number)]
