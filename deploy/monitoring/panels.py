"""The Grafana dashboard of a gateway, as rows of panels. `build.py` writes it."""

from __future__ import annotations

from typing import Any

from rules import AVAILABLE, IN_TIME, SLOW_S

Panel = dict[str, Any]

_WIDTH, _HEIGHT = 8, 7  # of a grid 24 wide
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_HERE = 'job=~"$job",instance=~"$instance"'
_OURS = f'{_HERE},grpc_service=~"diptych[.].*"'


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    panels: list[Panel] = []
    top = 0
    for title, row in _rows().items():
        panels.append(_head(title, len(panels) + 1, top))
        top += 1
        for place, panel in enumerate(row):
            down, across = divmod(place, 24 // _WIDTH)
            where = {"x": across * _WIDTH, "y": top + down * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append({"id": len(panels) + 1, **panel, "gridPos": where})
        top += -(-len(row) // (24 // _WIDTH)) * _HEIGHT
    return {
        "title": "Diptych",
        "uid": "diptych",
        "tags": ["diptych"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,  # one cursor over all panels
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _rows() -> dict[str, list[Panel]]:
    return {
        "Promises": _promises(),
        "Traffic": _traffic(),
        "Errors": _errors(),
        "Latency by stage": _latency(),
        "Batching": _batching(),
        "Saturation": _saturation(),
        "Engine": _engine(),
        "Moderation, models and changes": _contents(),
    }


def _promises() -> list[Panel]:
    failed, slow = "job:diptych_calls_failed:ratio_rate", "job:diptych_calls_slow:ratio_rate"
    job = '{job=~"$job"}'
    windows = ("5m", "1h", "6h")
    return [
        _lines(
            f"How fast the error budget burns ({AVAILABLE:.1%} of calls)",
            {w: f"{failed}{w}{job} / {1 - AVAILABLE:.6g}" for w in windows},
            about="1: it lasts a month to the day. A page at 14.4 over 1h, or 6 over 6h.",
        ),
        _lines(
            f"How fast the latency budget burns ({IN_TIME:.0%} within {SLOW_S} s)",
            {w: f"{slow}{w}{job} / {1 - IN_TIME:.6g}" for w in windows},
            about="1: it lasts a month to the day. A page at 14.4 over 1h, or 6 over 6h.",
        ),
        _lines("Calls a second", {"{{job}}": f"job:diptych_calls:rate5m{job}"}, "reqps"),
    ]


def _traffic() -> list[Panel]:
    return [
        _lines(
            "Calls begun, by method",
            {"{{grpc_method}}": _rate("grpc_server_started_total", "grpc_method", _OURS)},
            "reqps",
        ),
        _lines(
            "Inputs embedded, by kind",
            {"{{kind}}": _rate("diptych_cache_requests_total", "kind")},
            "ops",
        ),
        _lines("Calls open", {"{{instance}}": f"diptych_calls_open{{{_HERE}}}"}),
    ]


def _errors() -> list[Panel]:
    bad = _OURS + ',grpc_code!="OK"'
    return [
        _lines(
            "Calls that did not end OK, by status",
            {"{{grpc_code}}": _rate("grpc_server_handled_total", "grpc_code", bad)},
            "reqps",
        ),
        _lines(
            "Calls refused, by reason",
            {"{{reason}}": _rate("diptych_rejects_total", "reason", f'{_HERE},scope="call"')},
            "reqps",
        ),
        _lines(
            "Single inputs refused, by reason",
            {"{{reason}}": _rate("diptych_rejects_total", "reason", f'{_HERE},scope="input"')},
            "ops",
        ),
    ]


def _latency() -> list[Panel]:
    calls, stage = "grpc_server_handling_seconds", "diptych_stage_duration_seconds"
    unary = _OURS + ',grpc_type="unary"'
    mean = f"{_rate(f'{stage}_sum', 'stage')} / {_rate(f'{stage}_count', 'stage')}"
    return [
        _lines(
            "Calls, all but streams",
            {f"p{q}": _quantile(q, calls, "", unary) for q in (50, 95, 99)},
            "s",
        ),
        _lines(
            "p95 by method",
            {"{{grpc_method}}": _quantile(95, calls, "grpc_method", unary)},
            "s",
        ),
        _lines("p95 by stage", {"{{stage}}": _quantile(95, stage, "stage")}, "s"),
        _lines("Mean by stage", {"{{stage}}": mean}, "s"),
    ]


def _batching() -> list[Panel]:
    size = "diptych_batch_inputs"
    mean = f"{_rate(f'{size}_sum', 'tower')} / {_rate(f'{size}_count', 'tower')}"
    hits = _rate("diptych_cache_requests_total", "kind", f'{_HERE},outcome="hit"')
    return [
        _lines("Inputs a batch, mean", {"{{tower}}": mean}),
        _lines("Inputs a batch, p95", {"{{tower}}": _quantile(95, size, "tower")}),
        _lines("Batches a second", {"{{tower}}": _rate(f"{size}_count", "tower")}, "ops"),
        _lines(
            "Found in the cache",
            {"{{kind}}": f"{hits} / {_rate('diptych_cache_requests_total', 'kind')}"},
            "percentunit",
        ),
        _lines("Cache", {"{{kind}}": f"sum by (kind) (diptych_cache_bytes{{{_HERE}}})"}, "bytes"),
    ]


def _saturation() -> list[Panel]:
    inputs = f"diptych_inputs_inside{{{_HERE}}} / diptych_inputs_limit{{{_HERE}}}"
    held = f"diptych_inside_bytes{{{_HERE}}} / diptych_inside_limit_bytes{{{_HERE}}}"
    return [
        _lines("Inputs inside, of the limit", {"{{instance}}": inputs}, "percentunit"),
        _lines("Bytes inside, of the limit", {"{{instance}}": held}, "percentunit"),
        _lines(
            "Inputs that wait, by queue",
            {"{{queue}}": f"sum by (queue) (diptych_queue_inputs{{{_HERE}}})"},
        ),
        _lines(
            "Processor seconds a second",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{_HERE}}}[$__rate_interval])"},
        ),
        _lines("Memory", {"{{instance}}": f"process_resident_memory_bytes{{{_HERE}}}"}, "bytes"),
        _lines(
            "Open files, of the limit",
            {"{{instance}}": f"process_open_fds{{{_HERE}}} / process_max_fds{{{_HERE}}}"},
            "percentunit",
        ),
    ]


def _engine() -> list[Panel]:
    batch = "diptych_batch_duration_seconds"
    mixed = "diptych_engine_mixed_answers_total"
    return [
        _lines(
            "Engine there, canary right",
            {
                "{{model}} there": f"min by (model) (diptych_engine_up{{{_HERE}}})",
                "canary right": f"min(diptych_canary{{{_HERE}}})",
            },
        ),
        _lines(
            "Canaries a second, by outcome",
            {"{{outcome}}": _rate("diptych_canary_checks_total", "outcome")},
        ),
        _lines(
            "Breaker open",
            {
                "{{model}} {{tower}}": "max by (model, tower) "
                f"(diptych_engine_breaker_open{{{_HERE}}})"
            },
        ),
        _lines(
            "Batches running at once",
            {"{{tower}}": _rate(f"{batch}_sum", "tower")},
            about="At the engine's own number (1 for the embedded one) it is never idle.",
        ),
        _lines("A batch, p95", {"{{tower}}": _quantile(95, batch, "tower")}, "s"),
        _lines(
            "Answers mixed up by Triton",
            {"{{tower}}": f"sum by (tower) (increase({mixed}{{{_HERE}}}[1h]))"},
        ),
    ]


def _contents() -> list[Panel]:
    changes = ("rollouts", "policy_reloads", "certificate_reloads")
    return [
        _lines(
            "Verdicts a second",
            {"{{policy}} {{verdict}}": _rate("diptych_verdicts_total", "policy, verdict")},
        ),
        _lines(
            "Concepts reached a second",
            {"{{policy}} {{concept}}": _rate("diptych_concepts_reached_total", "policy, concept")},
        ),
        _lines(
            "Changes refused in an hour",
            {
                name: f'sum(increase(diptych_{name}_total{{{_HERE},outcome="refused"}}[1h]))'
                for name in changes
            },
        ),
        _lines(
            "Until the certificate expires (before now: no TLS)",
            {"{{instance}}": f"diptych_certificate_expires_timestamp_seconds{{{_HERE}}} - time()"},
            "s",
        ),
        _table("Spaces served", f"diptych_space_info{{{_HERE}}}"),
        _table("Policies in use", f"diptych_policy_info{{{_HERE}}}"),
        _table("Gateways", f"diptych_build_info{{{_HERE}}}"),
    ]


def _rate(metric: str, by: str, labels: str = _HERE) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _quantile(percent: int, metric: str, by: str, labels: str = _HERE) -> str:
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({percent / 100}, {_rate(f'{metric}_bucket', groups, labels)})"


def _lines(title: str, queries: dict[str, str], unit: str = "short", about: str = "") -> Panel:
    """Curves by their legends; a legend names labels as {{label}}."""
    return {
        "type": "timeseries",
        "title": title,
        "description": about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expr, "legendFormat": legend}
            for number, (legend, expr) in enumerate(queries.items())
        ],
    }


def _table(title: str, expr: str) -> Panel:
    return {
        "type": "table",
        "title": title,
        "datasource": _SOURCE,
        "targets": [{"refId": "A", "expr": expr, "format": "table", "instant": True}],
    }


def _head(title: str, number: int, top: int) -> Panel:
    where = {"x": 0, "y": top, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": where}


def _variables() -> list[dict[str, Any]]:
    def label(name: str, of: str) -> dict[str, Any]:
        return {
            "name": name,
            "type": "query",
            "datasource": _SOURCE,
            "query": f"label_values({of}, {name})",
            "refresh": 2,  # whenever the time range changes
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
        }

    return [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        label("job", "diptych_build_info"),
        label("instance", 'diptych_build_info{job=~"$job"}'),
    ]
