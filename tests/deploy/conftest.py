"""Everything that deploy/ renders, once."""

from __future__ import annotations

import pytest
import yaml
from deploy import rendering

from tests.deploy.manifests import Manifest


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    """Overlays and jobs as they are, and components mixed, by name."""
    try:
        texts = rendering.shipped() | rendering.mixed()
    except rendering.NoTool as reason:
        pytest.skip(f"the deployment is not rendered: {reason}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {name: list(yaml.load_all(text, loader)) for name, text in texts.items()}


@pytest.fixture(scope="session")
def services(rendered: dict[str, list[Manifest]]) -> dict[str, list[Manifest]]:
    """Those with a gateway."""
    return {name: found for name, found in rendered.items() if "gateway" in str(found)}


@pytest.fixture(scope="session")
def gpu(rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    return rendered["overlays-gpu"]
