"""What every pod of ours may do, and what it has."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from tests.deploy.manifests import Manifest, Pod, named, names, of_kind, pod, pods, selects

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

# Pod Security "restricted" allows these, and image volumes from Kubernetes 1.33 on.
ALLOWED = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "image"}

Rendered = dict[str, list[Manifest]]


def everywhere(rendered: Rendered) -> list[tuple[str, Pod]]:
    return [(f"{name}: {one.name}", one) for name, found in rendered.items() for one in pods(found)]


def test_everything_that_is_shipped_starts_some_pod(rendered: Rendered) -> None:
    assert len(rendered) >= 30
    assert all(list(pods(found)) for found in rendered.values())


def test_images_are_of_this_version_or_named_by_digest(rendered: Rendered) -> None:
    for where, one in everywhere(rendered):
        for container in one.containers:
            image = container["image"]
            ours = image.startswith("diptych/")
            assert image.endswith(f":{VERSION}") if ours else "@sha256:" in image, (where, image)


def test_no_pod_runs_as_root_or_can_become_more_than_it_is(rendered: Rendered) -> None:
    for where, one in everywhere(rendered):
        context = one.spec["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] == 10001, where  # USER of the images
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(one.spec), where
        for container in one.containers:
            closed = container["securityContext"]
            assert closed["allowPrivilegeEscalation"] is False, where
            assert closed["capabilities"] == {"drop": ["ALL"]}, where
            assert closed["readOnlyRootFilesystem"] is True, where
        for volume in one.spec["volumes"]:
            assert set(volume) - {"name"} <= ALLOWED, (where, volume)


def test_the_namespace_takes_no_other_pods(services: Rendered) -> None:
    for found in services.values():
        labels = named(found, "Namespace", "diptych")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_pod_has_a_way_to_the_api_server_or_takes_variables_from_services(
    rendered: Rendered,
) -> None:
    for where, one in everywhere(rendered):
        assert one.spec["automountServiceAccountToken"] is False, where
        assert one.spec["enableServiceLinks"] is False, where


def test_the_gateway_can_write_to_its_tmp_and_nowhere_else(services: Rendered) -> None:
    for found in services.values():
        for container in pod(found, "gateway").spec["containers"]:
            writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
            assert writable == ["/tmp"]


def test_what_a_pod_names_is_there(rendered: Rendered) -> None:
    for where, one in everywhere(rendered):
        found = rendered[where.split(": ")[0]]
        volumes = {volume["name"]: volume for volume in one.spec["volumes"]}
        mounted = {mount["name"] for c in one.containers for mount in c["volumeMounts"]}
        assert mounted == set(volumes), where
        is_beside = where.startswith("jobs-plan")  # of overlays/gpu, whose volumes it uses
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume and not is_beside:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in names(found, "PersistentVolumeClaim"), where
        assert one.spec["serviceAccountName"] in names(found, "ServiceAccount"), where
        for config in _config_maps(one):
            assert config in names(found, "ConfigMap"), (where, config)


def _config_maps(one: Pod) -> set[str]:
    found: set[str] = set()
    for container in one.containers:
        for source in container.get("envFrom", []):
            found |= {source["configMapRef"]["name"]}
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                found |= {variable["valueFrom"]["configMapKeyRef"]["name"]}
    return found


def test_no_secret_is_in_a_variable(rendered: Rendered) -> None:
    for where, one in everywhere(rendered):
        assert "secretKeyRef" not in str(one.spec), where
        assert "secretRef" not in str(one.spec), where


def test_every_model_is_held_against_what_is_expected_before_it_is_used(
    rendered: Rendered,
) -> None:
    for where, one in everywhere(rendered):
        if one.name == "plan":  # makes plans of what the pods then hold against it
            continue
        last = one.spec["initContainers"][-1]
        assert (last["name"], last["command"]) == ("expect", ["diptych", "models"]), where
        models = [m for m in one.main["volumeMounts"] if m["mountPath"] == "/models"]
        assert all(m in last["volumeMounts"] for m in models), where
        assert all(m["readOnly"] for m in models), where
        if where.startswith("overlays-dev"):
            assert not models
        else:
            assert models, where


def test_memory_is_what_was_asked_for_and_cores_are_bounded(rendered: Rendered) -> None:
    for where, one in everywhere(rendered):
        for container in one.containers:
            wanted, most = (container["resources"][key] for key in ("requests", "limits"))
            assert wanted["memory"] == most["memory"], where
            assert wanted["cpu"], where
            assert most["cpu"], where  # threads are counted from it


def test_offline_pods_give_way_to_those_that_callers_wait_for(rendered: Rendered) -> None:
    found = rendered["overlays-cpu"]
    online, offline = (
        named(found, "PriorityClass", f"diptych-{kind}") for kind in ("online", "offline")
    )
    assert online["value"] > 0 > offline["value"]
    assert offline["preemptionPolicy"] == "Never"
    for where, one in everywhere(rendered):
        wanted = "diptych-offline" if one.name.startswith("embed") else "diptych-online"
        assert one.spec["priorityClassName"] == wanted, where


def test_pods_are_spread_and_drained_one_at_a_time(services: Rendered) -> None:
    for found in services.values():
        for one in pods(found):
            keys = {c["topologyKey"] for c in one.spec["topologySpreadConstraints"]}
            assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
            for constraint in one.spec["topologySpreadConstraints"]:
                assert selects(constraint["labelSelector"], one.labels)
            budget = named(found, "PodDisruptionBudget", one.name)["spec"]
            assert budget["maxUnavailable"] == 1
            assert selects(budget["selector"], one.labels)


def test_services_are_headless_and_lead_to_ports_that_are_there(services: Rendered) -> None:
    for found in services.values():
        for service in of_kind(found, "Service"):
            assert service["spec"]["clusterIP"] == "None"
            [one] = [
                one
                for one in pods(found)
                if selects({"matchLabels": service["spec"]["selector"]}, one.labels)
            ]
            ports: dict[str, Any] = {p["name"]: p["containerPort"] for p in one.main["ports"]}
            for port in service["spec"]["ports"]:
                assert ports[port["targetPort"]] == port["port"]
