"""What a verdict costs beyond the vector it rests on: `Moderate` beside `Embed`, in turns.

    python -m bench.moderation

The same server with its caches off and the same inputs; so many calls of one kind after so many of
the other, in short rounds, so that neighbours on the machine disturb both alike. Ratios are medians
over the rounds: of the time from call to call, and of the server's processor time, which suffers
less from them. On the benchmark's ViT-B/32, and on `shapes`, whose towers take next to nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import grpc
import uvloop
import yaml

from bench import model
from bench.processes import Server, gateway
from bench.traffic import pictures, texts
from diptych.v1 import embedding_pb2 as pb
from diptych.v1 import moderation_pb2

POLICY = "many"
SHAPES = Path(__file__).parents[1] / "model_repository"

_NO_CACHE = ("--text-cache-bytes", "0", "--image-cache-bytes", "0")
_EMBED = "/diptych.v1.EmbeddingService/Embed"
_MODERATE = "/diptych.v1.ModerationService/Moderate"


@dataclass(frozen=True, slots=True)
class Way:
    """One kind of call, and its requests, serialized beforehand."""

    name: str
    method: str
    requests: list[bytes]


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--folder", type=Path, default=Path(".bench"), help="for the model")
    reader.add_argument("--concepts", type=int, default=300)
    reader.add_argument("--rounds", type=int, default=9)
    reader.add_argument("--seconds", type=float, default=2.0, help="about, of one kind in a round")
    reader.add_argument("--concurrency", type=int, default=8)
    options = reader.parse_args()
    policies = write_policy(options.folder / "policies", options.concepts)
    repositories = {model.NAME: model.build(options.folder), "shapes": SHAPES}
    for name, repository in repositories.items():
        flags = ["--repository", str(repository), "--policies", str(policies), *_NO_CACHE]
        with gateway(*flags) as server:
            for kind, inputs in (("image", _images()), ("text", _texts(name))):
                line = uvloop.run(compared(server, inputs, options))
                print(json.dumps({"model": name, "input": kind, **line}), flush=True)


def write_policy(folder: Path, count: int) -> Path:
    """A folder with one policy of so many concepts, of one to three prompts each."""
    words = [" ".join(text.split()[:4]) for text in texts()]
    prompts = iter(dict.fromkeys(words))
    concepts = [
        {
            "name": f"concept-{number:04d}",
            "prompts": list(islice(prompts, 1 + number % 3)),
            "threshold": 0.999,
            "text_threshold": 0.999,
            "action": "flag",
            "severity": 1,
        }
        for number in range(count)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    said = {"name": POLICY, "version": "1", "concepts": concepts}
    (folder / "many.yaml").write_text(yaml.safe_dump(said))
    return folder


async def compared(
    server: Server, inputs: Sequence[pb.Input], options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds per call of `Embed`, and the others' ratios to it: least, median and most."""
    ways = list(_ways(inputs))
    async with grpc.aio.insecure_channel(server.address) as channel:
        usual = await _per_call_s(channel, ways[0], 4 * options.concurrency, options.concurrency)
        calls = max(4 * options.concurrency, round(options.seconds / usual))
        rounds: list[dict[str, tuple[float, float]]] = []
        for number in range(options.rounds):
            taken = {}
            for way in ways if number % 2 else reversed(ways):
                before = server.cpu_s()
                seconds = await _per_call_s(channel, way, calls, options.concurrency)
                taken[way.name] = seconds, (server.cpu_s() - before) / calls
            rounds.append(taken)
    found: dict[str, Any] = {"calls": calls}
    for place, unit in enumerate(("ms", "cpu_ms")):
        usual_ms = statistics.median(taken["embed"][place] for taken in rounds)
        found[f"embed_{unit}"] = round(1000 * usual_ms, 3)
    for way in ways[1:]:
        for place, name in enumerate((way.name, f"{way.name}_cpu")):
            ratios = sorted(taken[way.name][place] / taken["embed"][place] for taken in rounds)
            found[name] = [round(ratios[at], 3) for at in (0, len(ratios) // 2, -1)]
    return found


def _ways(inputs: Sequence[pb.Input]) -> Iterator[Way]:
    embed = [pb.EmbedRequest(inputs=[item]).SerializeToString() for item in inputs]
    yield Way("embed", _EMBED, embed)
    for name, reached_only in (("moderate", False), ("moderate_reached_only", True)):
        requests = [_moderate(item, reached_only).SerializeToString() for item in inputs]
        yield Way(name, _MODERATE, requests)


def _moderate(item: pb.Input, reached_only: bool) -> moderation_pb2.ModerateRequest:
    kind = str(item.WhichOneof("kind"))
    subject = moderation_pb2.ModerateInput(**{kind: getattr(item, kind)})
    return moderation_pb2.ModerateRequest(
        policy=POLICY, inputs=[subject], reached_only=reached_only
    )


async def _per_call_s(channel: grpc.aio.Channel, way: Way, calls: int, concurrency: int) -> float:
    """Seconds per call of so many, `concurrency` at a time. Replies are not taken apart: a caller
    does that on a machine of his own."""
    call: Any = channel.unary_unary(way.method)
    left = islice(cycle(way.requests), calls)

    async def caller() -> None:
        for request in left:
            await call(request)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return (time.perf_counter() - began) / calls


def _images() -> list[pb.Input]:
    return [pb.Input(image=data) for data in pictures("image")]


def _texts(name: str) -> list[pb.Input]:
    """Short enough for either model."""
    words = 20 if name == model.NAME else 6
    return [pb.Input(text=" ".join(text.split()[:words])) for text in texts()[:2000]]


if __name__ == "__main__":
    main()
