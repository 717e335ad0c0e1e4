"""Everything that can go wrong on purpose in training and export.

ExportError
├── BadData        pairs or pictures that cannot be read, or none that can
├── BadRun         settings or a run's folder that training cannot go on with
├── BadCheckpoint  a source lacks something, or says something that cannot be served
└── ParityError    the exported graph does not answer as its source does; nothing is published

Each message is one line for the person at the command line.
"""

from __future__ import annotations


class ExportError(Exception):
    """Base of all of the above."""


class BadData(ExportError):
    """A data set is missing, unreadable, or holds nothing that can be used."""


class BadRun(ExportError):
    """A run cannot start, or not be resumed: its settings or its folder say so."""


class BadCheckpoint(ExportError):
    """A checkpoint is missing a file or a setting, or has one that cannot be served."""


class ParityError(ExportError):
    """An output of an exported graph is too far from what its source library computes."""

    def __init__(self, output: str, item: str, batch: int, cosine: float, least: float) -> None:
        super().__init__(
            f"{output} of {item} at batch {batch}: cosine {cosine:.6f} to the source library, "
            f"at least {least} is needed; nothing was published"
        )
        self.output = output  # "TOWER.NAME"
        self.cosine = cosine
