"""The arithmetic of CAPACITY.md: what was measured and what is assumed in, its tables out.

python -m deploy.capacity prints the tables; a test holds that the page has them. With other
figures, change them here and paste.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

MILLION = 1_000_000
EXAMPLE_PRICE = 0.04  # of a vCPU-hour, to show the arithmetic; not a quotation
EXAMPLE_GPU_PRICE = 3.0  # of a GPU-hour; likewise


@dataclass(frozen=True)
class Rate:
    """How fast so many vCPUs embed one kind of input."""

    what: str
    vcpus: int
    per_second: float
    source: str

    @property
    def hours(self) -> float:
        """vCPU-hours for a million."""
        return MILLION / self.per_second / 3600 * self.vcpus


# Through gRPC, 32 callers on the same cores: bench/README.md. ViT-B/32 of random weights.
ZEN4 = "AMD Zen 4, bf16, through gRPC"
MEASURED = (
    Rate("image, 640x480 JPEG", 2, 37.7, ZEN4),
    Rate("image, 4000x3000 JPEG", 2, 26.2, ZEN4),
    Rate("text, 64 a call", 2, 257.0, ZEN4),
    Rate("text, one a call", 2, 201.0, ZEN4),
    Rate("text, from the cache", 2, 3395.0, ZEN4),
)

# Processor time of one image that is not the engine's: bench/README.md, bench.profile.
DECODE_S = 4.0e-3
LOOP_S = (0.47 + 0.07) * 1e-3  # of one process's event loop, which is one core

# The engine alone, two cores of an AMX-capable Xeon, bf16, batches of 32 images and 64 texts: the
# design's section 4, which gives its noise as 15 %.
AMX_IMAGES, AMX_TEXTS = 165.0, 787.0  # texts of 24 tokens
CORES = 2
SHARE = 0.9  # of the ceiling that a gateway reaches: the goal; 0.95 and 0.93 were measured above


def derived() -> tuple[Rate, ...]:
    """What follows for bf16, by the ceiling of bench/README.md: 1 / (reading / cores + engine)."""

    def rate(what: str, engine_s: float, source: str, reading_s: float = 0.0) -> Rate:
        per_second = SHARE / (reading_s / CORES + engine_s)
        return Rate(what, CORES, per_second, f"{source}, bf16: derived")

    xeon = "Xeon with AMX"
    return (
        rate("image, 640x480 JPEG", 1 / AMX_IMAGES, xeon, DECODE_S),
        rate("text of 24 tokens, 64 a call", 1 / AMX_TEXTS, xeon),
    )


@dataclass(frozen=True)
class Plan:
    """The worked plan. Everything but the two figures above is an assumption."""

    gpus: int = 1000
    gpu_images: float = 5000.0  # a second of ViT-B/32 on one GPU, in fp16, batches of 64
    load: float = 0.6  # of what is there, at the daily peak: the rest is for a lost zone and bursts
    mean: float = 0.5  # the day's mean over its peak
    cell_gpus: int = 20
    pod_cores: int = 16
    pod_load: float = 0.6
    jpeg_bytes: int = 60_000
    side: int = 224
    dimensions: int = 512
    model_bytes: int = 605_000_000  # both towers in fp32

    @property
    def peak(self) -> float:
        """Images a second."""
        return self.gpus * self.gpu_images * self.load

    @property
    def cells(self) -> int:
        return math.ceil(self.gpus / self.cell_gpus)

    @property
    def cell_peak(self) -> float:
        return self.peak / self.cells

    @property
    def core_s(self) -> float:
        """Of the gateway, for one image."""
        return DECODE_S + LOOP_S

    @property
    def pod_images(self) -> float:
        """A second, of one gateway pod as loaded as it should be."""
        return self.pod_cores * self.pod_load / self.core_s

    @property
    def cell_pods(self) -> int:
        return math.ceil(self.cell_peak / self.pod_images)

    @property
    def pod_workers(self) -> int:
        """Processes in a pod, so that no event loop is busier than half."""
        return math.ceil(self.pod_images * LOOP_S / 0.5)

    @property
    def triton_replicas(self) -> int:
        """DIPTYCH_TRITON_REPLICAS: two batches in flight for each Triton, over all processes."""
        return max(1, math.ceil(self.cell_gpus / (self.cell_pods * self.pod_workers)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = "| " + " | ".join(head) + " |"
    rule = "|---" * len(head) + "|"
    return "\n".join([line, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def costs() -> str:
    """What a million embeddings cost."""
    rows = [
        (
            rate.what,
            rate.source,
            f"{rate.per_second:,.0f}" if rate.per_second >= 100 else f"{rate.per_second:.1f}",
            f"{rate.hours:.2f}",
            f"{rate.hours:.2f} P",
            f"{rate.hours * EXAMPLE_PRICE:.2g}",
        )
        for rate in (*MEASURED, *derived())
    ]
    head = ("input", "on", "a second, 2 vCPU", "vCPU-hours a million", "cost", "at P = 0.04")
    return table(head, rows)


def replicas() -> str:
    """How many pods of two vCPUs carry so many images a second, at 60 % load."""
    plan, image = Plan(), MEASURED[0]
    rows = []
    for wanted in (10, 100, 1_000, 10_000):
        each = image.per_second * plan.load
        count = math.ceil(wanted / each)
        rows.append((f"{wanted:,}", f"{count:,}", f"{count * image.vcpus:,}"))
    return table(("640x480 images a second", "pods of 2 vCPU", "vCPU"), rows)


Rows: TypeAlias = list[tuple[str, ...]]


def thousand() -> str:
    """The plan to 1,000 GPUs, a step a row."""
    plan = Plan()
    rows = [*_load(plan), *_gateways(plan), *_wires(plan)]
    return table(("step", "arithmetic", "result"), rows)


def _load(p: Plan) -> Rows:
    day = p.peak * p.mean * 86_400
    return [
        ("peak", f"{p.gpus:,} x {p.gpu_images:,.0f} x {p.load}", f"{p.peak:,.0f} images/s"),
        ("a day", f"peak x {p.mean} x 86,400 s", f"{day / 1e9:,.0f} billion images"),
        ("cells", f"{p.gpus:,} / {p.cell_gpus}", f"{p.cells}"),
        ("peak of a cell", "peak / cells", f"{p.cell_peak:,.0f} images/s"),
    ]


def _gateways(p: Plan) -> Rows:
    pods = p.cells * p.cell_pods
    cores = pods * p.pod_cores
    return [
        (
            "gateway time of an image",
            f"{DECODE_S * 1e3:.1f} + {LOOP_S * 1e3:.2f} ms (measured)",
            f"{p.core_s * 1e3:.2f} ms of a core",
        ),
        (
            "images of a gateway pod",
            f"{p.pod_cores} cores x {p.pod_load} / {p.core_s * 1e3:.2f} ms",
            f"{p.pod_images:,.0f} images/s",
        ),
        ("gateway pods of a cell", "peak of a cell / images of a pod", f"{p.cell_pods}"),
        ("gateway pods, cores", f"x {p.cells} cells, x {p.pod_cores}", f"{pods:,}, {cores:,}"),
        ("cores for each GPU", f"{cores:,} / {p.gpus:,}", f"{cores / p.gpus:.1f}"),
        (
            "processes in a pod (`--workers`)",
            f"{p.pod_images:,.0f} x {LOOP_S * 1e3:.2f} ms / 0.5",
            f"{p.pod_workers}",
        ),
        (
            "DIPTYCH_TRITON_REPLICAS",
            f"{p.cell_gpus} / ({p.cell_pods} pods x {p.pod_workers} processes), rounded up",
            f"{p.triton_replicas}",
        ),
    ]


def _wires(p: Plan) -> Rows:
    """What goes over the network, and what all of it costs."""
    pods = p.cells * p.cell_pods
    cores = pods * p.pod_cores
    pixels = p.side * p.side * 3
    return [
        (
            "connections in a cell",
            f"{p.cell_pods} x {p.pod_workers} x {p.cell_gpus}",
            f"{p.cell_pods * p.pod_workers * p.cell_gpus:,}",
        ),
        (
            "the same without cells",
            f"{pods:,} x {p.pod_workers} x {p.gpus:,}",
            f"{pods * p.pod_workers * p.gpus:,}",
        ),
        (
            "into a gateway pod",
            f"{p.pod_images:,.0f} x {p.jpeg_bytes // 1000} kB",
            f"{p.pod_images * p.jpeg_bytes * 8 / 1e9:.1f} Gbit/s",
        ),
        (
            "into a GPU's node, each GPU",
            f"{p.gpu_images * p.load:,.0f} x {pixels:,} bytes",
            f"{p.gpu_images * p.load * pixels * 8 / 1e9:.1f} Gbit/s",
        ),
        (
            "vectors out, all cells",
            f"peak x {p.dimensions} x 4 bytes",
            f"{p.peak * p.dimensions * 4 * 8 / 1e9:.0f} Gbit/s",
        ),
        (
            "a new model, to every GPU",
            f"{p.model_bytes // 10**6} MB x {p.gpus:,}",
            f"{p.model_bytes * p.gpus / 1e12:.1f} TB",
        ),
        (
            "cost of a million images",
            f"(G + {cores / p.gpus:.1f} P) / {p.gpu_images * p.load:,.0f} / 3,600 s x 10^6 at peak",
            f"{_million_on_gpus(p):.3f} at P = 0.04, G = 3",
        ),
    ]


def _million_on_gpus(plan: Plan) -> float:
    cores = plan.cells * plan.cell_pods * plan.pod_cores / plan.gpus
    hour = EXAMPLE_GPU_PRICE + cores * EXAMPLE_PRICE
    return hour / (plan.gpu_images * plan.load) / 3600 * MILLION


if __name__ == "__main__":
    print("\n\n".join([costs(), replicas(), thousand()]))  # noqa: T201
