"""`diptych policy …`: policies checked before they are served, and read where they are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.table import Table

from diptych import repository as repositories
from diptych import wire
from diptych.commands.common import Address, AsJson, out, print_line
from diptych.commands.connection import NO_CONNECTION, Connecting
from diptych.concepts import EmbeddedPolicy, embed_policy
from diptych.encoder import Encoder, Reading
from diptych.errors import BadRepository
from diptych.gateway.opening import open_encoder
from diptych.gateway.rollout import served_names
from diptych.moderation import Judgement, Subject, moderate
from diptych.policies import Example
from diptych.policy_files import PolicyFile, read_policy
from diptych.settings import Settings

app = cyclopts.App(name="policy", help="Check policies before they are served, and list them.")


@app.command
def check(
    files: Annotated[list[Path], Parameter(help="Policy files.", negative="")],
    /,
    *,
    repository: Annotated[Path, Parameter(help="The model repository.")] = Path("model_repository"),
    model: Annotated[str, Parameter(help="Which model; by default the only one there.")] = "",
    as_json: AsJson = False,
) -> None:
    """Read policy files, embed their prompts, and run their examples on the embedded engine.

    Needs no gateway. Exit status 1 when a file is bad, was calibrated on another space than the
    model's, or an example gets another verdict than it expects.

    Example: diptych policy check deploy/examples/policies/shapes.yaml
    """
    read = [read_policy(path) for path in files]
    settings = Settings(repository=repository, model=(model,) if model else ())
    checked = asyncio.run(_check(read, settings))
    for one in checked:
        print_line(one.as_dict(), as_json)
    if not as_json:
        for file in read:
            own = [one for one in checked if one.file is file]
            right = sum(one.is_right for one in own)
            policy = file.policy
            out.print(
                f"{policy.name} version {policy.version}: {len(policy.concepts)} concepts, "
                f"{right} of {len(own)} examples as expected"
            )
    if not all(one.is_right for one in checked):
        sys.exit(1)


@app.command(name="list")
def list_(
    *, address: Address, as_json: AsJson = False, connection: Connecting = NO_CONNECTION
) -> None:
    """List the policies a gateway serves.

    Example: diptych policy list --address localhost:50051
    """
    with connection.client(address) as client:
        policies = client.policies()
    table = Table("policy", "version", "model", "concepts", "calibrated on")
    for found in policies:
        if as_json:
            print_line(wire.as_dict(found), as_json)
        count = str(len(found.concepts))
        table.add_row(found.name, found.version, found.model, count, found.fingerprint[:12])
    if not as_json:
        out.print(table)


@dataclass(frozen=True, slots=True)
class _Checked:
    """One example, and what became of it."""

    file: PolicyFile
    number: int
    example: Example
    verdict: str  # or what went wrong
    reached: list[str]

    @property
    def is_right(self) -> bool:
        expected = self.example.concepts
        return self.verdict == self.example.verdict and (
            expected is None or set(expected) == set(self.reached)
        )

    def as_dict(self) -> dict[str, Any]:
        given = {"image": self.example.image, "text": self.example.text}
        return {
            "file": str(self.file.path),
            "example": self.number,
            **{kind: value for kind, value in given.items() if value is not None},
            "expected": str(self.example.verdict),
            "verdict": self.verdict,
            "reached": self.reached,
            "ok": self.is_right,
        }


async def _check(files: Sequence[PolicyFile], settings: Settings) -> list[_Checked]:
    name = served_names(settings.repository, settings.model)[0]
    async with open_encoder(repositories.load(settings.repository, name), settings) as encoder:
        checked: list[_Checked] = []
        for file in files:
            if not file.policy.fits(encoder.spec.fingerprint):
                raise file.misfit(encoder.spec.fingerprint)
            policy = await embed_policy(encoder, file.policy)
            checked += await _examples(encoder, file, policy)
        return checked


async def _examples(encoder: Encoder, file: PolicyFile, policy: EmbeddedPolicy) -> list[_Checked]:
    examples = file.policy.examples
    subjects = [_subject(file, number, example) for number, example in enumerate(examples)]
    judged = await moderate(encoder, policy, subjects, Reading())
    return [
        _Checked(file, number, example, str(result.verdict), result.concepts(policy))
        if isinstance(result, Judgement)
        else _Checked(file, number, example, f"none: {result}", [])
        for number, (example, result) in enumerate(zip(examples, judged.results, strict=True))
    ]


def _subject(file: PolicyFile, number: int, example: Example) -> Subject:
    if example.image is None:
        return Subject(None, example.text)
    try:
        return Subject((file.path.parent / example.image).read_bytes(), example.text)
    except OSError as exc:
        place = f"{file.path}: examples.{number}.image: {example.image}"
        raise BadRepository(f"{place}: {exc.strerror}") from exc
