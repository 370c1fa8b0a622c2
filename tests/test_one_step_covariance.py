"""The error of one step at Σ ≠ I: means over laws of few points, second differences of an SVD."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt

SAMPLES, SIGMA = 50, 0.7
# Step of second differences: what they miss is its square, times fourth derivatives over the
# second one, below 1e2 at singular values of a half and more.
STEP, MISSED = 1e-3, 1e2


def covariance(d: int, kind: str) -> np.ndarray:
    """Σ with eigenvalues from .6 to 2, diagonal or turned."""
    values = np.linspace(0.6, 2.0, d)
    if kind == "diagonal":
        return np.diag(values)
    Q = np.linalg.qr(np.random.default_rng(3).standard_normal((d, d)))[0]
    S = Q @ np.diag(values) @ Q.T
    return (S + S.T) / 2


def points(law: str, d: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows z with E zzᵀ = I, their probabilities, and what counts as E z⁴."""
    if law == "sphere":  # equal angles on a circle are exact for polynomials of degree 4
        angles = 2 * np.pi * np.arange(8) / 8
        return d**0.5 * np.stack([np.cos(angles), np.sin(angles)], 1), np.full(8, 1 / 8), 1.0
    moment = {"rademacher": 1.0, "student": 5.0}[law]
    a = moment**0.5  # −a, 0 and a: E z² = 1 and E z⁴ = a²
    chance = {-a: 0.5 / moment, 0.0: 1 - 1 / moment, a: 0.5 / moment}
    rows = list(itertools.product([v for v, p in chance.items() if p > 0], repeat=d))
    return np.array(rows), np.array([np.prod([chance[v] for v in row]) for row in rows]), moment


def of_samples(law: str, S: np.ndarray, shift: np.ndarray) -> tuple[float, float | None]:
    """N·E‖(Σ̂ − Σ)Δ‖² by a sum over all rows, or by Isserlis' formula; and E z⁴ to be given."""
    d = len(S)
    if law in ("gaussian", "elliptic"):
        ratio = 1.0 if law == "gaussian" else 5 / 3  # (ν − 2)/(ν − 4) at ν = 7
        fourth = np.einsum("ij,pq->ijpq", S, S)
        fourth = fourth + np.einsum("ip,jq->ijpq", S, S) + np.einsum("iq,jp->ijpq", S, S)
        square = ratio * np.einsum("iipq,pa,qa->", fourth, shift, shift)
        given = None if law == "gaussian" else ratio * (d + 2) - d + 1
        return square - np.sum((S @ shift) ** 2), given
    z, chance, moment = points(law, d)
    values, Q = np.linalg.eigh(S)
    x = z @ (Q * values**0.5).T
    square = chance @ ((x**2).sum(1) * ((x @ shift) ** 2).sum(1))
    return square - np.sum((S @ shift) ** 2), moment


def of_noise(S: np.ndarray, shift: np.ndarray, rank: int) -> float:
    """N/σ² times what noise adds: half the second derivatives along independent directions."""
    d, k = shift.shape
    root = np.linalg.cholesky(S)

    def error(H: np.ndarray) -> float:
        U, s, Vh = np.linalg.svd(S @ shift + H, full_matrices=False)
        return float(np.sum(((U[:, :rank] * s[:rank]) @ Vh[:rank] - shift) ** 2))

    total, here = 0.0, error(np.zeros((d, k)))
    for i, j in itertools.product(range(d), range(k)):
        move = np.zeros((d, k))
        move[:, j] = STEP * root[:, i]
        total += (error(move) + error(-move) - 2 * here) / (2 * STEP**2)
    return total


@pytest.mark.parametrize("kind", ["diagonal", "turned"])
@pytest.mark.parametrize("law", ["gaussian", "rademacher", "student", "sphere", "elliptic"])
def test_the_error_is_that_of_its_parts(law: str, kind: str) -> None:
    d = 2 if law == "sphere" else 4
    rank = d // 2
    S = covariance(d, kind)
    problem = lt.sample_linear(
        d=d, k=3, true_rank=rank, samples=SAMPLES, inputs=law, freedom=7.0, seeds=(2,),
        spectrum=[1.0, 0.8][:rank], covariance=np.diag(S) if kind == "diagonal" else S,
    )  # fmt: skip
    shift = problem.shift.dense()[0].numpy()
    samples, moment = of_samples(law, S, shift)
    expected = np.sum((S @ shift - shift) ** 2) + samples / SAMPLES
    found = lt.predict.one_step_error(problem, fourth_moment=moment)
    # Sums of d² products, in a basis of Σ of condition number below 10.
    assert float(found) == pytest.approx(expected, rel=rounding(d * d, operations=8, condition=10))
    noise = SIGMA**2 * of_noise(S, shift, rank) / SAMPLES
    noisy = lt.predict.one_step_error(problem, fourth_moment=moment, noise_std=SIGMA)
    assert float(noisy - found) == pytest.approx(noise, rel=MISSED * STEP**2)


def test_at_the_identity_it_is_the_isotropic_formula() -> None:
    sizes = {"d": 5, "k": 4, "true_rank": 2, "samples": SAMPLES, "seeds": (0, 1)}
    plain, given = lt.sample_linear(**sizes), lt.sample_linear(covariance=np.ones(5), **sizes)
    for options in ({}, {"noise_std": SIGMA}, {"fourth_moment": 1.8}):
        torch.testing.assert_close(
            lt.predict.one_step_error(given, **options),
            lt.predict.one_step_error(plain, **options),
            rtol=rounding(25, operations=8), atol=0,
        )  # fmt: skip
