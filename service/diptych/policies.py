"""Policies: reviewed files that say what to look for, from which score on, and what then to do."""

from __future__ import annotations

import enum
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from diptych.contract import Digest
from diptych.labels import SLOT

_BOUNDS = {
    "cosine": (-1.0, 1.0),
    "softmax": (0.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "logit": (-1e6, 1e6),  # beyond what any model says
}
# Of a concept, besides its templates: what a verdict, or what is said with it, depends on.
_JUDGES = {
    "name", "prompts", "contrast", "measure", "threshold", "text_threshold", "action", "severity",
}  # fmt: skip


class Verdict(enum.StrEnum):
    """What to do with an input, from the mildest to the strongest."""

    PASS = "pass"
    FLAG = "flag"  # let it through, marked
    REVIEW = "review"  # a person decides
    BLOCK = "block"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Text: TypeAlias = Annotated[str, AfterValidator(_not_blank)]
Texts: TypeAlias = tuple[Text, ...]
Threshold: TypeAlias = Annotated[float, Field(strict=True)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Calibration(_Said):
    """Where a threshold came from; written by `diptych-export calibrate`."""

    wanted: Literal["precision", "recall"]
    at_least: Share
    precision: Share  # on the data it was calibrated on
    recall: Share
    threshold_interval: tuple[float, float]  # 95 % of bootstrap samples lie between
    positives: Annotated[int, Field(ge=1)]
    negatives: Annotated[int, Field(ge=1)]


class Concept(_Said):
    """One thing to look for. Later fields are held against earlier ones, in this order."""

    name: Name
    prompts: Annotated[Texts, Field(min_length=1)]  # near any of them is of the concept
    measure: Literal["cosine", "logit", "softmax", "sigmoid"] = "cosine"
    contrast: Annotated[Texts, Field(validate_default=True)] = ()  # what is near these is not
    templates: Texts | None = None  # None: the policy's
    text_threshold: Threshold | None = None  # None: texts are not judged by this concept
    threshold: Annotated[Threshold | None, Field(validate_default=True)] = None  # of images
    action: Literal[Verdict.FLAG, Verdict.REVIEW, Verdict.BLOCK]
    severity: Annotated[int, Field(strict=True, ge=1, le=10)]
    calibration: Calibration | None = None  # of `threshold`
    text_calibration: Calibration | None = None

    @field_validator("prompts", "contrast")
    @classmethod
    def _each_once(cls, texts: Texts) -> Texts:
        _once(texts)
        return texts

    @field_validator("contrast")
    @classmethod
    def _goes_with_measure(cls, contrast: Texts, info: ValidationInfo) -> Texts:
        measure = info.data.get("measure")
        if measure == "softmax" and not contrast:
            raise ValueError("measure softmax needs something to compare with")
        if measure in ("cosine", "sigmoid") and contrast:
            raise ValueError(f"measure {measure} does not heed it; softmax and logit do")
        if both := set(contrast) & set(info.data.get("prompts", ())):
            raise ValueError(f"{min(both)!r} is among the prompts too")
        return contrast

    @field_validator("templates")
    @classmethod
    def _one_slot_each(cls, templates: Texts | None) -> Texts | None:
        return templates and _slotted(templates)

    @field_validator("threshold", "text_threshold")
    @classmethod
    def _within_measure(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        measure = info.data.get("measure", "logit")  # one that is wrong is said elsewhere
        low, high = _BOUNDS[measure]
        if threshold is not None and not low < threshold <= high:
            raise ValueError(f"{threshold} is not above {low:g} and at most {high:g}: {measure}")
        return threshold

    @field_validator("threshold")
    @classmethod
    def _of_one_kind_at_least(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        is_missing = "text_threshold" in info.data and info.data["text_threshold"] is None
        if threshold is None and is_missing:
            raise ValueError("is needed, for images, or text_threshold, for texts, or both")
        return threshold


class Example(_Said):
    """An input, or an image with its caption, and what is expected of the policy."""

    image: Text | None = None  # a file, from the folder of the policy's file
    text: Annotated[str | None, Field(validate_default=True)] = None
    verdict: Verdict
    concepts: tuple[Name, ...] | None = None  # exactly these are reached; None: any

    @field_validator("text")
    @classmethod
    def _something(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None and "image" in info.data and info.data["image"] is None:
            raise ValueError("is needed, or image, or both")
        return text

    @field_validator("concepts")
    @classmethod
    def _goes_with_verdict(
        cls, concepts: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        verdict = info.data.get("verdict")
        if concepts is not None and verdict and bool(concepts) is (verdict is Verdict.PASS):
            raise ValueError(f"{list(concepts)} does not go with verdict {verdict}")
        return concepts


class Policy(_Said):
    """What a policy file says."""

    name: Name
    version: Annotated[Text, Field(max_length=64)]
    description: str = ""
    fingerprint: Digest | None = None  # of the space its thresholds were calibrated on
    other_spaces: Literal["refuse", "allow"] = "refuse"  # where `fingerprint` is another's
    templates: Texts = ()  # of concepts that have none of their own
    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]
    examples: tuple[Example, ...] = ()

    @field_validator("templates")
    @classmethod
    def _one_slot_each(cls, templates: Texts) -> Texts:
        return _slotted(templates)

    @field_validator("concepts")
    @classmethod
    def _named_once(cls, concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
        _once([concept.name for concept in concepts])
        return concepts

    @field_validator("examples")
    @classmethod
    def _of_known_concepts(
        cls, examples: tuple[Example, ...], info: ValidationInfo
    ) -> tuple[Example, ...]:
        known = {concept.name for concept in info.data.get("concepts", ())}
        for number, example in enumerate(examples):
            if known and (strange := set(example.concepts or ()) - known):
                raise ValueError(f"number {number}: no concept {min(strange)!r}")
        return examples

    def fits(self, fingerprint: str) -> bool:
        """Whether its thresholds may be held against vectors of this space."""
        return self.fingerprint in (None, fingerprint) or self.other_spaces == "allow"

    def templates_of(self, concept: Concept) -> Texts:
        return self.templates if concept.templates is None else concept.templates

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all that verdicts depend on, but for the space."""
        said = [
            {**concept.model_dump(mode="json", include=_JUDGES), "templates": templates}
            for concept in self.concepts
            for templates in [self.templates_of(concept)]
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _once(texts: Sequence[str]) -> None:
    for text, times in Counter(texts).items():
        if times > 1:
            raise ValueError(f"{text!r} stands twice")


def _slotted(templates: Texts) -> Texts:
    for template in templates:
        if template.count(SLOT) != 1:
            raise ValueError(f"{template!r} must hold {SLOT} once")
    return templates
