"""The channel under both clients: second tries, balance over replicas, errors with their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import status_pb2

from diptych import wire
from diptych.v1 import conditioning_pb2, embedding_pb2, moderation_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_EMBEDDING = embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name
_CONDITIONING = conditioning_pb2.DESCRIPTOR.services_by_name["ConditioningService"].full_name
_MODERATION = moderation_pb2.DESCRIPTOR.services_by_name["ModerationService"].full_name

# gRPC itself tries again, inside the call's deadline and no oftener than the throttle allows,
# spreads calls over all addresses a name has, and leaves out those whose health is NOT_SERVING.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": _EMBEDDING},
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    "methodConfig": [
        {
            "name": [{"service": name} for name in (_EMBEDDING, _MODERATION, _CONDITIONING)],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # CANCELLED: what gRPC says of a call that a server could not finish as it
                # stopped. Whoever cancels a call of their own ends its tries too.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
            },
        }
    ],
}


@contextmanager
def typed_errors() -> Iterator[None]:
    """What gRPC raises becomes the error the server meant."""
    try:
        yield
    except grpc.RpcError as exc:
        raise wire.to_error(_status(exc)) from exc


def channel_options(retries: bool) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.enable_retries", int(retries)),
        # Larger requests are sent once and never again; the default of 256 KiB is one image.
        ("grpc.per_rpc_retry_buffer_size", 64 * 2**20),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 30_000),
        # A replica that is back is found within a second, and so are the addresses of new ones:
        # by default gRPC waits up to two minutes, and 30 s between look-ups, while a rolling
        # restart takes away the replicas it knows.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5000),  # how long one attempt may take
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ]


def _status(exc: Any) -> status_pb2.Status:
    """The rich status if the server sent one, else the bare code and message."""
    for key, value in exc.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return status_pb2.Status(code=exc.code().value[0], message=exc.details() or exc.code().name)
