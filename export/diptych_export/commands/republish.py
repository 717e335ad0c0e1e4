"""`diptych-export republish`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from diptych_export import rollback

out = Console(highlight=False)


def republish(
    *,
    name: str,
    version: int,
    repository: Path = Path("model_repository"),
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", help="One JSON object.")
    ] = False,
) -> None:
    """Publish an older version of a model once more, as its newest: the way back from a roll-out.

    Gateways and a Triton that polls take it up as they take up any new version. Its fingerprint
    is that of the older version, so callers who pinned that one are served again.

    Example: diptych-export republish --name shapes --version 1

    Parameters
    ----------
    name
        The model.
    version
        The one to go back to.
    repository
        Where it is published, and will be once more.
    """
    spec = rollback.republish(repository, name, version)
    found = {"model": spec.name, "version": spec.version, "fingerprint": spec.fingerprint}
    if as_json:
        print(json.dumps(found))  # noqa: T201 (rich would wrap it)
    else:
        out.print(
            f"{spec.name} version {spec.version} is version {version} once more", style="bold"
        )
        out.print(f"  fingerprint {spec.fingerprint}")
