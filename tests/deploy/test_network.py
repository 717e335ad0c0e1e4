"""Who may reach whom, by the network policies that are rendered."""

from __future__ import annotations

from collections.abc import Iterator

from tests.deploy.manifests import Manifest, named, of_kind, pods, selects

Rendered = dict[str, list[Manifest]]
Labels = dict[str, str]

OWN = {"kubernetes.io/metadata.name": "diptych"}
GATEWAY = {"app.kubernetes.io/name": "diptych", "app.kubernetes.io/component": "gateway"}
TRITON = {"app.kubernetes.io/name": "diptych", "app.kubernetes.io/component": "triton"}
CALLER = {"diptych.dev/caller": "true"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
CALLERS = {"kubernetes.io/metadata.name": "shop", "diptych.dev/callers": "true"}


def allowed(
    found: list[Manifest],
    source: tuple[Labels, Labels],
    target: Labels,
    port: int | str,
) -> bool:
    """Whether a pod (its labels, its namespace's) may open a connection to a pod of ours."""
    labels, namespace = source
    into = _permits(found, "Ingress", target, (labels, namespace), port)
    if namespace != OWN:
        return into
    return into and _permits(found, "Egress", labels, (target, OWN), port)


def _permits(
    found: list[Manifest], kind: str, here: Labels, there: tuple[Labels, Labels], port: int | str
) -> bool:
    rules, peers = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
    policies = [
        policy["spec"]
        for policy in of_kind(found, "NetworkPolicy")
        if kind in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], here)
    ]
    return not policies or any(
        any(_is(peer, there) for peer in rule[peers])
        and port in [one["port"] for one in rule["ports"]]
        for policy in policies
        for rule in policy.get(rules, [])
    )


def _is(peer: Manifest, other: tuple[Labels, Labels]) -> bool:
    labels, namespace = other
    if "ipBlock" in peer:  # ours leave out private addresses, which pods have
        return False
    near = (
        selects(peer["namespaceSelector"], namespace)
        if "namespaceSelector" in peer
        else (namespace == OWN)
    )
    return near and selects(peer.get("podSelector", {}), labels)


def everybody(found: list[Manifest]) -> Iterator[tuple[Labels, Labels]]:
    for one in pods(found):
        yield one.labels, OWN
    for labels in ({}, CALLER, GATEWAY, PROMETHEUS, {"app.kubernetes.io/component": "offline"}):
        yield from ((labels, namespace) for namespace in ({}, MONITORING, CALLERS))
    yield {}, OWN
    yield CALLER, OWN


def test_only_the_gateway_reaches_triton(services: Rendered) -> None:
    with_triton = [f for f in services.values() if "triton" in {one.name for one in pods(f)}]
    assert len(with_triton) >= 10
    for found in with_triton:
        for source in everybody(found):
            labels, namespace = source
            is_gateway = selects({"matchLabels": GATEWAY}, labels) and namespace == OWN
            assert allowed(found, source, TRITON, 8001) is is_gateway, source


def test_callers_reach_the_gateway_and_nobody_else_does(services: Rendered) -> None:
    for found in services.values():
        assert allowed(found, (CALLER, CALLERS), GATEWAY, 50051)
        assert not allowed(found, ({}, CALLERS), GATEWAY, 50051)
        assert not allowed(found, (CALLER, {}), GATEWAY, 50051)
        assert not allowed(found, ({}, OWN), GATEWAY, 50051)
        assert not allowed(found, (CALLER, CALLERS), GATEWAY, 50052)
        assert not allowed(found, (CALLER, CALLERS), GATEWAY, "metrics")


def test_prometheus_reaches_metrics_where_it_is_asked_for(services: Rendered) -> None:
    for found in services.values():
        is_asked_for = "PodMonitor" in str(found)
        for target in (GATEWAY, TRITON):
            assert allowed(found, (PROMETHEUS, MONITORING), target, "metrics") is is_asked_for
            assert not allowed(found, (PROMETHEUS, CALLERS), target, "metrics")


def test_whoever_no_policy_speaks_of_is_shut_in(services: Rendered) -> None:
    for found in services.values():
        deny = named(found, "NetworkPolicy", "deny-all")["spec"]
        assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_no_policy_lets_a_pod_out_to_the_clusters_own_addresses(rendered: Rendered) -> None:
    for found in rendered.values():
        for policy in of_kind(found, "NetworkPolicy"):
            for rule in policy["spec"].get("egress", []):
                for peer in rule["to"]:
                    if "ipBlock" in peer:
                        assert "10.0.0.0/8" in peer["ipBlock"]["except"]
                        assert [one["port"] for one in rule["ports"]] == [443]
