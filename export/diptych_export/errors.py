"""Everything that can go wrong on purpose in training and export.

ExportError
├── BadData        pairs or pictures that cannot be read, or none that can
└── BadRun         settings or a run's folder that training cannot go on with

Each message is one line for the person at the command line.
"""

from __future__ import annotations


class ExportError(Exception):
    """Base of all of the above."""


class BadData(ExportError):
    """A data set is missing, unreadable, or holds nothing that can be used."""


class BadRun(ExportError):
    """A run cannot start, or not be resumed: its settings or its folder say so."""
