"""Checkpoints are written once and read by many tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.export.sources.directories import FAMILIES


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    """Towers this small only lose by sharing their work out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family by its name in `FAMILIES`; not to be changed."""
    written: dict[str, Path] = {}

    def write(family: str) -> Path:
        if family not in written:
            folder = tmp_path_factory.mktemp("checkpoint") / family.replace(" ", "-")
            written[family] = FAMILIES[family](folder)
        return written[family]

    return write
