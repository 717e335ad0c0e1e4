"""What this server serves, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from diptych.contract import ModelSpec
from diptych.encoder import Encoder
from diptych.errors import NotFound, SpaceMismatch
from diptych.labels import EmbeddedLabels


@dataclass(frozen=True, slots=True)
class Served:
    """One model being served."""

    spec: ModelSpec
    encoder: Encoder
    engine: str  # what runs it, for a person
    label_sets: dict[str, EmbeddedLabels]

    def labels(self, name: str) -> EmbeddedLabels:
        if (found := self.label_sets.get(name)) is None:
            raise NotFound(f"label_set {name!r} is not served; there are: {_list(self.label_sets)}")
        return found


class Catalog:
    """The models served, the default one first."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = {model.spec.name: model for model in models}
        self._default = models[0]

    def __iter__(self) -> Iterator[Served]:
        return iter(self._models.values())

    def get(self, name: str, expected_fingerprint: str) -> Served:
        """The model `name`, or the default one if empty, in the space the caller expects, if any.

        Raises:
            NotFound: no such model.
            SpaceMismatch: its space has another fingerprint.
        """
        model = self._models.get(name) if name else self._default
        if model is None:
            raise NotFound(f"model {name!r} is not served; there are: {_list(self._models)}")
        served = model.spec.fingerprint
        if expected_fingerprint and expected_fingerprint != served:
            raise SpaceMismatch(
                f"model {model.spec.name!r} version {model.spec.version} serves the space "
                f"{served}, not {expected_fingerprint}: vectors of the two cannot be compared"
            )
        return model


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
