"""An older version of a model in, the same once more as its newest version out."""

from __future__ import annotations

import shutil
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from diptych.contract import ModelSpec
from diptych.engines.triton_checks import FINGERPRINT
from diptych.repository import SPEC, load
from diptych_export.repository import next_version, publish, staging
from diptych_export.triton_config import CONFIG, serialize


def republish(root: Path, name: str, version: int) -> ModelSpec:
    """Publish a version anew under the next number: the way back from the one published since.

    To remove that one instead would take it from a Triton that polls, while calls run in it. The
    space, and so the fingerprint, is that of `version`.

    Raises:
        NotFound: there is no such model, or no such version of it.
        BadRepository: it cannot be served any more.
    """
    old = load(root, name, version).spec
    spec = old.model_copy(update={"version": next_version(root, name)})
    with staging(root) as stage:
        for folder in spec.folders.values():
            place = stage / folder / str(spec.version)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / folder / str(version), place, ignore=ignored)
            (place / SPEC).write_text(spec.model_dump_json(indent=2) + "\n")
            (stage / folder / CONFIG).write_text(_config(root / folder / CONFIG, spec))
        publish(stage, root, spec)
    return spec


def _config(path: Path, spec: ModelSpec) -> str:
    """The config as it is, which names the space of one more version."""
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    config.parameters[FINGERPRINT.format(version=spec.version)].string_value = spec.fingerprint
    return serialize(config)
