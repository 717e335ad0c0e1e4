"""Which gRPC status each of our errors becomes. The only place that knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
    delay_s = error.retry_after_s if isinstance(error, Overloaded) else None
    details = _details(kind.reason, delay_s or kind.retry_after_s)
    if isinstance(error, BadInput):
        details = (*details, _packed(_bad_request(error)))
    return status_pb2.Status(code=kind.code.value[0], message=str(error), details=details)


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
    code, message = grpc.StatusCode.INTERNAL.value[0], f"internal error {error_id}"
    return status_pb2.Status(code=code, message=message, details=[_packed(info)])


def trailing(status: status_pb2.Status) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata that carries `status` beside its code and message."""
    metadata: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    for detail in status.details:
        if detail.type_url.endswith(_RETRY_INFO):
            metadata.append((PUSHBACK_KEY, _delay_ms(detail.value)))
    return tuple(metadata)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    return _CODES[status.code]


_RETRY_INFO = error_details_pb2.RetryInfo.DESCRIPTOR.full_name
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _bad_request(error: BadInput) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.problem)
            for v in error.violations
        ]
    )


# A server that refuses much says the same over and over; packing it anew would take a fifth of
# the time that a refusal costs.
@lru_cache
def _details(reason: str, retry_after_s: float | None) -> tuple[any_pb2.Any, ...]:
    info = _packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    if retry_after_s is None:
        return (info,)
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(retry_after_s * 1e9))
    return info, _packed(error_details_pb2.RetryInfo(retry_delay=delay))


@lru_cache
def _delay_ms(retry_info: bytes) -> str:
    found = error_details_pb2.RetryInfo.FromString(retry_info)
    return str(found.retry_delay.ToMilliseconds())


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
