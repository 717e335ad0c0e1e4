"""Rendered manifests, taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]

_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True)
class Pod:
    """What a workload starts."""

    name: str  # of the workload
    labels: dict[str, str]
    spec: Manifest

    @property
    def containers(self) -> list[Manifest]:
        """All of them, those that run first first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def main(self) -> Manifest:
        [one] = self.spec["containers"]
        found: Manifest = one
        return found


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def names(manifests: list[Manifest], kind: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in of_kind(manifests, kind)}


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    return found


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    for manifest in of_kind(manifests, *_TEMPLATES):
        template = manifest
        for step in _TEMPLATES[manifest["kind"]]:
            template = template[step]
        yield Pod(manifest["metadata"]["name"], template["metadata"]["labels"], template["spec"])


def pod(manifests: list[Manifest], name: str) -> Pod:
    [found] = [one for one in pods(manifests) if one.name == name]
    return found


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector, which we write with matchLabels only, fits."""
    assert not set(selector) - {"matchLabels"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
