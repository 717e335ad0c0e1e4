"""The policies of a folder: those last found good, for every space served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from diptych.concepts import EmbeddedPolicy, embed_policy
from diptych.encoder import Encoder
from diptych.errors import BadRepository, DiptychError, EngineError
from diptych.gateway.served import Served
from diptych.gateway.watching import State, state_of
from diptych.metrics import Metrics
from diptych.policy_files import PolicyFile, fitting, policy_paths, read_policies

log = logging.getLogger(__name__)


class Policing:
    """Reads the folder at start, and again whenever a file in it is another.

    All files are taken up together or, where one is bad, none: those last found good stay. So do
    they where one judges otherwise under the version it had.
    """

    def __init__(self, folder: Path | None, metrics: Metrics) -> None:
        self._folder = folder
        self._metrics = metrics
        self._files: list[PolicyFile] = []
        self._seen: State = []  # what lay there when it was last read

    async def start(self) -> None:
        """Read the folder, if there is one.

        Raises:
            BadRepository: a file in it is bad.
        """
        if self._folder is not None:
            self._seen = await asyncio.to_thread(_state, self._folder)
            self._take(await asyncio.to_thread(read_policies, self._folder))

    async def embedded(self, encoder: Encoder) -> dict[str, EmbeddedPolicy]:
        """By name, the policies that may be used with the encoder's space.

        Raises:
            BadRepository: a prompt does not fit the model's context.
            EngineError: the engine is away, or failed.
        """
        return await _embedded(self._files, encoder)

    def check(self, models: Iterable[Served]) -> None:
        """Every policy must fit one of these models.

        Raises:
            BadRepository: naming the file of one that does not.
        """
        _check(self._files, list(models))

    async def refresh(self, models: Iterable[Served]) -> bool:
        """Look at the folder; whether other policies are served now."""
        if self._folder is None:
            return False
        state = await asyncio.to_thread(_state, self._folder)
        if state == self._seen:
            return False
        try:
            files = await asyncio.to_thread(read_policies, self._folder)
            _check_versions(self._files, files)
            served = list(models)
            _check(files, served)
            fresh = [(model, await _embedded(files, model.encoder)) for model in served]
        except EngineError as exc:  # nothing is wrong with the files: the next look tries again
            log.warning("policies wait for the engine: %s", exc)
            return False
        except DiptychError as exc:
            self._seen = state
            self._metrics.policy_reloads.labels("refused").inc()
            log.error("policies are not taken up, the last good ones stay: %s", exc)
            return False
        for model, policies in fresh:
            model.policies = policies
        self._seen = state
        self._take(files)
        self._metrics.policy_reloads.labels("served").inc()
        log.info("policies taken up: %s", ", ".join(_names(files)) or "none")
        return True

    def _take(self, files: list[PolicyFile]) -> None:
        self._files = files
        self._metrics.policy.clear()
        for file in files:
            policy = file.policy
            self._metrics.policy.labels(policy.name, policy.version, policy.fingerprint or "").set(
                1
            )


async def _embedded(files: Iterable[PolicyFile], encoder: Encoder) -> dict[str, EmbeddedPolicy]:
    found = fitting(files, encoder.spec.fingerprint)
    return {name: await embed_policy(encoder, policy) for name, policy in found.items()}


def _check(files: Iterable[PolicyFile], models: Sequence[Served]) -> None:
    spaces = [model.spec.fingerprint for model in models]
    used = {name for space in spaces for name in fitting(files, space)}
    for file in files:
        if file.policy.name not in used:
            raise file.misfit(spaces[0])


def _check_versions(before: Iterable[PolicyFile], after: Iterable[PolicyFile]) -> None:
    """One version must not judge in two ways: what a log names by it could not be told apart."""
    known = {file.key: file.policy for file in before}
    for file in after:
        policy, old = file.policy, known.get(file.key)
        if old and old.version == policy.version and old.digest != policy.digest:
            raise BadRepository(
                f"{file.path}: version: {policy.version!r} is in use with other concepts: "
                "give what has changed another"
            )


def _names(files: Iterable[PolicyFile]) -> list[str]:
    return [
        f"{file.policy.name} version {file.policy.version} ({file.policy.digest[:12]})"
        for file in files
    ]


def _state(folder: Path) -> State:
    return state_of(lambda: policy_paths(folder))
