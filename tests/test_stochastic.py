"""Moments of stochastic gradients, against draws of them and against each other."""

import itertools

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.predict import stochastic

D, K, B = 5, 4, 3


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


def gradients(E: torch.Tensor, sigma: float, count: int) -> torch.Tensor:
    X, Z = draw(count, B, D), sigma * draw(count, B, K)
    return X.mT @ (X @ E - Z) / B


def test_covariance_against_draws() -> None:
    E, sigma, count = draw(D, K), 0.5, 200_000
    sample = gradients(E, sigma, count).flatten(1)
    expected = stochastic.gradient_covariance(E, batch=B, noise_std=sigma).reshape(D * K, D * K)
    found = torch.cov(sample.mT, correction=0)
    # Standard errors of 400 covariances from the draws themselves; six of them.
    centred = sample - E.flatten()
    second = (centred**2).mT @ (centred**2) / count
    error = ((second - expected**2).clamp_min(0) / count).sqrt()
    assert ((found - expected).abs() <= 6 * error + rounding(D * K) * float(expected.max())).all()
    trace = float(expected.diagonal().sum())
    total = stochastic.gradient_variance(float(E.norm()), d=D, k=K, batch=B, noise_std=sigma)
    assert trace == pytest.approx(total, rel=rounding(D * K, operations=4))


@pytest.mark.parametrize("ensemble", ["dense", "rank-one"])
def test_variance_of_scalar_measurements(ensemble: str) -> None:
    E, sigma, m, count = draw(3, 2), 0.4, 2, 100_000
    if ensemble == "dense":
        a = draw(count, m, 3, 2)
    else:
        a = draw(count, m, 3)[..., None] * draw(count, m, 2)[..., None, :]
    y = torch.einsum("nmdk,dk->nm", a, E) - sigma * draw(count, m, seed=1)
    squares = ((torch.einsum("nmdk,nm->ndk", a, y) / m - E) ** 2).sum((-2, -1))
    expected = stochastic.gradient_variance(
        float(E.norm()), d=3, k=2, batch=m, noise_std=sigma, ensemble=ensemble
    )
    assert abs(float(squares.mean()) - expected) < 6 * float(squares.std()) / count**0.5


def test_mean_of_one_step() -> None:
    A, Bf, count, eta = 0.5 * draw(D, 2), 0.5 * draw(2, K), 200_000, 0.1
    E = A @ Bf - draw(D, K, seed=3)
    g = gradients(E, 0.5, count)
    after = (A - eta * g @ Bf.mT) @ (Bf - eta * A.mT @ g) - A @ Bf + E
    expected = stochastic.mean_next_error(
        Factors(A, Bf), E, learning_rate=eta, batch=B, noise_std=0.5
    )
    z = (after.mean(0) - expected).abs() / (after.std(0) / count**0.5)
    assert float(z.max()) < 6


def test_without_replacement_from_few_rows() -> None:
    """Over all subsets: the mean of the whole, and per-sample covariance × (N − b)/(b(N − 1))."""
    N, b = 7, 3
    X, E = draw(N, D), draw(D, K)
    each = torch.einsum("nd,nk->ndk", X, X @ E).flatten(1)
    subsets = torch.tensor(list(itertools.combinations(range(N), b)))
    means = each[subsets].mean(1)
    size = float(each.abs().max())
    once = rounding(len(subsets), operations=2) * size  # means over subsets and over their rows
    torch.testing.assert_close(means.mean(0), each.mean(0), rtol=0, atol=once)
    expected = torch.cov(each.mT, correction=0) * (N - b) / (b * (N - 1))
    found = torch.cov(means.mT, correction=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * once * size)


@pytest.mark.parametrize(("share", "steps"), [(0.25, 400), (0.5, 400), (0.95, 1200)])
def test_where_full_fine_tuning_settles(share: float, steps: int) -> None:
    """d = 30, k = 20, b = 5, σ = .3: .5, 1.5 and 28.5 at shares of the edge."""
    d, k, b, sigma = 30, 20, 5, 0.3
    eta = share * stochastic.largest_stable_rate(d=d, batch=b)
    expected = stochastic.stationary_error(d=d, k=k, batch=b, learning_rate=eta, noise_std=sigma)
    assert expected == pytest.approx({0.25: 0.5, 0.5: 1.5, 0.95: 28.5}[share], rel=0.01)
    rng = np.random.default_rng(0)
    E, found = np.zeros((64, d, k)), []
    for t in range(steps):
        X = rng.standard_normal((64, b, d))
        Z = sigma * rng.standard_normal((64, b, k))
        E = E - eta * X.swapaxes(1, 2) @ (X @ E - Z) / b
        if t >= 3 * steps // 8:
            found.append((E**2).sum((1, 2)))
    runs = np.mean(found, axis=0)
    assert abs(runs.mean() - expected) < 5 * runs.std() / 8


def test_an_unstable_rate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"below 2/\(1 \+ \(d \+ 1\)/b\) = 1 for a stationary"):
        stochastic.stationary_error(d=3, k=2, batch=4, learning_rate=1.0, noise_std=0.1)
    with pytest.raises(ValueError, match="ensemble must be one of"):
        stochastic.gradient_variance(1.0, d=2, k=2, batch=1, ensemble="sparse")
    assert lt.predict.stochastic is stochastic
