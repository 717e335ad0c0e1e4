from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diptych.contract import Matrix
from diptych.scoring import Measure, Scores, ensemble, score, score_pairs, shorten, top, unit

RANDOM = np.random.default_rng(0)


def units(rows: int, dimensions: int = 16) -> Matrix:
    return unit(RANDOM.standard_normal((rows, dimensions)).astype(np.float32))


def in_float64(queries: Matrix, candidates: Matrix, scale: float, bias: float) -> dict[str, Matrix]:
    """Every measure from its definition, in double precision."""
    cosines = queries.astype(np.float64) @ candidates.T.astype(np.float64)
    logits = scale * cosines + bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {
        "COSINE": cosines,
        "CLIPSCORE": 2.5 * np.maximum(cosines, 0),
        "LOGIT": logits,
        "SOFTMAX": shares,
        "SIGMOID": 1 / (1 + np.exp(-logits)),
    }


@pytest.mark.parametrize("measure", list(Measure))
@pytest.mark.parametrize(("scale", "bias"), [(100.0, 0.0), (112.3, -16.5), (1.0, 0.0)])
def test_each_measure_is_its_definition(measure: Measure, scale: float, bias: float) -> None:
    queries, candidates = units(5), units(9)
    expected = in_float64(queries, candidates, scale, bias)[measure.name]
    found = score(queries, candidates, measure, scale=scale, bias=bias)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_softmax_and_sigmoid_survive_any_scale() -> None:
    vectors = units(3)
    for measure in (Measure.SOFTMAX, Measure.SIGMOID):
        scores = score(vectors, -vectors, measure, scale=1e6, bias=-1e6)
        assert np.isfinite(scores).all()
        assert ((scores >= 0) & (scores <= 1)).all()


def test_a_cosine_never_leaves_its_range() -> None:
    vectors = units(50, 768)
    assert np.abs(score(vectors, vectors, Measure.COSINE, scale=1, bias=0)).max() <= 1.0


def test_pairs_are_the_diagonal() -> None:
    queries, candidates = units(6), units(6)
    for measure in set(Measure) - {Measure.SOFTMAX}:
        whole = score(queries, candidates, measure, scale=50, bias=-3)
        pairs = score_pairs(queries, candidates, measure, scale=50, bias=-3)
        np.testing.assert_allclose(pairs, np.diagonal(whole), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="more than one"):
        score_pairs(queries, candidates, Measure.SOFTMAX, scale=1, bias=0)


def test_an_ensemble_is_the_unit_mean_of_unit_vectors() -> None:
    vectors = units(4)
    mean = vectors.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(ensemble(vectors), mean / np.linalg.norm(mean), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(ensemble(vectors)), 1.0, rtol=1e-6)


def test_shortened_vectors_are_unit_vectors_again() -> None:
    vectors = units(4)
    short = shorten(vectors, 8)
    assert short.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1.0, rtol=1e-6)
    assert shorten(vectors, 16) is vectors


@given(
    arrays(np.float32, st.integers(1, 60), elements=st.integers(-5, 5).map(float)),
    st.integers(1, 70),
)
def test_top_is_a_stable_sort_cut_short(scores: Scores, k: int) -> None:
    assert top(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()
