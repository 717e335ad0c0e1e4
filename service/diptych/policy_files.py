"""Policy files: read, checked to the last field, chosen by the space they were calibrated on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from diptych.errors import BadRepository
from diptych.policies import Policy
from diptych.strict_yaml import StrictLoader

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy, and where it was read."""

    path: Path
    policy: Policy

    @property
    def key(self) -> tuple[str, str | None]:
        """What no two files may share: the name, and the space its thresholds are of."""
        return self.policy.name, self.policy.fingerprint

    def misfit(self, fingerprint: str) -> BadRepository:
        """What to say where it does not fit the space of this fingerprint."""
        return BadRepository(
            f"{self.path}: fingerprint: calibrated on {self.policy.fingerprint}, not on "
            f"{fingerprint}: calibrate it anew, or say `other_spaces: allow`"
        )


def read_policies(folder: Path) -> list[PolicyFile]:
    """Every YAML file in `folder`, by file name.

    One name may stand in several files if each was calibrated on another space: so a model and
    its thresholds can change together.

    Raises:
        BadRepository: naming the file, the concept and the field that is wrong.
    """
    try:
        paths = policy_paths(folder)
    except OSError as exc:
        raise BadRepository(f"{folder}: no such folder of policies: {exc.strerror}") from exc
    found: dict[tuple[str, str | None], PolicyFile] = {}
    for path in paths:
        file = read_policy(path)
        key = file.key
        if other := found.get(key):
            raise BadRepository(f"{path}: name: {key[0]!r} stands in {other.path.name} too")
        found[key] = file
    return list(found.values())


def policy_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def read_policy(path: Path) -> PolicyFile:
    """One file.

    Raises:
        BadRepository: in one line, naming the file, the concept and the field that is wrong.
    """
    said: Any = None
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
        return PolicyFile(path, Policy.model_validate(said))
    except ValidationError as exc:
        first = exc.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        raise BadRepository(f"{path}: {_where(said, first['loc'])}: {problem}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # 2026-13-45 is a ValueError
        raise BadRepository(f"{path}: not YAML: {' '.join(str(exc).split())}") from exc
    except OSError as exc:
        raise BadRepository(f"{path}: {exc.strerror}") from exc


def fitting(files: Iterable[PolicyFile], fingerprint: str) -> dict[str, Policy]:
    """By name, what may be used with this space: what was calibrated on it before all else."""
    found: dict[str, Policy] = {}
    for file in files:
        policy = file.policy
        known = found.get(policy.name)
        if policy.fits(fingerprint) and (not known or policy.fingerprint == fingerprint):
            found[policy.name] = policy
    return found


def _where(said: Any, place: Sequence[int | str]) -> str:
    """A place in the file, for a person: concept 'weapon': threshold."""
    if len(place) > 1 and place[0] == "concepts":
        concept = said["concepts"][place[1]]
        name = concept.get("name", place[1]) if isinstance(concept, dict) else place[1]
        return f"concept {name!r}: {_path(place[2:])}" if place[2:] else f"concept {name!r}"
    return _path(place) or "whole file"


def _path(place: Sequence[int | str]) -> str:
    return ".".join(map(str, place))
