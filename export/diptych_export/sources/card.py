"""A model card in, the licence it names out."""

from __future__ import annotations

from typing import Any

import yaml

UNKNOWN = "unknown"


def licence_of(card: str) -> str:
    """`license` of the YAML head of a README.md, as hubs read it; `UNKNOWN` where it says none."""
    parts = card.split("---", 2)
    if parts[0].strip() or len(parts) < 3:
        return UNKNOWN
    try:
        head: Any = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return UNKNOWN
    named = head.get("license_name") or head.get("license") if isinstance(head, dict) else None
    return str(named) if named else UNKNOWN
