"""Every number we promise to export, declared in one place."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_POWERS = (1, 2, 4, 8, 16, 32, 64, 128)


class MethodMetrics:
    """What is counted of one method's calls; their labels are looked up once."""

    def __init__(
        self, started: Counter, handled: Counter, handling: Histogram, labels: tuple[str, ...]
    ) -> None:
        self.started = started.labels(*labels)
        self._handled = handled
        self._labels = labels
        self._by_code: dict[str, Counter] = {}
        self._handling = handling.labels(*labels)

    def ended(self, code: str, duration_s: float) -> None:
        """Record the end of one call, by the name of its gRPC status."""
        if (counter := self._by_code.get(code)) is None:
            counter = self._by_code[code] = self._handled.labels(*self._labels, code)
        counter.inc()
        self._handling.observe(duration_s)


class Metrics:
    """Names of calls follow go-grpc-middleware, so that existing dashboards know them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        method = ["grpc_type", "grpc_service", "grpc_method"]
        self.started = Counter(
            "grpc_server_started_total", "Calls begun.", method, registry=registry
        )
        self.handled = Counter(
            "grpc_server_handled_total",
            "Calls ended, by status.",
            [*method, "grpc_code"],
            registry=registry,
        )
        self.handling = Histogram(
            "grpc_server_handling_seconds",
            "Time from a call's arrival to its end.",
            method,
            buckets=_SECONDS,
            registry=registry,
        )
        self._declare_work(registry)
        self._declare_state(registry)
        self._declare_moderation(registry)

    def _declare_work(self, registry: CollectorRegistry) -> None:
        self.stage = Histogram(
            "diptych_stage_duration_seconds",
            "Time one input spent in a stage: decode (or tokenize), queue, engine.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_inputs = Histogram(
            "diptych_batch_inputs",
            "Inputs per engine call, by tower.",
            ["tower"],
            buckets=_POWERS,
            registry=registry,
        )
        self.cache = Counter(
            "diptych_cache_requests_total",
            "Inputs looked up by content: hit (or computed with another's), or miss.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._cached = {
            (kind, is_hit): self.cache.labels(kind, "hit" if is_hit else "miss")
            for kind in ("text", "image")
            for is_hit in (False, True)
        }
        self._stages = [self.stage.labels(name) for name in ("decode", "queue", "engine")]

    def _declare_state(self, registry: CollectorRegistry) -> None:
        self.inside = Gauge(
            "diptych_inputs_inside",
            "Inputs being decoded, waiting or being computed.",
            registry=registry,
        )
        self.space = Gauge(
            "diptych_space_info",
            "1 for each space served.",
            ["model", "version", "fingerprint"],
            registry=registry,
        )
        self.canary = Gauge(
            "diptych_canary", "1 while the engine's canary answers right.", registry=registry
        )
        self.rollouts = Counter(
            "diptych_rollouts_total",
            "New versions found: served, or refused.",
            ["outcome"],
            registry=registry,
        )

    def _declare_moderation(self, registry: CollectorRegistry) -> None:
        self.verdicts = Counter(
            "diptych_verdicts_total",
            "Inputs judged, by policy and verdict.",
            ["policy", "verdict"],
            registry=registry,
        )
        self.concepts = Counter(
            "diptych_concepts_reached_total",
            "Inputs that reached a concept's threshold.",
            ["policy", "concept"],
            registry=registry,
        )
        self.policy = Gauge(
            "diptych_policy_info",
            "1 for each policy in use; fingerprint of the space it was calibrated on, if any.",
            ["policy", "version", "fingerprint"],
            registry=registry,
        )
        self.policy_reloads = Counter(
            "diptych_policy_reloads_total",
            "Changes of the folder of policies: served, or refused.",
            ["outcome"],
            registry=registry,
        )

    def judged(self, policy: str, verdict: str, concepts: Iterable[str]) -> None:
        """Record one verdict, and the concepts that were reached. Labels are of policy files."""
        self.verdicts.labels(policy, verdict).inc()
        for concept in concepts:
            self.concepts.labels(policy, concept).inc()

    def of_method(self, kind: str, method: str) -> MethodMetrics:
        """Of a method by its path, "/SERVICE/METHOD"; `kind` is unary, or what streams."""
        labels = (kind, *method.removeprefix("/").split("/"))
        return MethodMetrics(self.started, self.handled, self.handling, labels)

    def cached(self, kind: str, *, is_hit: bool) -> None:
        """Record one input's look-up in its cache."""
        self._cached[kind, is_hit].inc()

    def stages(self, *durations_s: float) -> None:
        """Record one input's decode, queue and engine time."""
        for stage, duration_s in zip(self._stages, durations_s, strict=True):
            stage.observe(duration_s)
