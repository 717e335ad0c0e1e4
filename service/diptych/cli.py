"""`diptych …`: the server, and a client for people and scripts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import uvloop
from cyclopts import Parameter
from cyclopts.types import ExistingFile

from diptych import settings
from diptych.commands import keys, policy
from diptych.commands.common import (
    Address,
    AsJson,
    ModelName,
    error_record,
    exit_on_errors,
    image_file,
    in_order,
    kind_and_value,
    out,
    print_line,
)
from diptych.commands.condition import condition, profiles
from diptych.commands.connection import NO_CONNECTION, Connecting
from diptych.commands.models import models
from diptych.commands.moderate import moderate
from diptych.demo import PICTURES, run_demo
from diptych.engines.triton_supervisor import run_triton
from diptych.errors import DiptychError
from diptych.gateway.access_log import configure
from diptych.gateway.exposition import METRICS
from diptych.gateway.server import (
    Running,
    gateway,
    keep_imports,
    told_to_look,
    told_to_stop,
)
from diptych.gateway.workers import LISTENING, run_workers
from diptych.settings import Settings, cores
from diptych.wire import MeasureName, Options, Ranked, Vectors

app = cyclopts.App(
    name="diptych",
    help="CLIP-style dual encoders over gRPC: images and texts in, vectors and scores out.",
)
server = cyclopts.App(name="serve", config=cyclopts.config.Env(settings.PREFIX, command=False))
app.command(server)
app.command(models)
app.command(moderate)
app.command(condition)
app.command(profiles)
app.command(policy.app)
app.command(keys.app)
# Found when it is asked for: it needs the extra [job].
app.command("diptych.commands.job:app", name="job", help="Embed data sets, whatever happens.")

_EXTRAS = {"fsspec": "job", "pyarrow": "job", "pandas": "ray", "ray": "ray"}


def main() -> None:
    """One clear line for whatever a user can mend, and never a traceback for it."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        app()
    except (DiptychError, OSError) as exc:
        sys.exit(f"diptych: {exc}")  # status 1
    except ModuleNotFoundError as exc:
        if exc.name not in _EXTRAS:
            raise
        extra = _EXTRAS[exc.name]
        sys.exit(f"diptych: {exc.name} is not installed: pip install 'diptych[{extra}]'")
    except ValueError as exc:  # a setting out of range, or unknown
        print(f"diptych: {exc}", file=sys.stderr)  # noqa: T201 (rich would colour it)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@server.default
