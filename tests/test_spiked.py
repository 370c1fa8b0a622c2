"""Spiked covariances: the exact law of the banded factor, and the operator against dense ones."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from tolerance import near, rounding

import loraone_theory as lt
from loraone_theory.core.randomness import bartlett, generator
from loraone_theory.problems.linear.banded import Banded, _extremes
from loraone_theory.problems.linear.spiked import band_factor, sample_spiked

# All two-sample tests of a test function together raise a false alarm once in 10^6.
FALSE_ALARM = 1e-6


def same_law(first: list, second: list) -> None:
    for one, two in zip(first, second, strict=True):
        p = ks_2samp(np.asarray(one), np.asarray(two)).pvalue
        assert p > FALSE_ALARM / len(first)


def dense(factor: np.ndarray) -> np.ndarray:
    """C in full, entry by entry."""
    width, d = factor.shape
    C = np.zeros((d, d))
    for o in range(width):
        for i in range(d - o):
            C[i, i + o] = factor[o, i]
    return C


@pytest.mark.parametrize(("d", "q"), [(9, 1), (9, 3), (7, 4), (4, 4), (5, 5)])
def test_products_are_those_of_the_matrix(d: int, q: int) -> None:
    rng = np.random.default_rng(d)
    draws = [band_factor(rng, 30, d, min(q, d)) for _ in range(2)]
    C = torch.from_numpy(np.stack([dense(each) for each in draws]))
    banded = Banded.from_factor(torch.from_numpy(np.stack(draws)))
    matrix = C.mT @ C
    M = torch.from_numpy(rng.standard_normal((2, d, 3)))
    values = torch.linalg.eigvalsh(matrix)
    top = float(values.max())
    # Sums of at most d products, twice in a row.
    close = near(d, operations=2, scale=max(1.0, top) * float(M.norm(dim=-2).max()))
    torch.testing.assert_close(banded.apply(M), matrix @ M, **close)
    torch.testing.assert_close(banded.apply(M, out=torch.empty_like(M)), matrix @ M, **close)
    torch.testing.assert_close(banded.half(M), C @ M, **close)
    torch.testing.assert_close(banded.half_transposed(M), C.mT @ M, **close)
    # Eigenvalues are known to rounding of the largest, on either side.
    known = near(d, operations=4, scale=top)
    torch.testing.assert_close(banded.spectrum("all"), values, **known)
    torch.testing.assert_close(banded.spectrum("extremes"), values[:, [0, -1]], **known)
    part, block = banded.rows(1, d - 1), matrix[:, 1 : d - 1, 1 : d - 1]
    torch.testing.assert_close(part.apply(M[:, 1 : d - 1]), block @ M[:, 1 : d - 1], **close)


def test_extremes_of_a_wide_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    factor = torch.from_numpy(band_factor(rng, 900, 300, 3))
    bands = Banded.from_factor(factor).diagonals.numpy()
    expected = _extremes(bands)
    monkeypatch.setattr("loraone_theory.problems.linear.banded.LAPACK_WIDTH", 10)
    # ARPACK stops at machine precision of the eigenvalue, the inverse at that of the condition.
    allowed = rounding(300, operations=4, condition=expected[1] / expected[0])
    assert _extremes(bands) == pytest.approx(expected, rel=allowed)
    bands[:, 200:] = 0
    assert _extremes(bands)[0] == 0


SIZES = {"d": 16, "k": 12, "true_rank": 2}
SPIKES = (3.0, 0.3)


@pytest.mark.parametrize(("N", "sigma"), [(40, 0.0), (40, 0.4), (11, 0.0)])
@pytest.mark.parametrize("method", ["lora", "lora-one"])
def test_the_law_is_that_of_rows_of_this_covariance(method: str, N: int, sigma: float) -> None:
    """Risk, loss, singular values and the size along the spikes, after 12 steps."""
    found = []
    for banded in (False, True):
        seeds = range(10**6 * banded, 10**6 * banded + 250)
        if banded:
            problem = lt.sample_linear_matrix_free(
                **SIZES, samples=N, spikes=SPIKES, noise_std=sigma, seeds=seeds
            )
        else:
            values = torch.cat([torch.tensor(SPIKES), torch.ones(14)]).double()
            problem = lt.sample_linear(
                **SIZES, samples=N, covariance=values, noise_std=sigma, seeds=seeds
            )
        options = {"init_std": 0.3} if method == "lora" else {}
        run = lt.simulate(
            problem, method, rank=3, learning_rate=0.02, steps=12, seeds=seeds, every=12, **options
        )
        AB = run.final.dense()
        S = torch.linalg.svdvals(AB)
        ends = problem.covariance_spectrum()
        norm = torch.linalg.matrix_norm
        found.append(
            [run["risk"][-1], run["loss"][-1], run["loss"][0], S[:, 0], S[:, 1], ends[:, 1],
             norm(AB[:, :1]), norm(AB[:, 1:2]), norm(problem.shift.A[:, :2])]
        )  # fmt: skip
    same_law(*found)


def test_spikes_that_cannot_be() -> None:
    for spikes, message in [
        ((1.0, -2.0), "spikes must be finite and > 0"),
        ((), "spikes must hold"),
        ((2.0,) * 16, "between 1 and d - 1 eigenvalues; got 16 with d=16"),
    ]:
        with pytest.raises(ValueError, match=message):
            lt.sample_linear_matrix_free(**SIZES, samples=40, spikes=spikes)
    problem = lt.sample_linear_matrix_free(**SIZES, samples=40, spikes=SPIKES)
    with pytest.raises(ValueError, match="known up to a rotation"):
        lt.simulate(problem, "lora-adamw", rank=2, learning_rate=0.1, steps=2)


def test_a_wide_one_runs() -> None:
    """d = k = 200,000 with two spikes: memory and time O(d q)."""
    problem = lt.sample_linear_matrix_free(
        d=200_000, k=200_000, true_rank=2, samples=800_000, spikes=(5.0, 3.0)
    )
    run = lt.simulate(problem, "lora-one", rank=2, learning_rate=0.2, steps=3)
    assert (run["risk"][1:] < run["risk"][:-1]).all()


def test_the_frame_is_the_gaussian_matrix_made_orthonormal_from_the_left() -> None:
    """UᵀM is triangular with a positive diagonal, which makes U Haar; M's law is Bartlett's."""
    d, r, seeds = 9, 3, (0, 1, 2, 3)
    like = torch.empty(0, dtype=torch.float64)
    _, U, _ = sample_spiked(np.array(SPIKES), d, r, 40, seeds, like)
    for seed, frame in zip(seeds, U, strict=True):
        rng = generator(seed, "left frame")
        M = np.vstack([rng.standard_normal((2, r)), bartlett(rng, d - 2, r)])
        height = len(M)
        R = frame[:height].numpy().T @ M
        allowed = rounding(d, operations=8) * np.linalg.norm(M)
        assert np.abs(np.tril(R, -1)).max() < allowed
        assert (np.diagonal(R) > allowed).all()
        # Nothing is left of M off the frame, and nothing of the frame below M.
        assert np.abs(M - frame[:height].numpy() @ R).max() < allowed
        assert not frame[height:].any()
