"""Everything that can go wrong on purpose in training and export.

ExportError
├── BadRun         settings or a run's folder that training cannot go on with
├── BadBuild       a build that was asked for what does not go together
├── BadCheckpoint  a source lacks something, or says something that cannot be served
├── ParityError    the exported graph does not answer as its source does; nothing is published
└── PlanError      TensorRT is not there, or makes no plan of a graph

Each message is one line for the person at the command line. Data that cannot be read is
`diptych.errors.BadData`, for training as for offline jobs.
"""

from __future__ import annotations

from diptych.errors import BadData as BadData


class ExportError(Exception):
    """Base of all of the above."""


class BadRun(ExportError):
    """A run cannot start, or not be resumed: its settings or its folder say so."""


class BadBuild(ExportError):
    """Target, device, precision and calibration do not go together."""


class BadCheckpoint(ExportError):
    """A checkpoint is missing a file or a setting, or has one that cannot be served."""


class ParityError(ExportError):
    """An exported graph does not answer as its source library does."""

    def __init__(self, output: str, problem: str) -> None:
        super().__init__(f"{output}{problem}; nothing was published")
        self.output = output  # "TOWER.NAME", or what of both towers together


class PlanError(ExportError):
    """There is no TensorRT here, or it makes no plan of a graph; the repository is as it was."""
