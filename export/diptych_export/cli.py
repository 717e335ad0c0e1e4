"""`diptych-export …`: training and export, down to a verified model repository."""

from __future__ import annotations

import sys

import cyclopts

from diptych.errors import DiptychError
from diptych_export.errors import ExportError

app = cyclopts.App(
    name="diptych-export",
    help="""Train or import a dual encoder, and export it to a model repository.

train on pairs of your own, or take a public checkpoint; build a verified model repository from
either; plan it for TensorRT; evaluate what is served. demo does it all with scenes it draws.
""",
    default_parameter=cyclopts.Parameter(negative=()),  # nobody needs --no-resume or --empty-data
)
# Found when they are asked for: torch takes seconds to import.
app.command("diptych_export.commands.train:train")
app.command("diptych_export.commands.build:build")
app.command("diptych_export.commands.plan:plan")
app.command("diptych_export.commands.republish:republish")
app.command("diptych_export.commands.evaluate:evaluate")
app.command("diptych_export.commands.calibrate:calibrate")
app.command("diptych_export.commands.demo:demo")


def main() -> None:
    """One clear line for whatever a user can mend, and never a traceback for it."""
    try:
        app()
    except (DiptychError, ExportError, OSError) as exc:
        sys.exit(f"diptych-export: {exc}")  # status 1
    except KeyboardInterrupt:
        sys.exit(130)
