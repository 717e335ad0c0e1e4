"""A policy file and its calibrated thresholds in, the next version of the file out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from diptych.contract import Tower
from diptych.policies import Policy
from diptych.policy_files import PolicyFile
from diptych_export.errors import BadData
from diptych_export.evaluation.calibrating import Calibrated
from diptych_export.thresholds import Wanted

_FIELDS = {
    Tower.IMAGE: ("threshold", "calibration"),
    Tower.TEXT: ("text_threshold", "text_calibration"),
}


def next_version(version: str) -> str:
    """The number after it; of what is no number, something that says it came after."""
    return str(int(version) + 1) if version.isdecimal() else f"{version}-calibrated"


def check_covered(policy: Policy, done: Sequence[Calibrated], fingerprint: str) -> None:
    """No threshold may be kept that was not calibrated on this space.

    Raises:
        BadData: naming the concept of one.
    """
    if policy.fingerprint == fingerprint:
        return
    fresh = {(one.concept, one.tower) for one in done}
    for concept in policy.concepts:
        for tower, (field, _) in _FIELDS.items():
            if getattr(concept, field) is not None and (concept.name, tower) not in fresh:
                raise BadData(
                    f"concept {concept.name!r}: {field}: nothing in the data says what it should "
                    "be, and the policy was not calibrated on this space before"
                )


def write(
    file: PolicyFile,
    done: Sequence[Calibrated],
    out: Path,
    *,
    version: str,
    fingerprint: str,
    wanted: Wanted,
    at_least: float,
) -> Policy:
    """Write the next version to `out`, complete at once, and give it back. Comments are lost.

    Raises:
        BadData: a threshold is none by the concept's measure.
    """
    said: dict[str, Any] = yaml.safe_load(file.path.read_text(encoding="utf-8"))
    said["version"] = version
    said["fingerprint"] = fingerprint
    said.pop("other_spaces", None)
    concepts = {concept["name"]: concept for concept in said["concepts"]}
    for one in done:
        field, record = _FIELDS[one.tower]
        concepts[one.concept][field] = one.found.threshold
        concepts[one.concept][record] = _record(one, wanted, at_least)
    for example in said.get("examples", []):
        if "image" in example:  # from the folder of the file that names it
            image = file.path.parent / example["image"]
            example["image"] = os.path.relpath(image, out.parent)
    try:
        policy = Policy.model_validate(said)
    except ValidationError as exc:
        first = exc.errors()[0]
        raise BadData(f"{out}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
    draft = out.with_name(f"{out.name}.draft")  # no name a gateway would read
    text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100)
    draft.write_text(f"# Written by `diptych-export calibrate`.\n{text}", encoding="utf-8")
    draft.replace(out)
    return policy


def _record(one: Calibrated, wanted: Wanted, at_least: float) -> dict[str, Any]:
    found = one.found
    return {
        "wanted": wanted,
        "at_least": at_least,
        "precision": round(found.confusion.precision, 6),
        "recall": round(found.confusion.recall, 6),
        "threshold_interval": [found.interval.low, found.interval.high],
        "positives": int(one.data.truth.sum()),
        "negatives": int((~one.data.truth).sum()),
    }
