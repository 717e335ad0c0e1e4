"""What the commands share: options, how inputs are named, how results are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from rich.console import Console

from diptych import wire
from diptych.errors import DiptychError

out = Console(highlight=False)

Address = Annotated[str, Parameter(help="HOST:PORT of a running gateway.")]
AsJson = Annotated[
    bool, Parameter(name="--json", negative="", help="One JSON object per line, for programs.")
]
ModelName = Annotated[str, Parameter(help="Which model; by default the server's own default.")]


def in_order(_: type, tokens: Sequence[Token]) -> list[str]:
    """Several options in one list, so that their order on the command line is kept."""
    return [f"{token.keyword}={token.value}" for token in tokens]


def kind_and_value(item: str) -> tuple[str, str]:
    """Of what `in_order` found: image, text, …, and what was given for it."""
    kind, _, value = item.partition("=")
    return kind.removeprefix("--"), value


def image_file(path: str) -> Path:
    """The file of an --image.

    Raises:
        ValueError: it is not there.
    """
    if not Path(path).is_file():
        raise ValueError(f"--image {path}: no such file")
    return Path(path)


def print_line(record: dict[str, Any], as_json: bool) -> None:
    """One line of results, for a program or for a person."""
    if as_json:
        print(json.dumps(record, ensure_ascii=False))  # noqa: T201 (rich would wrap it)
    else:
        out.print("  ".join(f"{key}: {value}" for key, value in record.items()), soft_wrap=True)


def error_record(error: DiptychError) -> dict[str, Any]:
    return {"error": {"code": wire.code_name(error), "message": str(error)}}


def exit_on_errors(results: Sequence[object]) -> None:
    """Status 1 where one of the inputs had no result."""
    if any(isinstance(result, DiptychError) for result in results):
        sys.exit(1)
