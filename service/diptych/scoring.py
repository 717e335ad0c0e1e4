"""Vectors in, scores out: cosine, logit, softmax, sigmoid, CLIPScore, top-k and ensembles."""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from diptych.contract import Matrix, Vector

Scores = npt.NDArray[np.float32]  # [Q, C] or, pair by pair, [Q]


class Measure(enum.Enum):
    """How a cosine becomes a score."""

    COSINE = enum.auto()  # -1..1
    LOGIT = enum.auto()  # scale * cosine + bias
    SOFTMAX = enum.auto()  # of the logits over a query's candidates, as CLIP was trained
    SIGMOID = enum.auto()  # of each logit alone, as SigLIP was trained
    CLIPSCORE = enum.auto()  # 2.5 * max(cosine, 0): Hessel et al., 2021 (arXiv:2104.08718, §3)


def unit(vectors: Matrix) -> Matrix:
    """Scale each row of [N, D] to length one, in float32.

    No row may be zero; `engines.base.check_answer` has seen to that.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Matrix = vectors / lengths
    return scaled


def shorten(vectors: Matrix, dimensions: int) -> Matrix:
    """Keep the first `dimensions` numbers of each unit vector and make it a unit vector again.

    Meaningful for models trained so that a prefix is a vector too (Matryoshka representation
    learning, arXiv:2205.13147).
    """
    return vectors if dimensions >= vectors.shape[-1] else unit(vectors[..., :dimensions])


def ensemble(vectors: Matrix) -> Vector:
    """One unit vector for one label from [T, D], its unit vectors under T templates.

    The mean of the unit vectors, scaled to unit length again: the rule of the CLIP paper's
    zero-shot classifiers (arXiv:2103.00020, section 3.1.4).
    """
    mean: Vector = unit(vectors.mean(axis=0, keepdims=True))[0]
    return mean


def score(
    queries: Matrix, candidates: Matrix, measure: Measure, *, scale: float, bias: float
) -> Scores:
    """Score every row of [Q, D] against every row of [C, D]: [Q, C] float32."""
    return _measured(queries @ candidates.T, measure, scale, bias)


def score_pairs(
    queries: Matrix, candidates: Matrix, measure: Measure, *, scale: float, bias: float
) -> Scores:
    """Score row i of [Q, D] against row i of [Q, D]: [Q] float32. Not for `SOFTMAX`."""
    if measure is Measure.SOFTMAX:
        raise ValueError("a softmax needs more than one candidate")
    return _measured(np.einsum("nd,nd->n", queries, candidates), measure, scale, bias)


def top(scores: Scores, k: int) -> npt.NDArray[np.intp]:
    """The indexes of the `k` best of [C], the best first; equal scores in their own order."""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    # Everything at or above the k-th best, in order, so that ties are cut in order too.
    bound = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= bound)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def _measured(cosines: Scores, measure: Measure, scale: float, bias: float) -> Scores:
    if measure is Measure.COSINE:
        return np.clip(cosines, -1.0, 1.0)
    if measure is Measure.CLIPSCORE:
        return np.float32(2.5) * np.clip(cosines, 0.0, 1.0)
    logits = np.float32(scale) * cosines + np.float32(bias)
    if measure is Measure.SOFTMAX:
        return _softmax(logits)
    return _sigmoid(logits) if measure is Measure.SIGMOID else logits


def _softmax(logits: Scores) -> Scores:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Scores = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _sigmoid(logits: Scores) -> Scores:
    # tanh does not overflow where exp(-x) would.
    values: Scores = np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * logits))
    return values
