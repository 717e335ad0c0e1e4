"""The Prometheus rules of a gateway: what is recorded, and what somebody is told of.

`python deploy/monitoring/build.py` writes them; RUNBOOK.md has a section for every alert.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Rule = dict[str, Any]

# The two promises. Who promises something else changes these and builds again.
AVAILABLE = 0.999  # of the calls, those that do not fail by our fault
IN_TIME = 0.99  # of the calls that are not streams, those that end within SLOW_S
SLOW_S = "0.5"  # a bucket of grpc_server_handling_seconds

# Our fault: not the caller's mistakes, nor refusals of more than was agreed (those have an alert).
_FAULTS = "UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|UNKNOWN|DATA_LOSS"

# (how fast the month's budget burns, long window, short window, who is told): 2 % of it in an hour,
# 5 % in six, 10 % in three days. The short window ends the alert soon after the trouble.
BURNS = (
    ("Fast", 14.4, "1h", "5m", "page"),
    ("Steady", 6, "6h", "30m", "page"),
    ("Slow", 1, "3d", "6h", "ticket"),
)
_WINDOWS = ("5m", "30m", "1h", "6h", "3d")
_CALLS_PER_S = 1 / 60  # fewer, and one unlucky call would be an outage

_OURS = 'grpc_service=~"diptych[.].*"'
_RUNBOOK = "deploy/RUNBOOK.md"


def groups() -> list[dict[str, Any]]:
    """Prometheus' rule groups."""
    return [
        {"name": "diptych-promises", "rules": list(_recorded())},
        {"name": "diptych-budgets", "rules": list(_burning())},
        {"name": "diptych-state", "rules": list(_state())},
        {"name": "diptych-load", "rules": list(_load())},
        {"name": "diptych-changes", "rules": list(_changes())},
    ]


def _recorded() -> Iterator[Rule]:
    for window in _WINDOWS:
        calls = f"sum by (job) (rate(grpc_server_handled_total{{{_OURS}}}[{window}]))"
        faults = (
            f'sum by (job) (rate(grpc_server_handled_total{{{_OURS},grpc_code=~"{_FAULTS}"}}'
            f"[{window}]))"
        )
        yield {"record": f"job:diptych_calls:rate{window}", "expr": calls}
        yield {
            "record": f"job:diptych_calls_failed:ratio_rate{window}",
            "expr": f"{faults} / (job:diptych_calls:rate{window} > 0)",
        }
    for window in _WINDOWS:
        unary = f'{_OURS},grpc_type="unary"'
        name = "grpc_server_handling_seconds"
        within = f'sum by (job) (rate({name}_bucket{{{unary},le="{SLOW_S}"}}[{window}]))'
        every = f"sum by (job) (rate({name}_count{{{unary}}}[{window}]))"
        yield {
            "record": f"job:diptych_calls_slow:ratio_rate{window}",
            "expr": f"1 - {within} / ({every} > 0)",
        }


def _burning() -> Iterator[Rule]:
    promises = (
        ("Error", "job:diptych_calls_failed", 1 - AVAILABLE, "of the calls fail by our fault"),
        ("Latency", "job:diptych_calls_slow", 1 - IN_TIME, f"of the calls take over {SLOW_S} s"),
    )
    for what, series, budget, words in promises:
        for pace, factor, long, short, severity in BURNS:
            most = f"{factor * budget:.6g}"
            yield _alert(
                f"Diptych{what}BudgetBurns{pace}",
                f"{series}:ratio_rate{long} > {most}\n"
                f"and {series}:ratio_rate{short} > {most}\n"
                f"and job:diptych_calls:rate{long} > {_CALLS_PER_S:.4f}",
                severity,
                f"{{{{ $value | humanizePercentage }}}} {words} over {long}: "
                f"{factor:g} times what the month allows, or more",
            )