def serve(options: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 (frozen)
    """Serve a model repository until SIGTERM or Ctrl+C.

    Prints `listening on HOST:PORT` once every model is warm, proved by its canary, and health
    says SERVING. Every option is also an environment variable.

    Example: diptych serve --repository model_repository --port 50051 --metrics-port 9090
    """
    settings.check_environment()
    configure(options.log_format, options.log_level)
    uvloop.run(_serve(options))


@app.command
def embed(
    *,
    address: Address,
    inputs: Annotated[
        list[str],
        Parameter(
            name=["--image", "--text"],
            negative="",
            converter=in_order,
            help="An image file, or a text. Repeat either, in any order.",
        ),
    ],
    model: ModelName = "",
    truncate: Annotated[bool, Parameter(help="Cut over-long texts, rather than refuse.")] = False,
    as_json: AsJson = False,
    connection: Connecting = NO_CONNECTION,
) -> None:
    """Embed images and texts; one line per input, in order.

    Exit status 1 when an input could not be embedded; the others are printed all the same.

    Example: diptych embed --address localhost:50051 --image cat.jpg --text "a cat" --json
    """
    pairs = [kind_and_value(item) for item in inputs]
    items = [image_file(value) if kind == "image" else value for kind, value in pairs]
    with connection.client(address) as client:
        reply = client.embed(items, Options(model=model, truncate=truncate))
    for (kind, value), result in zip(pairs, reply.results, strict=True):
        head = {"kind": kind, "input": value}
        if isinstance(result, DiptychError):
            print_line({**head, **error_record(result)}, as_json)
            continue
        body = {"embedding": result.tolist()} if as_json else {"embedding": _glimpse(result)}
        space = {"model": reply.space.model, "fingerprint": reply.space.fingerprint}
        print_line({**head, **body, **space}, as_json)
    exit_on_errors(reply.results)


@app.command
def score(
    *,
    address: Address,
    image: Annotated[list[ExistingFile], Parameter(negative="", help="A query. Repeatable.")],
    text: Annotated[tuple[str, ...], Parameter(negative="", help="A candidate. Repeatable.")] = (),
    label_set: Annotated[str, Parameter(help="Candidates by name, in place of --text.")] = "",
    template: Annotated[
        tuple[str, ...],
        Parameter(negative="", help='Put every candidate into it: "a photo of {}". Repeatable.'),
    ] = (),
    measure: Annotated[
        MeasureName, Parameter(help="default: what the checkpoint was trained with.")
    ] = "default",
    top_k: Annotated[int, Parameter(help="Only the best so many; 0: all.")] = 0,
    model: ModelName = "",
    as_json: AsJson = False,
    connection: Connecting = NO_CONNECTION,
) -> None:
    """Score images against texts; one line per image.

    Example: diptych score --address localhost:50051 --image cat.jpg --text "a cat" --text "a dog"
    """
    with connection.client(address) as client:
        reply = client.score(
            image,
            text,
            Options(model=model),
            label_set=label_set,
            templates=template,
            measure=measure,
            top_k=top_k,
        )
    names = reply.labels or text
    for path, result in zip(image, reply.results, strict=True):
        print_line({"query": str(path), **_scores(result, names)}, as_json)
    exit_on_errors(reply.results)


@app.command
def triton(
    *,
    repository: Path = Path("model_repository"),
    port: Annotated[int, Parameter(help="Port of its gRPC; 0 picks a free one.")] = 0,
    poll_s: Annotated[int, Parameter(help="Seconds between looks for new versions; 0: none.")] = 0,
    log: Annotated[Path, Parameter(help="What it prints goes here.")] = Path("triton.log"),
) -> None:
    """Keep a real tritonserver running on a model repository until SIGTERM or Ctrl+C.

    It is installed from PyPI on first use, into an environment of its own; it listens on loopback
    only, is started again when it dies, and stops with everything it started.

    Example: diptych triton --port 8001
    """
    uvloop.run(_triton(repository, port, poll_s, log))


@app.command
def demo(*, repository: Path = Path("model_repository"), pictures: Path = PICTURES) -> None:
    """Start a gateway on a free port, embed and score pictures through it, and stop it.

    Example: diptych demo
    """
    run_demo(repository, pictures, out)


async def _triton(repository: Path, port: int, poll_s: int, log: Path) -> None:
    told, say = told_to_stop(), partial(out.print, soft_wrap=True)
    await run_triton(repository, log=log, told=told, say=say, port=port, poll_s=poll_s)


async def _serve(options: Settings) -> None:
    keep_imports()
    told, look = told_to_stop(), told_to_look()
    if options.workers > 1:
        await run_workers(options, told=told, say=_say)
        return
    async with gateway(options, look=look) as running:
        _introduce(running, options)
        _say(f"{LISTENING}{running.address}")
        await told.wait()
        out.print("stopping: refusing new calls, finishing open ones")


def _say(line: str) -> None:
    out.print(line, soft_wrap=True)
    sys.stdout.flush()  # into a pipe, too


def _introduce(running: Running, options: Settings) -> None:
    for model in running.models:
        spec = model.spec
        out.print(
            f"model {spec.name} version {spec.version}: {spec.embed_dim} dimensions, "
            f"{spec.image.size} px, {spec.text.context_length} tokens, {spec.precision}"
        )
        out.print(f"  fingerprint {spec.fingerprint}")
        out.print(f"  engine {model.engine.description}")
        for name, labels in model.label_sets.items():
            out.print(f"  label set {name}: {len(labels.file.labels)} labels")
        for name, found in model.policies.items():
            count = len(found.policy.concepts)
            out.print(f"  policy {name} version {found.policy.version}: {count} concepts")
    out.print(
        f"threads: {options.threads or cores()} for the engine, "
        f"{options.decoders or cores()} for decoding"
    )
    out.print(
        f"limits: {options.max_inputs} inputs and {options.max_request_bytes} bytes a request, "
        f"{options.max_waiting_inputs} inputs inside"
    )
    if running.health_address:
        out.print(f"health, for probes, on {running.health_address}")
    if running.metrics_address:
        out.print(f"{METRICS}{running.metrics_address}/metrics")


def _scores(result: Ranked | DiptychError, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(result, DiptychError):
        return error_record(result)
    best = zip(result.candidates, result.values.tolist(), strict=True)
    return {"scores": {names[candidate]: value for candidate, value in best}}


def _glimpse(vector: Vectors) -> str:
    return "[" + ", ".join(f"{value:.4f}" for value in vector[:4]) + f", … {len(vector)} in all]"
