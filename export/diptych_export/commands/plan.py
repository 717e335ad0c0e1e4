"""`diptych-export plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from diptych_export.tensorrt import plan as make

out = Console(highlight=False)
progress = Console(highlight=False, stderr=True)  # so that stdout is for results alone

TIMINGS = Path("~/.cache/diptych/tensorrt.timing")


def plan(
    *,
    name: str,
    repository: Path = Path("model_repository"),
    timing_cache: Path = TIMINGS,
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", help="One JSON object a version.")
    ] = False,
) -> None:
    """Make TensorRT plans beside the graphs of a model, and set its config to run them.

    Takes minutes a tower. Run it on the GPU and with the TensorRT that will serve: a plan works
    for no other. Batch 1 to the config's max_batch_size and texts of any length are one plan.
    Graphs and fingerprint stay as they are; the gateway's canary holds the plan's answers against
    the reference. No GPU was at hand when this was written: everything up to TensorRT's builder is
    tested, the builder itself has not been run.

    Example: diptych-export plan --name clip --repository model_repository

    Parameters
    ----------
    name
        Which model, as `diptych-export build --name` named it. Its two newest versions are
        planned: Triton loads both.
    repository
        The model repository.
    timing_cache
        A file of TensorRT's measurements; the next plan on the same GPU is made in less time.
    """
    for spec in make(repository, name, timing_cache.expanduser(), progress.print):
        if as_json:
            found = {"model": name, "version": spec.version, "fingerprint": spec.fingerprint}
            print(json.dumps(found))  # noqa: T201 (rich would wrap it)
        else:
            out.print(f"{name} version {spec.version} runs on TensorRT; {spec.fingerprint}")