def _state() -> Iterator[Rule]:
    yield _alert(
        "DiptychDown",
        "absent(diptych_build_info)",
        "page",
        "no gateway is scraped: all are down, or Prometheus does not find them",
        "2m",
    )
    yield _alert(
        "DiptychEngineDown",
        "diptych_engine_up == 0",
        "page",
        "the engine of {{ $labels.model }} does not answer {{ $labels.instance }}",
        "1m",
    )
    yield _alert(
        "DiptychCanaryWrong",
        'increase(diptych_canary_checks_total{outcome="wrong"}[5m]) > 0',
        "page",
        "the engine of {{ $labels.model }} answers {{ $labels.instance }} with wrong vectors",
    )
    yield _alert(
        "DiptychNotServing",
        "diptych_canary == 0",
        "page",
        "{{ $labels.instance }} has taken itself out of service",
        "2m",
    )
    yield _alert(
        "DiptychBreakerOpen",
        "max by (job, model, tower) (diptych_engine_breaker_open) == 1",
        "ticket",
        "calls of the {{ $labels.tower }} tower of {{ $labels.model }} are refused unasked",
        "2m",
    )
    yield _alert(
        "DiptychAnswersMixedUp",
        "increase(diptych_engine_mixed_answers_total[1h]) > 0",
        "ticket",
        "Triton gave {{ $labels.instance }} answers of other calls; each was found out",
    )
    yield _alert(
        "DiptychInternalErrors",
        "sum by (job) (increase("
        f'grpc_server_handled_total{{{_OURS},grpc_code=~"INTERNAL|UNKNOWN"}}[15m])) > 5',
        "ticket",
        "{{ $value | humanize }} calls of the last 15 minutes ended as INTERNAL or UNKNOWN",
    )


def _load() -> Iterator[Rule]:
    yield _alert(
        "DiptychSaturated",
        "max by (job, instance) (diptych_inputs_inside / diptych_inputs_limit) > 0.8\n"
        "or max by (job, instance) (diptych_inside_bytes / diptych_inside_limit_bytes) > 0.8",
        "ticket",
        "{{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        "5m",
    )
    yield _alert(
        "DiptychQueueing",
        'sum by (job) (rate(diptych_stage_duration_seconds_sum{stage="queue"}[5m]))\n'
        '/ (sum by (job) (rate(diptych_stage_duration_seconds_count{stage="queue"}[5m])) > 0)\n'
        "> 0.25",
        "ticket",
        "inputs wait {{ $value | humanizeDuration }} for the engine on average",
        "10m",
    )
    yield _alert(
        "DiptychRejecting",
        "sum by (job) (rate("
        'diptych_rejects_total{scope="call",reason=~"no_room|no_time|engine_full"}[5m]))\n'
        "/ (job:diptych_calls:rate5m > 0) > 0.01",
        "page",
        "{{ $value | humanizePercentage }} of the calls are refused for want of capacity",
        "5m",
    )
    yield _alert(
        "DiptychOverQuota",
        'sum by (job) (rate(diptych_rejects_total{reason="over_quota"}[15m])) > 0.1',
        "ticket",
        "{{ $value | humanize }} calls a second are refused over a caller's quota",
        "15m",
    )
    yield _alert(
        "DiptychCredentialsRefused",
        'sum by (job) (rate(diptych_rejects_total{reason=~".*_credentials|not_allowed"}[5m])) > 1',
        "ticket",
        "{{ $value | humanize }} calls a second come without a right to",
        "10m",
    )


def _changes() -> Iterator[Rule]:
    changes = (
        ("Certificate", "diptych_certificate_reloads_total", "new certificates or callers"),
        ("Policy", "diptych_policy_reloads_total", "changed policies"),
        ("Rollout", "diptych_rollouts_total", "a new version of a model"),
    )
    for name, series, what in changes:
        yield _alert(
            f"Diptych{name}Refused",
            f'increase({series}{{outcome="refused"}}[30m]) > 0',
            "ticket",
            f"{{{{ $labels.instance }}}} does not take up {what}; the last good ones stay",
        )
    expires = "diptych_certificate_expires_timestamp_seconds"
    yield _alert(
        "DiptychCertificateExpires",
        f"({expires} > 0) - time() < 7 * 24 * 3600",
        "ticket",
        "the certificate of {{ $labels.instance }} expires in {{ $value | humanizeDuration }}",
    )


def _alert(name: str, expr: str, severity: str, summary: str, lasting: str = "") -> Rule:
    return {
        "alert": name,
        "expr": expr,
        **({"for": lasting} if lasting else {}),
        "labels": {"severity": severity},
        "annotations": {
            "summary": summary,
            "runbook_url": f"{_RUNBOOK}#{name.lower()}",
        },
    }
