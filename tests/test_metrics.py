"""What is exported: every name, every label, and what a call pays for it."""

from __future__ import annotations

from typing import get_args

from prometheus_client.metrics import MetricWrapperBase

from diptych.errors import (
    BadAccess,
    BadData,
    BadJob,
    BadRepository,
    Bound,
    DiptychError,
    Overloaded,
    Unidentified,
    Unknown,
)
from diptych.gateway.gauges import prepare
from diptych.gateway.server import SERVICES
from diptych.gateway.status import STATUS, reason_of
from diptych.metrics import REJECTS, Metrics

METHOD = ("grpc_type", "grpc_service", "grpc_method")

# Names are a promise to dashboards and alerts of others; labels a promise that none grows with
# what callers send. What is added here belongs on a dashboard, too.
PROMISED: dict[str, tuple[str, ...]] = {
    "grpc_server_started_total": METHOD,
    "grpc_server_handled_total": (*METHOD, "grpc_code"),
    "grpc_server_handling_seconds": METHOD,
    "diptych_calls_open": (),
    "diptych_rejects_total": ("scope", "reason"),
    "diptych_stage_duration_seconds": ("stage",),
    "diptych_batch_inputs": ("tower",),
    "diptych_batch_duration_seconds": ("tower",),
    "diptych_cache_requests_total": ("kind", "outcome"),
    "diptych_cache_bytes": ("kind",),
    "diptych_inputs_inside": (),
    "diptych_inputs_limit": (),
    "diptych_inside_bytes": (),
    "diptych_inside_limit_bytes": (),
    "diptych_queue_inputs": ("queue",),
    "diptych_build_info": ("version",),
    "diptych_space_info": ("model", "version", "fingerprint"),
    "diptych_canary": (),
    "diptych_canary_checks_total": ("model", "outcome"),
    "diptych_certificate_reloads_total": ("outcome",),
    "diptych_certificate_expires_timestamp_seconds": (),
    "diptych_rollouts_total": ("outcome",),
    "diptych_engine_up": ("model",),
    "diptych_engine_breaker_open": ("model", "tower"),
    "diptych_engine_mixed_answers_total": ("model", "tower"),
    "diptych_verdicts_total": ("policy", "verdict"),
    "diptych_concepts_reached_total": ("policy", "concept"),
    "diptych_policy_info": ("policy", "version", "fingerprint"),
    "diptych_policy_reloads_total": ("outcome",),
}


def declared(metrics: Metrics) -> dict[str, tuple[str, ...]]:
    """Every metric of ours by the name it is exported under, with its labels."""
    found = [own for own in vars(metrics).values() if isinstance(own, MetricWrapperBase)]
    return {
        f"{own._name}_total" if own._type == "counter" else own._name: own._labelnames
        for own in found
    }


def test_what_is_exported_is_what_is_promised() -> None:
    metrics = Metrics()
    assert declared(metrics) == PROMISED
    exported = {family.name for family in metrics.registry.collect()}
    names = {name.removesuffix("_total") for name in PROMISED}
    assert {name for name in exported - names if not name.startswith("process_")} == set()


def test_every_error_a_call_can_end_with_has_a_reason_that_is_listed() -> None:
    of_start_up_and_jobs = {BadRepository, BadAccess, BadData, BadJob}
    told_apart: dict[type[DiptychError], set[str]] = {
        Overloaded: {reason_of(Overloaded("full", bound)) for bound in get_args(Bound)},
        Unidentified: {reason_of(Unidentified("who?", why)) for why in get_args(Unknown)},
    }
    found = {reason_of(ValueError("?"))}
    for kind in set(STATUS) - of_start_up_and_jobs:
        found |= told_apart.get(kind) or {reason_of(kind.__new__(kind))}
    assert found == set(REJECTS["call"])


def test_every_method_starts_at_zero_for_every_status() -> None:
    metrics = Metrics()
    prepare(metrics, SERVICES)
    samples = [sample for family in metrics.handled.collect() for sample in family.samples]
    assert {sample.value for sample in samples} == {0.0}
    kinds = {(s.labels["grpc_method"], s.labels["grpc_type"]) for s in samples}
    assert {("Embed", "unary"), ("EmbedStream", "bidi_stream"), ("Moderate", "unary")} <= kinds
    codes = {s.labels["grpc_code"] for s in samples}
    assert {"OK", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"} <= codes
    assert len(samples) == len(kinds) * len(codes)
