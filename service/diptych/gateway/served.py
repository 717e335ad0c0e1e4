"""What this server serves, by name, and who is using it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from diptych.concepts import EmbeddedPolicy
from diptych.conditioner import Conditioner
from diptych.contract import ModelSpec
from diptych.encoder import Encoder
from diptych.engines.base import Engine
from diptych.errors import NotFound, SpaceMismatch
from diptych.labels import EmbeddedLabels


class Served:
    """One version of one model being served."""

    def __init__(
        self,
        spec: ModelSpec,
        encoder: Encoder,
        engine: Engine,
        label_sets: dict[str, EmbeddedLabels],
        policies: dict[str, EmbeddedPolicy],
        conditioner: Conditioner,
    ) -> None:
        self.spec = spec
        self.encoder = encoder
        self.conditioner = conditioner
        self.engine = engine
        self.label_sets = label_sets
        self.policies = policies  # replaced as a whole when the files change
        self._calls = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def labels(self, name: str) -> EmbeddedLabels:
        if (found := self.label_sets.get(name)) is None:
            raise NotFound(f"label_set {name!r} is not served; there are: {_list(self.label_sets)}")
        return found

    def policy(self, name: str) -> EmbeddedPolicy:
        if (found := self.policies.get(name)) is None:
            raise NotFound(
                f"policy {name!r} is not served with model {self.spec.name!r}; "
                f"there are: {_list(self.policies)}"
            )
        return found

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep this version open, whatever is rolled out meanwhile."""
        self._calls += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._unused.set()

    async def unused(self) -> None:
        """Wait until no call uses this version."""
        await self._unused.wait()


class Catalog:
    """The models served: one version of each, the default model first."""

    def __init__(self) -> None:
        self._models: dict[str, Served] = {}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._models.values())

    def put(self, model: Served) -> None:
        """Serve `model` from now on, in place of another version of it: both towers at once."""
        self._models[model.spec.name] = model

    def get(self, name: str, expected_fingerprint: str) -> Served:
        """The model `name`, or the default one if empty, in the space the caller expects, if any.

        Raises:
            NotFound: no such model.
            SpaceMismatch: its space has another fingerprint.
        """
        model = self._models.get(name or next(iter(self._models)))
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
