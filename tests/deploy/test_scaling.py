"""What scales the deployment is what the gateway counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from diptych.metrics import Metrics
from tests.deploy.manifests import Manifest, named, of_kind, pods

Rendered = dict[str, list[Manifest]]

COMPONENTS = Path(__file__).parents[2] / "deploy" / "components"
RULES = yaml.safe_load((COMPONENTS / "autoscale-hpa" / "adapter-rules.yaml").read_text())["rules"]
# Of Triton's documentation, "Metrics".
TRITONS = {"nv_gpu_utilization", "nv_inference_pending_request_count"}


def counted() -> set[str]:
    """Every series that a gateway exports."""
    return {sample.name for family in Metrics().registry.collect() for sample in family.samples} | {
        f"{family.name}_{part}"
        for family in Metrics().registry.collect()
        if family.type == "histogram"
        for part in ("sum", "count", "bucket")
    }


def of_a_query(query: str) -> set[str]:
    return set(re.findall(r"\b(?:diptych|grpc|nv)_\w+", re.sub(r'"[^"]*"', "", query)))


def adapted() -> dict[str, str]:
    """What prometheus-adapter makes of the series, by name."""
    found = {}
    for rule in RULES:
        [series] = re.findall(r"^\w+", rule["seriesQuery"])
        found[rule.get("name", {}).get("as", series)] = rule["metricsQuery"].replace(
            "<<.Series>>", series
        )
    return found


def test_the_adapters_rules_ask_for_series_that_there_are() -> None:
    for name, query in adapted().items():
        assert of_a_query(query) <= counted() | TRITONS, name
        assert "<<.LabelMatchers>>" in query


def test_autoscalers_ask_for_what_the_adapter_makes(services: Rendered) -> None:
    seen = set()
    for found in services.values():
        for scaler in of_kind(found, "HorizontalPodAutoscaler"):
            for metric in scaler["spec"]["metrics"]:
                seen.add(metric["pods"]["metric"]["name"])
    assert seen == set(adapted())


def test_keda_asks_for_series_that_there_are(services: Rendered) -> None:
    seen: set[str] = set()
    for found in services.values():
        for scaler in of_kind(found, "ScaledObject"):
            for trigger in scaler["spec"]["triggers"]:
                assert trigger["type"] == "prometheus"
                seen |= of_a_query(trigger["metadata"]["query"])
    assert "diptych_inputs_inside" in seen
    assert seen <= counted() | TRITONS


def scalers(found: list[Manifest]) -> list[tuple[str, int, int, Any]]:
    """Target, least and most replicas, and the slowest way down, in seconds."""
    listed = []
    for one in of_kind(found, "HorizontalPodAutoscaler"):
        spec = one["spec"]
        down = spec["behavior"]["scaleDown"]
        target = spec["scaleTargetRef"]["name"]
        listed.append((target, spec["minReplicas"], spec["maxReplicas"], down))
    for one in of_kind(found, "ScaledObject"):
        spec = one["spec"]
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        target = spec["scaleTargetRef"]["name"]
        listed.append((target, spec["minReplicaCount"], spec["maxReplicaCount"], down))
    return listed


def test_scaling_is_of_what_is_there_and_slow_on_the_way_down(services: Rendered) -> None:
    for name, found in services.items():
        wanted = {one.name for one in pods(found)} if "autoscale" in name else set()
        listed = scalers(found)
        if name.startswith("mixed"):
            assert {target for target, *_ in listed} == wanted
            for one in {one.name for one in pods(found)} - wanted:
                assert named(found, "Deployment", one)["spec"]["replicas"] == 2
        for target, least, most, down in listed:
            assert "replicas" not in named(found, "Deployment", target)["spec"]  # apply resets it
            assert 2 <= least < most
            assert down["stabilizationWindowSeconds"] >= 300


@pytest.mark.parametrize("job", ["embed", "nightly"])
def test_an_indexed_job_knows_how_many_machines_it_has(rendered: Rendered, job: str) -> None:
    found = rendered[f"jobs-{job}"]
    [manifest] = of_kind(found, "Job", "CronJob")
    spec = manifest["spec"]
    spec = spec if manifest["kind"] == "Job" else spec["jobTemplate"]["spec"]
    [one] = pods(found)
    variables = {variable["name"]: variable.get("value") for variable in one.main["env"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(variables["MACHINES"])
    assert one.spec["restartPolicy"] == "Never"
    assert '--machines "$MACHINES" || [ $? -eq 3 ]' in one.main["args"][0]


def test_a_night_ends_before_the_next_one_has_another_yesterday(rendered: Rendered) -> None:
    [nightly] = of_kind(rendered["jobs-nightly"], "CronJob")
    minute, hour, *_ = map(int, nightly["spec"]["schedule"].split()[:2])
    began_s = hour * 3600 + minute * 60
    most_s = nightly["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    late_s = nightly["spec"]["startingDeadlineSeconds"]
    assert nightly["spec"]["timeZone"] == "Etc/UTC"
    assert began_s + late_s + most_s < 24 * 3600


def test_what_prometheus_scrapes_is_a_port_of_every_serving_pod(services: Rendered) -> None:
    for found in services.values():
        for monitor in of_kind(found, "PodMonitor"):
            [endpoint] = monitor["spec"]["podMetricsEndpoints"]
            for one in pods(found):
                assert endpoint["port"] in {port["name"] for port in one.main["ports"]}
                assert monitor["spec"]["selector"]["matchLabels"].items() <= one.labels.items()
