"""The gateway that is deployed is the gateway that there is: its settings, probes and end."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from diptych import cli
from diptych.gateway.probing import ALIVE
from diptych.gateway.server import SERVICES
from diptych.settings import PREFIX, Settings, check_environment
from diptych_export import cli as export_cli
from tests.deploy.manifests import Manifest, Pod, of_kind, pod, pods
from tests.serving import SHAPES

Rendered = dict[str, list[Manifest]]

WORKERS_S = 10  # gateway/workers.py gives them that beyond the drain


def variables(found: list[Manifest]) -> dict[str, str]:
    [settings] = [
        one["data"]
        for one in of_kind(found, "ConfigMap")
        if one["metadata"]["name"].startswith("diptych-settings-")
    ]
    return dict(settings)


def settings(found: list[Manifest], patch: pytest.MonkeyPatch) -> Settings:
    """What `diptych serve` makes of the pod's command line and variables."""
    for name, value in variables(found).items():
        patch.setenv(name, value)
    check_environment()
    command, bound, _ = cli.app.parse_args(pod(found, "gateway").main["args"])
    assert command.__name__ == "serve"
    taken: Settings = bound.arguments.get("options", Settings())
    for name in variables(found):
        patch.delenv(name)
    return taken


def test_the_gateway_takes_every_setting_it_is_given(
    services: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, found in services.items():
        taken, given = settings(found, monkeypatch), variables(found)
        for variable, value in given.items():
            if variable.startswith("OTEL_"):  # OpenTelemetry's own
                continue
            became = getattr(taken, variable.removeprefix(PREFIX).lower())
            assert str(became).lower().removesuffix(".0") == value.lower(), (name, variable)


def test_ports_are_those_that_are_set(services: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    for found in services.values():
        taken, one = settings(found, monkeypatch), pod(found, "gateway").main
        ports = {port["name"]: port["containerPort"] for port in one["ports"]}
        assert ports == {
            "grpc": taken.port,
            "health": taken.health_port,
            "metrics": taken.metrics_port,
        }


def test_probes_ask_the_canary_where_tls_is_not_spoken(services: Rendered) -> None:
    for found in services.values():
        one = pod(found, "gateway").main
        health = next(p["containerPort"] for p in one["ports"] if p["name"] == "health")
        probes = {
            kind: one[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")
        }
        assert {probe["port"] for probe in probes.values()} == {health}
        assert probes["startup"]["service"] == probes["readiness"]["service"] == SERVICES[0]
        # Of an engine in the pod the canary tells; a Triton that is away is no fault of the pod.
        has_triton = "DIPTYCH_ENGINE" in variables(found)
        assert probes["liveness"]["service"] == (ALIVE if has_triton else "")


def test_a_pod_has_longer_to_end_than_its_drain_takes(
    services: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found in services.values():
        one = pod(found, "gateway")
        pause_s = one.main["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain_s = settings(found, monkeypatch).drain_s
        assert pause_s >= 5
        assert one.spec["terminationGracePeriodSeconds"] > pause_s + drain_s + WORKERS_S


def test_a_roll_out_never_takes_a_pod_before_another_is_there(services: Rendered) -> None:
    for found in services.values():
        [gateway] = [d for d in of_kind(found, "Deployment") if d["metadata"]["name"] == "gateway"]
        assert gateway["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_secrets_are_where_the_settings_say(
    services: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for found in services.values():
        taken, one = settings(found, monkeypatch), pod(found, "gateway")
        secrets = {v["name"]: v["secret"] for v in one.spec["volumes"] if "secret" in v}
        places = {m["mountPath"]: m["name"] for m in one.main["volumeMounts"]}
        files = (taken.tls_certificate, taken.tls_key, taken.tls_client_ca, taken.api_keys)
        for file in filter(None, files):
            seen.add(str(file))
            secret = secrets[places[str(file.parent)]]
            assert secret["defaultMode"] == 0o440
            assert not secret.get("optional")  # who asked for TLS gets TLS, or no pod
    assert len(seen) == 4
    assert "api-keys" not in Path("deploy/overlays/dev/kustomization.yaml").read_text()


def test_every_command_is_one_that_our_command_lines_know(rendered: Rendered) -> None:
    known = {tuple(words) for f in rendered.values() for one in pods(f) for words in commands(one)}
    assert {words[:2] for words in known} == {
        ("diptych", "models"),
        ("diptych", "job"),
        ("diptych-export", "plan"),
    }
    for words in known:
        app = export_cli.app if words[0] == "diptych-export" else cli.app
        _, bound, unknown, _ = app.parse_known_args(words[1:])
        assert not unknown, (words, unknown)
        assert bound.arguments, words


def commands(one: Pod) -> list[list[str]]:
    """Of ours, with variables as the pod has them."""
    found = []
    for container in one.containers:
        words = [*container.get("command", []), *container.get("args", [])]
        known = {v["name"]: v.get("value", "0" * 64) for v in container.get("env", [])}
        known |= {"DIPTYCH_REPOSITORY": "/models", "day": "2026-11-20"}
        if words[:2] == ["sh", "-c"]:
            line = next(part for part in words[2].split(";") if "diptych" in part)
            words = shlex.split(line.split("||")[0])
        elif container["image"].startswith("diptych/plan"):
            words = ["diptych-export", *words]
        elif not words or words[0] != "diptych":
            continue
        for name, value in known.items():
            words = [word.replace(f"$({name})", value).replace(f"${name}", value) for word in words]
        assert not [word for word in words if "$" in word], words
        found.append(words)
    return found


def test_what_is_expected_is_the_shipped_models_fingerprint(rendered: Rendered) -> None:
    for found in rendered.values():
        expected = [
            one["data"]["FINGERPRINTS"]
            for one in of_kind(found, "ConfigMap")
            if one["metadata"]["name"].startswith("diptych-expected-")
        ]
        is_plan = {one.name for one in pods(found)} == {"plan"}
        assert expected == ([] if is_plan else [SHAPES.spec.fingerprint])
