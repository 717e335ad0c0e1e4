"""Metrics over HTTP; those of several workers as those of one, so that none is missed."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from diptych.settings import Settings

METRICS = "metrics on http://"  # what a server says that has them, before its address

_WAIT_S = 5.0  # for a worker's answer: less than Prometheus waits for ours


class WorkersMetrics(Collector):
    """What every worker exports, with its number as the label `worker`.

    A worker that is being started anew is missing meanwhile, and then counts from 0 again, which
    Prometheus knows how to read.
    """

    def __init__(self) -> None:
        self.addresses: dict[int, str] = {}  # HOST:PORT by number, of those that run

    def collect(self) -> Iterator[Metric]:
        """Ask all of them now."""
        found: dict[str, Metric] = {}
        for number, address in sorted(self.addresses.items()):
            for family in _asked(address):
                own = Metric(family.name, family.documentation, family.type)
                own = found.setdefault(family.name, own)
                for sample in family.samples:
                    labels = {**sample.labels, "worker": str(number)}
                    own.samples.append(sample._replace(labels=labels))
        yield from found.values()


@contextmanager
def exposed(registry: CollectorRegistry, settings: Settings) -> Iterator[str | None]:
    """The address where `registry` can be read, or None where none is asked for.

    Raises:
        OSError: the port is taken.
    """
    if settings.metrics_port is None:
        yield None
        return
    host = settings.metrics_host or settings.host
    server, thread = start_http_server(settings.metrics_port, addr=host, registry=registry)
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _asked(address: str) -> list[Metric]:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_WAIT_S) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))
    except OSError:  # it has just ended, and the next one starts
        return []
