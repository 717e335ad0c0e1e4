"""`diptych condition` and `diptych profiles`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from cyclopts.types import ExistingFile

from diptych import wire
from diptych.commands.common import Address, AsJson, out, print_line
from diptych.commands.connection import NO_CONNECTION, Connecting
from diptych.wire import Options
from diptych.wire_conditioning import Conditioning, ConditionReply, LongPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How prompts are to be read. Each field is a flag."""

    model: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """One for all encoders, or one for each, in the profile's order."""

    clip_skip: int = 0
    """More of the last layers to leave out, as the generators' pipelines count them."""

    long_prompt: LongPrompt = "default"
    """What is longer than the context; default: chunks, or cut where generators take but one."""

    literal: Annotated[bool, Parameter(negative="")] = False
    """Brackets are text: (word:1.3) weighs nothing."""

    unguided: Annotated[bool, Parameter(negative="")] = False
    """No negative tensors."""

    half: Annotated[bool, Parameter(negative="")] = False
    """float16 in place of float32."""

    def conditioning(self) -> Conditioning:
        return Conditioning(
            models=self.model if len(self.model) > 1 else (),
            clip_skip=self.clip_skip,
            literal=self.literal,
            long_prompt=self.long_prompt,
            unguided=self.unguided,
            half=self.half,
        )


def condition(
    *,
    address: Address,
    profile: Annotated[str, Parameter(help="A family of generators: diptych profiles.")],
    prompt: Annotated[tuple[str, ...], Parameter(negative="", help="Repeatable.")] = (),
    negative: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="One for all prompts, or one for each, in their order."),
    ] = (),
    image: Annotated[
        tuple[ExistingFile, ...], Parameter(negative="", help="For adapters. Repeatable.")
    ] = (),
    wanted: Annotated[Wanted, Parameter(name="*")] = Wanted(),
    save: Annotated[Path | None, Parameter(help="Write the tensors here, as .npz.")] = None,
    connection: Connecting = NO_CONNECTION,
    as_json: AsJson = False,
) -> None:
    """Make the tensors that an image generator takes; one line per tensor.

    Example: diptych condition --address localhost:50051 --profile sd15 --prompt "a (red:1.3) cat"
    --negative blurry --save cat.npz

    Example: diptych condition --address localhost:50051 --profile sdxl --model clip-l
    --model clip-g --prompt "a cat" --json
    """
    negatives = negative[0] if len(negative) == 1 else negative or None
    options = Options(model=wanted.model[0] if len(wanted.model) == 1 else "")
    how = wanted.conditioning()
    with connection.client(address) as client:
        reply = client.condition(
            profile, prompt, negatives, images=image, how=how, options=options, in_parts=True
        )
    if save is not None:
        with save.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **reply.tensors)
    for name, array in reply.tensors.items():
        print_line({"tensor": name, "dtype": str(array.dtype), "shape": list(array.shape)}, as_json)
    for record in _readings(reply, as_json):
        print_line(record, as_json)


def profiles(
    *, address: Address, connection: Connecting = NO_CONNECTION, as_json: AsJson = False
) -> None:
    """List the profiles that a gateway knows, and the tensors of each.

    Example: diptych profiles --address localhost:50051
    """
    with connection.client(address) as client:
        found = client.profiles()
    for one in found:
        if as_json:
            print_line(wire.as_dict(one), as_json)
        else:
            tensors = ", ".join(tensor.name for tensor in one.tensors)
            out.print(f"{one.name}: {one.description}\n  {tensors}", soft_wrap=True)


def _readings(reply: ConditionReply, as_json: bool) -> list[dict[str, Any]]:
    """Of every prompt for a program; for a person, where something was chunked or dropped."""
    if as_json:
        return [{"prompt": number, **asdict(one)} for number, one in enumerate(reply.readings)]
    found: list[dict[str, Any]] = []
    for number, one in enumerate(reply.readings):
        for kind, texts in (("prompt", one.prompt), ("negative", one.negative)):
            for text in texts[:1]:  # the second encoder reads much the same
                if text.chunks > 1 or text.tokens_dropped:
                    head = {f"{kind} {number}": f"{text.tokens} tokens", "chunks": text.chunks}
                    found.append(head | {"dropped": repr(text.dropped)})
    return found
