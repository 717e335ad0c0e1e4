"""Log lines: as JSON or for a person; and the one line of every call."""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from diptych.gateway.identity import current
from diptych.gateway.telemetry import CALL, FAULTS, Call, Fact

if TYPE_CHECKING:  # generic in the stubs, not at run time
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

Format: TypeAlias = Literal["text", "json"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_FAULTS_A_SECOND = 20  # lines; an outage under load would fill the disk

log = logging.getLogger("diptych.access")


def configure(kind: Format, level: Level) -> None:
    """Send what is logged to standard error.

    `level` is for this package only. Libraries keep to warnings: at their most talkative they
    write pieces of what they read (Pillow the tags of a picture, gRPC headers).
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if kind == "json" else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("diptych").setLevel(level.upper())
    logging.captureWarnings(True)


def trace_of(error: BaseException) -> str:
    """Where an error came from, without its words: they may quote what a caller sent."""
    found: list[str] = []
    while True:
        frames = "".join(traceback.format_tb(error.__traceback__))
        found.append(f"{frames}{type(error).__module__}.{type(error).__qualname__}")
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            return "\nraised while handling\n".join(found)
        error = cause


class AccessLog:
    """Writes a line for each call, or only for those that failed by our fault."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._second = 0
        self._faults = 0  # in that second
        self._unsaid = 0

    def ended(self, method: str, code: str, duration_s: float, context: Context) -> None:
        """The call that runs at present has."""
        is_fault = code in FAULTS
        if not self._is_on and not (is_fault and self._has_room()):
            return
        if (call := CALL.get()) is None:
            return
        facts: dict[str, Fact] = {
            "method": method,
            "code": code,
            "duration_ms": round(duration_s * 1e3, 3),
            **_who(call, context.peer()),
            "request_bytes": call.request_bytes,
            "response_bytes": call.response_bytes,
            **call.facts,
        }
        if self._unsaid:
            facts["faults_without_a_line"] = self._unsaid
            self._unsaid = 0
        level = logging.WARNING if is_fault else logging.INFO
        log.log(level, "%s %s", method, code, extra={"facts": facts})

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._faults = second, 0
        self._faults += 1
        if self._faults > _FAULTS_A_SECOND:
            self._unsaid += 1
            return False
        return True


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Fact] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Text(logging.Formatter):
    """As the other, for a person."""

    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record)
        trace = str(facts.pop("traceback", ""))
        if record.exc_info:
            trace = self.formatException(record.exc_info)
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        line += "".join(f" {name}={value}" for name, value in facts.items())
        return f"{line}\n{trace}" if trace else line


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _facts(record: logging.LogRecord) -> dict[str, Fact]:
    """Of the record itself; those of a line within a call say which call."""
    own: dict[str, Fact] = dict(getattr(record, "facts", {}))
    if "request_id" not in own and (call := CALL.get()) is not None:
        own.update(_who(call, ""))
    return own


def _who(call: Call, peer: str) -> dict[str, Fact]:
    found = {
        "request_id": call.request_id,
        "trace_id": call.trace_id,
        "caller": current() or "",
        "peer": peer,
    }
    return {name: value for name, value in found.items() if value}
