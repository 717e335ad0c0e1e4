"""Profile files: those we ship and those of a folder, read and checked to the last field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from diptych.errors import BadRepository, NotFound
from diptych.profiles import Profile
from diptych.strict_yaml import StrictLoader

SUFFIXES = (".yaml", ".yml")

_SHIPPED = "shipped_profiles"

_Place: TypeAlias = Sequence[int | str]


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """A profile, and where it was read."""

    path: Traversable
    profile: Profile


class Profiles:
    """What a server knows, by name."""

    def __init__(self, files: Iterable[ProfileFile]) -> None:
        self._files = {file.profile.name: file for file in files}

    def __iter__(self) -> Iterator[Profile]:
        return iter(file.profile for _, file in sorted(self._files.items()))

    def get(self, name: str) -> Profile:
        """The profile of this name.

        Raises:
            NotFound: there is none.
        """
        if (found := self._files.get(name)) is None:
            names = ", ".join(sorted(self._files))
            raise NotFound(f"profile {name!r} is not served; there are: {names}")
        return found.profile

    def check(self, models: Sequence[str]) -> None:
        """Every model that a profile names must be among `models`.

        Raises:
            BadRepository: naming the file, the profile and the field.
        """
        for file in self._files.values():
            for number, encoder in enumerate(file.profile.encoders):
                if encoder.model is not None and encoder.model not in models:
                    place = f"profile {file.profile.name!r}: encoders.{number}.model"
                    problem = f"{encoder.model!r} is not served; there are: {', '.join(models)}"
                    raise BadRepository(f"{file.path}: {place}: {problem}")


def read_profiles(folder: Path | None = None) -> Profiles:
    """The shipped profiles and every YAML file in `folder`, which go before those of their name.

    Raises:
        BadRepository: naming the file, the profile and the field that is wrong.
    """
    files = {file.profile.name: file for file in _read_all(resources.files("diptych") / _SHIPPED)}
    if folder is not None:
        if not folder.is_dir():
            raise BadRepository(f"{folder}: no such folder of profiles")
        files |= {file.profile.name: file for file in _read_all(folder)}
    return Profiles(files.values())


def _read_all(folder: Traversable) -> list[ProfileFile]:
    found: dict[str, ProfileFile] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if not path.name.endswith(SUFFIXES):
            continue
        file = _read(path)
        if other := found.get(file.profile.name):
            name = file.profile.name
            raise BadRepository(f"{path}: name: {name!r} stands in {other.path.name} too")
        found[file.profile.name] = file
    return list(found.values())


def _read(path: Traversable) -> ProfileFile:
    said: Any = None
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
        return ProfileFile(path, Profile.model_validate(said))
    except ValidationError as exc:
        first = exc.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        raise BadRepository(f"{path}: {_where(said, first['loc'])}: {problem}") from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRepository(f"{path}: not YAML: {' '.join(str(exc).split())}") from exc
    except OSError as exc:
        raise BadRepository(f"{path}: {exc.strerror}") from exc


def _where(said: Any, place: _Place) -> str:
    """A place in the file, for a person: profile 'mine': tensor 'prompt_embeds': layer."""
    profile = said.get("name") if isinstance(said, dict) else None
    head = f"profile {profile!r}: " if isinstance(profile, str) and place != ("name",) else ""
    if len(place) > 2 and place[0] == "tensors":
        tensor = said["tensors"][place[1]]
        name = tensor.get("name", place[1]) if isinstance(tensor, dict) else place[1]
        return f"{head}tensor {name!r}: {'.'.join(map(str, place[2:]))}"
    return f"{head}{'.'.join(map(str, place)) or 'whole file'}"
