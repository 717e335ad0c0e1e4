"""What is read off the running parts when Prometheus asks, and costs no call anything."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from diptych.admission import Admission
from diptych.contract import Tower
from diptych.decoding import Decoders
from diptych.gateway.served import Catalog
from diptych.gateway.status import CODES
from diptych.metrics import Metrics
from diptych.settings import Settings


def watch(
    metrics: Metrics, settings: Settings, admission: Admission, decoders: Decoders, catalog: Catalog
) -> None:
    """Let the gauges of what is inside read these."""
    metrics.inside.set_function(lambda: admission.inputs)
    metrics.bytes_inside.set_function(lambda: admission.bytes)
    metrics.inside_limit.set(settings.max_waiting_inputs)
    metrics.bytes_limit.set(settings.max_waiting_bytes)
    metrics.queue.labels("decode").set_function(lambda: decoders.waiting)
    metrics.cache_bytes.labels("states").set_function(
        lambda: sum(model.conditioner.states.kept_bytes for model in list(catalog))
    )
    for tower in Tower:
        _watch_tower(metrics, tower, catalog)


def prepare(metrics: Metrics, services: Iterable[str]) -> None:
    """Start the counts of every method at 0, for every status there is."""
    pool = descriptor_pool.Default()
    for service in services:
        for method in pool.FindServiceByName(service).methods:
            of_method = metrics.of_method(_kind(method), f"/{service}/{method.name}")
            of_method.prepare(code.name for code in CODES)


def _watch_tower(metrics: Metrics, tower: Tower, catalog: Catalog) -> None:
    def waiting() -> int:
        models = list(catalog)  # a copy: Prometheus asks from a thread of its own
        return sum(m.encoder.waiting(tower) + m.conditioner.states.waiting(tower) for m in models)

    def kept_bytes() -> int:
        return sum(model.encoder.kept_bytes(tower) for model in list(catalog))

    metrics.queue.labels(tower).set_function(waiting)
    metrics.cache_bytes.labels(tower).set_function(kept_bytes)


def _kind(method: MethodDescriptor) -> str:
    """As go-grpc-middleware names it."""
    if method.client_streaming:
        return "bidi_stream" if method.server_streaming else "client_stream"
    return "server_stream" if method.server_streaming else "unary"
