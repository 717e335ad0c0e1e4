"""The statuses a caller hears, as the errors the server meant."""

from __future__ import annotations

from collections.abc import Mapping

from google.rpc import code_pb2, error_details_pb2, status_pb2

from diptych.errors import (
    BadInput,
    DeadlinePassed,
    DiptychError,
    EngineFailed,
    EngineUnavailable,
    NotAllowed,
    NotFound,
    Overloaded,
    SpaceMismatch,
    Unidentified,
    Violation,
)

# The inverse of the server's table; a code that is not here is EngineFailed.
ERRORS: Mapping[int, type[DiptychError]] = {
    code_pb2.INVALID_ARGUMENT: BadInput,
    code_pb2.NOT_FOUND: NotFound,
    code_pb2.FAILED_PRECONDITION: SpaceMismatch,
    code_pb2.RESOURCE_EXHAUSTED: Overloaded,
    code_pb2.DEADLINE_EXCEEDED: DeadlinePassed,
    code_pb2.UNAVAILABLE: EngineUnavailable,
    code_pb2.UNAUTHENTICATED: Unidentified,
    code_pb2.PERMISSION_DENIED: NotAllowed,
}

_CODES = {kind: code for code, kind in ERRORS.items()}


def to_error(status: status_pb2.Status) -> DiptychError:
    """The error a server meant by `status`, with its field violations if it has any."""
    kind = ERRORS.get(status.code, EngineFailed)
    if kind is Overloaded:
        return Overloaded(status.message, retry_after_s=_retry_after_s(status))
    if kind is not BadInput:
        return kind(status.message)
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Is(bad.DESCRIPTOR) and detail.Unpack(bad):
            return BadInput([Violation(v.field, v.description) for v in bad.field_violations])
    return BadInput.at("request", status.message)


def _retry_after_s(status: status_pb2.Status) -> float | None:
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            return float(retry.retry_delay.ToMilliseconds() / 1000)
    return None


def code_name(error: DiptychError) -> str:
    """The name of the gRPC status that `error` came as: "INVALID_ARGUMENT"."""
    name: str = code_pb2.Code.Name(_CODES.get(type(error), code_pb2.INTERNAL))
    return name
