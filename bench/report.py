"""The benchmark's figures for people: progress, a table, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_out = Console(highlight=False)
_progress = Console(highlight=False, stderr=True)

_COLUMNS = ("case", "engine", "callers", "items/s", "of ceiling", "p50 ms", "p95 ms", "p99 ms")


def alone(found: dict[str, Any]) -> None:
    """What each part does alone, in milliseconds per input."""
    _progress.print(f"{found['engine']}; {found['cores']} cores; milliseconds per input, alone:")
    reading = Table("tokenize", "decode 640x480", "decode 4000x3000", "the same, every pixel")
    names = ("tokenize", "decode_image", "decode_large", "decode_large_exact")
    reading.add_row(*(_ms(found[name]) for name in names))
    _progress.print(reading)
    batches = list(found["image"])
    towers = Table("tower, by batch", *batches)
    towers.add_row("image", *(_ms(found["image"][rows]) for rows in batches))
    for length, own in found["text"].items():
        towers.add_row(
            f"text of {length} tokens", *(_ms(own[rows]) if rows in own else "" for rows in batches)
        )
    _progress.print(towers)


def progress(line: dict[str, Any]) -> None:
    """One line as it is measured."""
    _progress.print("  ".join(map(str, _cells(line))))


def table(lines: Sequence[dict[str, Any]]) -> None:
    shown = Table(*_COLUMNS, "errors", "server cores", "peak MiB")
    for line in lines:
        shown.add_row(*_cells(line))
    _out.print(shown)


def summary(lines: Sequence[dict[str, Any]]) -> None:
    """What scoring costs on top of embedding, and a lonely call on top of decoding and engine,
    as its own reply times them.

    Scoring by the share that each reaches of its own ceiling, which both have in common: the
    machine may have been faster for one of them.
    """
    shares = {(line["case"], line["engine"], line["concurrency"]): line["ratio"] for line in lines}
    for (case, engine, concurrency), share in shares.items():
        embed = shares.get(("image", engine, concurrency))
        if case.startswith("score") and embed and share:
            _out.print(
                f"{case}, {engine}, {concurrency} callers: {embed / share:.3f} x the time of Embed"
            )
    for line in lines:
        if line["concurrency"] == 1 and line["case"] in ("image", "pixels", "text"):
            _out.print(
                f"{line['case']}, {line['engine']}, one caller: {line['beside_p50_ms']:.1f} ms "
                "beside decoding and engine"
            )


def plot(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Throughput against median latency: one curve a case, along its concurrency."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    for engine, case in dict.fromkeys((line["engine"], line["case"]) for line in lines):
        own = [line for line in lines if (line["engine"], line["case"]) == (engine, case)]
        own = [line for line in own if line["p50_ms"] is not None]
        style = "-o" if engine == "embedded" else "--s"
        latency = [line["p50_ms"] for line in own]
        axes.plot(latency, [line["items_per_s"] for line in own], style, label=f"{case}, {engine}")
    axes.set(xscale="log", yscale="log", xlabel="median latency of a call, ms", ylabel="items/s")
    axes.legend(fontsize="x-small", ncols=2)
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    _progress.print(f"plot: {path}")


def _cells(line: dict[str, Any]) -> list[str]:
    ratio = "" if line["ratio"] is None else f"{line['ratio']:.2f}"
    latencies = [_number(line[key]) for key in ("p50_ms", "p95_ms", "p99_ms")]
    named = [line["case"], line["engine"], str(line["concurrency"])]
    used = [f"{line['server_cores']:.2f}", f"{line['server_peak_mib']:.0f}"]
    return [*named, _number(line["items_per_s"]), ratio, *latencies, str(line["errors"]), *used]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"
