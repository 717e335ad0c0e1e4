"""Pictures and class names in, how often the nearest class is the true one out.

Radford et al., 2021 (arXiv:2103.00020), §3.1: every class name is put into templates, their
vectors make one class vector, and a picture is of the class whose vector is nearest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.contract import Matrix, ModelSpec, Vector
from diptych.labels import SLOT
from diptych.scoring import Measure, ensemble, score
from diptych_export.data.pairs import Reject
from diptych_export.errors import BadData
from diptych_export.evaluation.labelled import Labels
from diptych_export.evaluation.reading import embedded
from diptych_export.inference import Inference

_SHOWN = 3  # classes of a mistake
_KEPT = 500  # mistakes, the most confident ones


@dataclass(frozen=True, slots=True)
class Mistake:
    """A picture for which another class was nearer."""

    id: str
    label: int
    answers: tuple[tuple[int, float], ...]  # the nearest classes, and their scores in 0..1


@dataclass(slots=True)
class ZeroShot:
    """What came out."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    pictures: npt.NDArray[np.int64]  # by class
    top1: npt.NDArray[np.int64]  # by class: the true class is the nearest
    top5: npt.NDArray[np.int64]  # by class: it is among the nearest five
    confused: Counter[tuple[int, int]] = field(default_factory=Counter)  # true, nearest
    mistakes: list[Mistake] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Shares in 0..1, over pictures."""
        count = int(self.pictures.sum())
        return {
            "top1": float(self.top1.sum() / count),
            "top5": float(self.top5.sum() / count),
            "pictures": count,
            "classes": len(self.classes),
            "templates": list(self.templates),
            "skipped": len(self.rejects),
        }


async def zero_shot(model: Inference, data: Labels, templates: Sequence[str]) -> ZeroShot:
    """Classify every picture of `data`.

    Raises:
        BadData: it cannot be read, or holds no picture.
    """
    count = len(data.classes)
    found = ZeroShot(data.classes, tuple(templates), *(np.zeros((3, count), np.int64)))
    classes = await class_vectors(model, data.classes, templates)
    async for batch in embedded(model, data):
        found.rejects += batch.rejects
        if batch.pictures:
            cosines = batch.matrix @ classes.T
            scores = _scores(model.spec, batch.matrix, classes)
            for picture, row, shown in zip(batch.pictures, cosines, scores, strict=True):
                _count(found, picture.id, picture.label, row, shown)
    if not found.pictures.any():
        raise BadData(f"no picture in {data.source} can be used; {len(found.rejects)} were skipped")
    return found


async def class_vectors(
    model: Inference, classes: Sequence[str], templates: Sequence[str]
) -> Matrix:
    """[C, D]: of each class the ensemble of its unit vectors under all templates."""
    texts = [template.replace(SLOT, name) for name in classes for template in templates]
    vectors = (await model.texts(texts)).reshape(len(classes), len(templates), -1)
    return np.stack([ensemble(own) for own in vectors])


def _scores(spec: ModelSpec, images: Matrix, classes: Matrix) -> npt.NDArray[np.float32]:
    """In 0..1, as the checkpoint was trained to say it."""
    measure = Measure.SOFTMAX if spec.score == "softmax" else Measure.SIGMOID
    return score(images, classes, measure, scale=spec.logit_scale, bias=spec.logit_bias)


def _count(found: ZeroShot, name: str, label: int, cosines: Vector, scores: Vector) -> None:
    """A tie counts against the model: a constant answer must not look right.

    Ranked by cosine: a steep softmax makes zeros of all but the nearest, which is no tie.
    """
    rank = int((cosines >= cosines[label]).sum()) - 1
    found.pictures[label] += 1
    found.top1[label] += rank < 1
    found.top5[label] += rank < 5
    if rank == 0:
        return
    others = np.where(np.arange(len(cosines)) == label, -2.0, cosines)
    found.confused[label, int(others.argmax())] += 1
    best = np.argsort(-cosines, kind="stable")[:_SHOWN]
    answers = tuple((int(index), float(scores[index])) for index in best)
    found.mistakes.append(Mistake(name, label, answers))
    if len(found.mistakes) >= 2 * _KEPT:
        found.mistakes = worst(found.mistakes, _KEPT)


def worst(mistakes: list[Mistake], count: int) -> list[Mistake]:
    """Those answered wrongly with the most confidence."""
    return sorted(mistakes, key=lambda mistake: -mistake.answers[0][1])[:count]
