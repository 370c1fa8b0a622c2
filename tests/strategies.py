"""Hypothesis strategies for small linear problems with bounded conditioning."""

import numpy as np
from hypothesis import strategies as st

import loraone_theory as lt


@st.composite
def problems(draw: st.DrawFn, *, batch: int = 1, population: bool = False) -> lt.LinearProblem:
    """d, k in 3..14, r* >= 1, κ <= 10, N between 4d and 20d."""
    d, k = draw(st.integers(3, 14)), draw(st.integers(3, 14))
    true_rank = draw(st.integers(1, min(d, k, 4)))
    kappa = draw(st.floats(1.0, 10.0))
    first = draw(st.integers(0, 10**6))
    sampled = lt.sample_linear(
        d=d,
        k=k,
        true_rank=true_rank,
        samples=draw(st.integers(4, 20)) * d,
        condition_number=kappa,
        seeds=tuple(range(first, first + batch)),
    )
    if population:
        return lt.LinearProblem.population(shift=sampled.shift, pretrained=sampled.pretrained)
    return sampled


def orthogonal(n: int, seed: int) -> np.ndarray:
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return Q
