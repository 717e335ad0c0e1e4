"""`diptych moderate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter

from diptych.commands.common import (
    Address,
    AsJson,
    ModelName,
    error_record,
    exit_on_errors,
    image_file,
    in_order,
    kind_and_value,
    print_line,
)
from diptych.commands.connection import NO_CONNECTION, Connecting
from diptych.errors import DiptychError
from diptych.wire import Options
from diptych.wire_moderation import Judgement, Subject


def moderate(
    *,
    address: Address,
    policy: Annotated[str, Parameter(help="A policy the gateway serves: diptych policy list.")],
    inputs: Annotated[
        list[str],
        Parameter(
            name=["--image", "--text", "--caption"],
            negative="",
            converter=in_order,
            help="An image file, a text, or the caption of the image before it. Repeat any.",
        ),
    ],
    reached_only: Annotated[
        bool, Parameter(negative="", help="Only concepts whose threshold is reached.")
    ] = False,
    truncate: Annotated[
        bool, Parameter(negative="", help="Judge the beginning of over-long texts, not refuse.")
    ] = False,
    model: ModelName = "",
    as_json: AsJson = False,
    connection: Connecting = NO_CONNECTION,
) -> None:
    """Judge images and texts by a policy; one line per input, in order.

    Exit status 1 when an input could not be judged; what is flagged or blocked is no failure.

    Example: diptych moderate --address localhost:50051 --policy shapes --image cat.jpg --json
    """
    records, subjects = _subjects([kind_and_value(item) for item in inputs])
    with connection.client(address) as client:
        reply = client.moderate(
            subjects, policy, Options(model=model, truncate=truncate), reached_only=reached_only
        )
    space = {
        "policy": reply.policy,
        "version": reply.version,
        "digest": reply.digest,
        "model": reply.space.model,
        "fingerprint": reply.space.fingerprint,
    }
    for record, result in zip(records, reply.results, strict=True):
        if isinstance(result, DiptychError):
            print_line({**record, **error_record(result)}, as_json)
        else:
            print_line({**record, **_judged(result, as_json), **space}, as_json)
    exit_on_errors(reply.results)


def _subjects(pairs: Sequence[tuple[str, str]]) -> tuple[list[dict[str, Any]], list[Subject]]:
    """What is to be judged, and the beginning of each one's line.

    Raises:
        ValueError: a file is not there, or a caption follows no image.
    """
    records: list[dict[str, Any]] = []
    subjects: list[Subject] = []
    for kind, value in pairs:
        if kind == "caption":
            if not records or records[-1]["kind"] != "image" or "caption" in records[-1]:
                raise ValueError(f"--caption {value!r}: belongs right behind its --image")
            records[-1]["caption"] = value
            subjects[-1] = (image_file(records[-1]["input"]), value)
        else:
            records.append({"kind": kind, "input": value})
            subjects.append(image_file(value) if kind == "image" else value)
    return records, subjects


def _judged(found: Judgement, as_json: bool) -> dict[str, Any]:
    head = {"verdict": found.verdict, "severity": found.severity}
    if as_json:
        return {**head, "concepts": [asdict(one) for one in found.concepts]}
    scores = [
        f"{one.concept} in the {one.part} {one.score:.3f} of {one.threshold:.3f}"
        for one in found.concepts
    ]
    return {**head, "concepts": ", ".join(scores) or "none"}
