"""Which tests run in one process, where several processes share them out."""

from __future__ import annotations

from pathlib import Path

import pytest

_ROOT = Path(__file__).parent
_TOGETHER = {"conditioning", "monitoring"}  # folders whose servers take long to set up


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay together, for the servers and models that they share."""
    for item in items:
        place = item.path.relative_to(_ROOT)
        group = place.parts[0] if place.parts[0] in _TOGETHER else str(place)
        item.add_marker(pytest.mark.xdist_group(group))
