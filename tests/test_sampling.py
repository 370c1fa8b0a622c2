"""Sampling: spectra, frames, and the exact law of the matrix-free instances.

False alarms: every two-sample test rejects below p = 1e-7, so that the ten of them together stay
below 1e-6. Seeds are fixed, so a pass is a pass for ever; the level says how surprising a failure
would be after a change of the draws.
"""

import numpy as np
import pytest
import scipy.stats
import torch
from tolerance import near, rounding

import loraone_theory as lt
from loraone_theory.problems.linear.covariance import Dense

LEVEL = 1e-7
SIZES = {"d": 24, "k": 9, "true_rank": 3, "samples": 60, "condition_number": 3.0}
DRAWS = 2000


def test_geometric_and_given_spectra():
    problem = lt.sample_linear(**SIZES, seeds=(0, 1))
    values = torch.linalg.svdvals(problem.shift.dense())[..., :3]
    expected = torch.tensor(np.geomspace(1, 1 / 3, 3)).expand(2, 3)
    # A product, an SVD and two frames, each off by d units of σ₁ at most.
    torch.testing.assert_close(values, expected, rtol=0, atol=rounding(24, operations=4))
    given = lt.sample_linear(d=5, k=5, true_rank=2, samples=9, spectrum=[3.0, 2.0])
    found = torch.linalg.svdvals(given.shift.dense())[0, :2]
    expected = torch.tensor([3.0, 2.0]).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=3.0 * rounding(5, operations=4))


def test_frames_are_haar():
    """First entries of a Haar frame: beta law of their squares; signs balanced."""
    problem = lt.sample_linear(d=6, k=5, true_rank=2, samples=7, seeds=range(3000))
    column = (
        problem.shift.A[:, :, 0]
        / torch.linalg.vector_norm(problem.shift.A[:, :, 0], dim=-1)[:, None]
    )
    first = column[:, 0].numpy()
    squares = scipy.stats.kstest(first**2, scipy.stats.beta(0.5, 2.5).cdf)
    assert squares.pvalue > LEVEL
    assert scipy.stats.binomtest(int((first > 0).sum()), len(first)).pvalue > LEVEL


def statistics_of(problem):
    ends = problem.covariance_spectrum()
    run = lt.simulate(
        problem,
        "lora",
        rank=5,
        learning_rate=0.1,
        steps=100,
        seeds=range(DRAWS),
        init_std=0.1,
        record=("risk", "left_alignment"),
        every=100,
    )
    return {
        "smallest eigenvalue": ends[:, 0],
        "largest eigenvalue": ends[:, 1],
        "deviation": problem.covariance_deviation(),
        "plateau": lt.predict.plateau(problem),
        "risk after 100 steps": run["risk"][-1],
        "alignment after 100 steps": run["left_alignment"][-1],
    }


@pytest.fixture(scope="module")
def two_samples():
    direct = lt.sample_linear(**SIZES, seeds=range(DRAWS))
    free = lt.sample_linear_matrix_free(**SIZES, seeds=range(DRAWS, 2 * DRAWS))
    return statistics_of(direct), statistics_of(free)


@pytest.mark.parametrize(
    "name",
    [
        "smallest eigenvalue",
        "largest eigenvalue",
        "deviation",
        "plateau",
        "risk after 100 steps",
        "alignment after 100 steps",
    ],
)
def test_exact_law(two_samples, name):
    direct, free = (sample[name].numpy() for sample in two_samples)
    assert scipy.stats.ks_2samp(direct, free).pvalue > LEVEL


def test_the_law_test_has_power():
    """Instances with 20 % more samples are told apart at the same level."""
    direct = lt.sample_linear(**SIZES, seeds=range(DRAWS)).covariance_deviation()
    other = lt.sample_linear_matrix_free(**(SIZES | {"samples": 72}), seeds=range(DRAWS))
    result = scipy.stats.ks_2samp(direct.numpy(), other.covariance_deviation().numpy())
    assert result.pvalue < LEVEL


def test_tridiagonal_operator_against_its_dense_matrix():
    problem = lt.sample_linear_matrix_free(**SIZES, seeds=(0, 1))
    covariance, eye = problem.covariance, torch.eye(24, dtype=torch.float64)
    matrix = covariance.apply(eye)
    top = float(torch.linalg.matrix_norm(matrix, 2).max())
    # Products of 24 terms, twice in a row; eigenvalues are known to as much of the largest.
    by_entry = near(24, operations=2, scale=top)
    torch.testing.assert_close(matrix, matrix.mT, **by_entry)
    C = covariance.half(eye)
    torch.testing.assert_close(C.mT @ C, matrix, **by_entry)
    torch.testing.assert_close(covariance.half_transposed(eye), C.mT, **by_entry)
    dense = Dense(matrix)
    for which in ("extremes", "all"):
        torch.testing.assert_close(covariance.spectrum(which), dense.spectrum(which), **by_entry)
    g = torch.Generator().manual_seed(0)
    M = torch.randn(2, 24, 3, generator=g, dtype=torch.float64)
    tall = float(M.norm(dim=-2).max())  # of the columns of M
    once, twice = (near(24, operations=3, scale=top * size) for size in (tall, tall**2))
    torch.testing.assert_close(covariance.apply(M), matrix @ M, **once)
    half = dense.half(M)
    torch.testing.assert_close(half.mT @ half, M.mT @ matrix @ M, **twice)
    torch.testing.assert_close(dense.half_transposed(half), matrix @ M, **once)


def test_matrix_free_refuses_what_needs_the_original_coordinates():
    problem = lt.sample_linear_matrix_free(**SIZES)
    assert problem.pretrained is None
    stepwise = lt.methods.lora()
    entrywise = stepwise.with_rule(
        lambda rate, damping: stepwise.rule(rate, damping)._replace(equivariant=False),
        name="entrywise",
    )
    with pytest.raises(
        ValueError, match=r"'lora-entrywise' is not rotation-equivariant.*sample_linear"
    ):
        lt.simulate(problem, entrywise, rank=2, learning_rate=0.1, steps=1)


def test_a_million_wide_instance_never_forms_a_square():
    problem = lt.sample_linear_matrix_free(d=200_000, k=200_000, true_rank=2, samples=400_000)
    # The largest eigenvalue scatters about the edge by the Tracy-Widom scale (Johnstone 2001), and
    # leaves it by 8.4 of them or more with probability LEVEL: e^{−(2/3)·8.4^{3/2}} = 9e-8.
    rows, d = np.sqrt(400_000 - 1), np.sqrt(200_000)
    edge = (rows + d) ** 2 / 400_000
    scale = (rows + d) * (1 / rows + 1 / d) ** (1 / 3) / 400_000
    assert float(problem.covariance_spectrum()[0, 1]) == pytest.approx(edge, abs=8.4 * scale)
    run = lt.simulate(problem, "lora-ga", rank=2, learning_rate=0.05, steps=2)
    assert bool(torch.isfinite(run["risk"]).all())
    with pytest.raises(ValueError, match="too large to hold; simulate with reduce='auto'"):
        lt.simulate(problem, "lora", rank=2, learning_rate=0.05, steps=1, reduce="never")
