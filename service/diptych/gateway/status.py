"""Which gRPC status each of our errors becomes. The only place that knows."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from diptych.errors import (
    BadAccess,
    BadData,
    BadInput,
    BadJob,
    BadRepository,
    DeadlinePassed,
    DiptychError,
    EngineFailed,
    EngineUnavailable,
    NotAllowed,
    NotFound,
    Overloaded,
    SpaceMismatch,
    Unidentified,
)

DETAILS_KEY = "grpc-status-details-bin"  # where clients of every language look for the details
PUSHBACK_KEY = "grpc-retry-pushback-ms"  # what gRPC's own retries obey
DOMAIN = "diptych"


@dataclass(frozen=True, slots=True)
class Kind:
    """How one of our errors is told to a caller."""

    code: grpc.StatusCode
    reason: str  # of google.rpc.ErrorInfo: stable, for programs
    retry_after_s: float | None = None  # None: trying again will not help


STATUS: dict[type[DiptychError], Kind] = {
    BadInput: Kind(grpc.StatusCode.INVALID_ARGUMENT, "BAD_INPUT"),
    NotFound: Kind(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    SpaceMismatch: Kind(grpc.StatusCode.FAILED_PRECONDITION, "SPACE_MISMATCH"),
    Overloaded: Kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.25),
    DeadlinePassed: Kind(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
    EngineUnavailable: Kind(grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE", retry_after_s=1.0),
    EngineFailed: Kind(grpc.StatusCode.INTERNAL, "ENGINE_FAILED"),
    Unidentified: Kind(grpc.StatusCode.UNAUTHENTICATED, "UNIDENTIFIED"),
    NotAllowed: Kind(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"),
    BadRepository: Kind(grpc.StatusCode.INTERNAL, "BAD_REPOSITORY"),  # at start-up only
    BadAccess: Kind(grpc.StatusCode.INTERNAL, "BAD_ACCESS"),  # likewise
    BadData: Kind(grpc.StatusCode.INTERNAL, "BAD_DATA"),  # in offline jobs only
    BadJob: Kind(grpc.StatusCode.INTERNAL, "BAD_JOB"),  # likewise
}


# Every status one of our calls can end with.
CODES = {kind.code for kind in STATUS.values()} | {
    grpc.StatusCode.OK,
    grpc.StatusCode.CANCELLED,  # the caller went away
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNKNOWN,  # a bug, which shows
}


def to_status(error: DiptychError) -> status_pb2.Status:
    """The whole truth a caller gets about `error`: code, message and machine-readable details."""
    kind = STATUS[type(error)]
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=kind.reason, domain=DOMAIN)]
    if isinstance(error, BadInput):
        details.append(_bad_request(error))
    delay_s = error.retry_after_s if isinstance(error, Overloaded) else None
    if (delay_s := delay_s or kind.retry_after_s) is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(delay_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return _status(kind.code, str(error), details)


def reason_of(error: Exception) -> str:
    """Why a call is refused, as one of metrics.REJECTS."""
    if isinstance(error, Overloaded):
        return error.bound
    if isinstance(error, Unidentified):
        return error.why
    kind = STATUS.get(type(error)) if isinstance(error, DiptychError) else None
    return kind.reason.lower() if kind else "internal"


def unexpected(error_id: str) -> status_pb2.Status:
    """For what should not happen: an id that leads to the log, and nothing else."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"id": error_id})
    return _status(grpc.StatusCode.INTERNAL, f"internal error {error_id}", [info])


def trailing(status: status_pb2.Status) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata that carries `status` beside its code and message."""
    metadata: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            metadata.append((PUSHBACK_KEY, str(retry.retry_delay.ToMilliseconds())))
    return tuple(metadata)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    return _CODES[status.code]


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _bad_request(error: BadInput) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.problem)
            for v in error.violations
        ]
    )


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
