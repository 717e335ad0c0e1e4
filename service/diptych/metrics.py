"""Every number we promise to export, declared in one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# From a text in the cache (0.3 ms) to a call that has waited for a whole queue.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_POWERS = (1, 2, 4, 8, 16, 32, 64, 128)

_STAGES = ("decode", "tokenize", "queue", "engine", "score")
_KINDS = ("image", "text")

# Why something is refused. Of calls: the reasons of gateway/status.py in small letters, where an
# Overloaded is told apart by its bound.
REJECTS = {
    "call": (
        "bad_input",
        "not_found",
        "space_mismatch",
        "no_room",
        "no_time",
        "engine_full",
        "over_quota",
        "no_credentials",
        "bad_credentials",
        "expired_credentials",
        "not_allowed",
        "no_credentials",
        "bad_credentials",
        "expired_credentials",
        "not_allowed",
        "deadline_passed",
        "engine_unavailable",
        "engine_failed",
        "internal",
    ),
    "input": ("bad_image", "bad_text", "bad_pixels", "bad_input", "engine_failed"),
}

disable_created_metrics()  # type: ignore[no-untyped-call] # a time series more for each of ours, which nobody asks for


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

    def prepare(self, codes: Iterable[str]) -> None:
        """Start these at 0: of what appears with its first event, Prometheus misses that event."""
        for code in codes:
            self._by_code[code] = self._handled.labels(*self._labels, code)

    def ended(self, code: str, duration_s: float) -> None:
        """Record the end of one call, by the name of its gRPC status."""
        if (counter := self._by_code.get(code)) is None:
            counter = self._by_code[code] = self._handled.labels(*self._labels, code)
        counter.inc()
        self._handling.observe(duration_s)


class Metrics:
    """Names of calls follow go-grpc-middleware, so that existing dashboards know them.

    No label takes what a caller sends: methods are those served, models, policies and concepts
    those of the operator's files, all else is listed here.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # CPU, memory and files of this process
        self._declare_calls()
        self._declare_work()
        self._declare_bounds()
        self._declare_state()
        self._declare_engine()
        self._declare_moderation()

    def _declare_calls(self) -> None:
        method = ["grpc_type", "grpc_service", "grpc_method"]
        self.started = self._counter("grpc_server_started_total", "Calls begun.", method)
        self.handled = self._counter(
            "grpc_server_handled_total", "Calls ended, by status.", [*method, "grpc_code"]
        )
        self.handling = self._histogram(
            "grpc_server_handling_seconds",
            "Time from a call's arrival to its end.",
            method,
            buckets=_SECONDS,
        )
        self.open = self._gauge("diptych_calls_open", "Calls begun and not ended.")
        self.rejects = self._counter(
            "diptych_rejects_total",
            "What was refused, whole calls or single inputs of calls, and why.",
            ["scope", "reason"],
        )
        for scope, reasons in REJECTS.items():
            for reason in reasons:
                self.rejects.labels(scope, reason)

    def _declare_work(self) -> None:
        self.stage = self._histogram(
            "diptych_stage_duration_seconds",
            "Time in a stage: decode (or tokenize), queue and engine of an input; score of a call.",
            ["stage"],
            buckets=_SECONDS,
        )
        self.batch_inputs = self._histogram(
            "diptych_batch_inputs", "Inputs per engine call, by tower.", ["tower"], buckets=_POWERS
        )
        self.batch_seconds = self._histogram(
            "diptych_batch_duration_seconds",
            "Time of an engine call, by tower; the rate of its sum is how many run at once.",
            ["tower"],
            buckets=_SECONDS,
        )
        self.cache = self._counter(
            "diptych_cache_requests_total",
            "Inputs looked up by content: hit (or computed with another's), or miss.",
            ["kind", "outcome"],
        )
        self._cached = {
            (kind, is_hit): self.cache.labels(kind, "hit" if is_hit else "miss")
            for kind in _KINDS
            for is_hit in (False, True)
        }
        self._stages = {name: self.stage.labels(name) for name in _STAGES}
        self._batches = {
            tower: (self.batch_inputs.labels(tower), self.batch_seconds.labels(tower))
            for tower in _KINDS
        }

    def _declare_bounds(self) -> None:
        self.inside = self._gauge(
            "diptych_inputs_inside", "Inputs being decoded, waiting or being computed."
        )
        self.inside_limit = self._gauge(
            "diptych_inputs_limit", "How many may be inside; bulk: half."
        )
        self.bytes_inside = self._gauge(
            "diptych_inside_bytes", "Encoded bytes of the requests inside."
        )
        self.bytes_limit = self._gauge(
            "diptych_inside_limit_bytes", "How many may be inside; bulk: half."
        )
        self.queue = self._gauge(
            "diptych_queue_inputs",
            "Inputs that wait for a decoder, or for a batch of a tower.",
            ["queue"],
        )
        self.cache_bytes = self._gauge(
            "diptych_cache_bytes", "Bytes of vectors kept by content.", ["kind"]
        )

    def _declare_state(self) -> None:
        self.build = self._gauge("diptych_build_info", "1, with what runs.", ["version"])
        self.build.labels(version("diptych")).set(1)
        self.space = self._gauge(
            "diptych_space_info", "1 for each space served.", ["model", "version", "fingerprint"]
        )
        self.canary = self._gauge("diptych_canary", "1 while the engine's canary answers right.")
        self.certificates = self._counter(
            "diptych_certificate_reloads_total",
            "Changes of certificates and of the file of callers: served, or refused.",
            ["outcome"],
        )
        self.certificate_expires = self._gauge(
            "diptych_certificate_expires_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970; 0 without TLS.",
        )
        self.rollouts = self._counter(
            "diptych_rollouts_total", "New versions found: served, or refused.", ["outcome"]
        )
        for outcome in ("served", "refused"):
            self.rollouts.labels(outcome)
            self.certificates.labels(outcome)

    def _declare_engine(self) -> None:
        self.engine_up = self._gauge(
            "diptych_engine_up",
            "1 while a model's engine answers its canary, right or wrong.",
            ["model"],
        )
        self.canaries = self._counter(
            "diptych_canary_checks_total",
            "Canaries run: right, wrong (of another graph or kernel), away or slow.",
            ["model", "outcome"],
        )
        self.breaker = self._gauge(
            "diptych_engine_breaker_open",
            "1 while calls of a tower are refused, because nobody answered the last ones.",
            ["model", "tower"],
        )
        self.mixed_up = self._counter(
            "diptych_engine_mixed_answers_total",
            "Answers that were not those to what was asked, found out by row_check.",
            ["model", "tower"],
        )

    def _declare_moderation(self) -> None:
        self.verdicts = self._counter(
            "diptych_verdicts_total", "Inputs judged, by policy and verdict.", ["policy", "verdict"]
        )
        self.concepts = self._counter(
            "diptych_concepts_reached_total",
            "Inputs that reached a concept's threshold.",
            ["policy", "concept"],
        )
        self.policy = self._gauge(
            "diptych_policy_info",
            "1 for each policy in use; fingerprint of the space it was calibrated on, if any.",
            ["policy", "version", "fingerprint"],
        )
        self.policy_reloads = self._counter(
            "diptych_policy_reloads_total",
            "Changes of the folder of policies: served, or refused.",
            ["outcome"],
        )
        for outcome in ("served", "refused"):
            self.policy_reloads.labels(outcome)

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

    def rejected(self, scope: str, reason: str) -> None:
        """Record what was refused: a "call", or an "input" of one."""
        self.rejects.labels(scope, reason).inc()

    def spent(self, stage: str, duration_s: float) -> None:
        """Record the time spent in one stage."""
        self._stages[stage].observe(duration_s)

    def ran(self, tower: str, inputs: int, duration_s: float) -> None:
        """Record one engine call that was answered."""
        sizes, seconds = self._batches[tower]
        sizes.observe(inputs)
        seconds.observe(duration_s)

    def watch_engine(self, model: str) -> None:
        """Start what is told of a model's engine, so that nothing bad is 0 and not missing."""
        for outcome in ("right", "wrong", "away", "slow"):
            self.canaries.labels(model, outcome)
        for tower in _KINDS:
            self.breaker.labels(model, tower)
            self.mixed_up.labels(model, tower)

    def _counter(self, name: str, about: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, labels: Iterable[str], buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(name, about, labels, registry=self.registry, buckets=buckets)
