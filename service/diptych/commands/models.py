"""`diptych models`: what a gateway serves, or what a model repository holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from diptych import repository as repositories
from diptych import wire
from diptych.commands.common import AsJson, out, print_line
from diptych.commands.connection import NO_CONNECTION, Connecting, Connection
from diptych.contract import ModelSpec
from diptych.errors import BadRepository


def models(
    *,
    address: Annotated[str, Parameter(help="HOST:PORT of a running gateway.")] = "",
    repository: Annotated[
        Path | None,
        Parameter(help="A model repository to read in place of asking a gateway; see below."),
    ] = None,
    expect: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="Fingerprints that the newest versions in --repository may have: repeated, or "
            "separated by spaces. Another one is an error.",
        ),
    ] = (),
    as_json: AsJson = False,
    connection: Connecting = NO_CONNECTION,
) -> None:
    """List what a gateway serves, and within which limits, or what a model repository holds.

    Every file of a repository that a vector depends on is read and held against the model's
    fingerprint. Exit status 1 where one differs from it, or from what --expect allows: whoever
    delivered the files, they are then what was reviewed.

    Example: diptych models --address localhost:50051 --json

    Example: diptych models --repository /models --expect "904c48e4…ac4d7b"
    """
    if bool(address) == (repository is not None):
        raise ValueError("give --address or --repository, one of the two")
    if repository is None:
        if expect:
            raise ValueError("--expect is for a --repository; a gateway's callers insist per call")
        _print_served(address, as_json, connection)
    else:
        _print_held(_verified(repository, _words(expect)), as_json)


def _words(expect: Sequence[str]) -> frozenset[str] | None:
    """What is expected, or None for anything. Empty words are a variable that was not set."""
    if not expect:
        return None
    words = frozenset(word for given in expect for word in given.split())
    for word in words:
        if len(word) != 64 or set(word) - set("0123456789abcdef"):
            raise ValueError(f"--expect: {word!r} is no fingerprint: 64 digits of 0-9 and a-f")
    if not words:
        raise ValueError("--expect names no fingerprint")
    return words


def _verified(root: Path, expected: frozenset[str] | None) -> Iterator[ModelSpec]:
    """The newest version of every model in `root`, its files read.

    Raises:
        BadRepository: there is none, one is not as it was exported, or not one of `expected`.
    """
    names = repositories.names(root)
    if not names:
        raise BadRepository(f"{root}: no models")
    for name in names:
        spec = repositories.load(root, name).spec
        if expected is not None and spec.fingerprint not in expected:
            raise BadRepository(
                f"{root}: {name} version {spec.version} has the fingerprint {spec.fingerprint}; "
                f"expected: {', '.join(sorted(expected))}"
            )
        yield spec


def _print_held(specs: Iterator[ModelSpec], as_json: bool) -> None:
    table = Table("model", "version", "dimensions", "precision", "fingerprint")
    for spec in specs:
        if as_json:
            held = ("name", "version", "fingerprint", "embed_dim", "precision", "source", "licence")
            print_line({field: getattr(spec, field) for field in held}, as_json)
        table.add_row(
            spec.name,
            str(spec.version),
            str(spec.embed_dim),
            spec.precision,
            spec.fingerprint[:12],
        )
    if not as_json:
        out.print(table)


def _print_served(address: str, as_json: bool, connection: Connection) -> None:
    with connection.client(address) as client:
        info = client.models()
    table = Table("model", "version", "dimensions", "engine", "fingerprint")
    for found in info.models:
        space = found.space
        if as_json:
            print_line(wire.as_dict(found), as_json)
        table.add_row(
            space.model,
            str(space.version),
            str(space.dimensions),
            found.engine,
            space.fingerprint[:12],
        )
    if not as_json:
        out.print(table)
        for name, value in wire.as_dict(info.limits).items():
            out.print(f"{name}: {value}")
