"""Exact laws: dense sensing with T matrices, and online descent whatever d; in law and longhand."""

import numpy as np
import pytest
import tolerance
import torch
from scipy.stats import ks_2samp
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.online import bartlett

# All two-sample tests of a test function together raise a false alarm once in 10^6.
FALSE_ALARM = 1e-6


def same_law(first: list, second: list) -> None:
    for one, two in zip(first, second, strict=True):
        p = ks_2samp(np.asarray(one), np.asarray(two)).pvalue
        assert p > FALSE_ALARM / len(first)


# --- dense sensing, revealed along the residuals ----------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("method", ["lora-one", "lora-one-preconditioned"])
def test_lazy_dense_sensing_has_the_law_of_the_dense_one(sigma: float, method: str) -> None:
    """Risk, loss and singular values of AB after 15 steps from Spectral-init."""
    sizes = {"d": 10, "k": 8, "true_rank": 2, "measurements": 120, "noise_std": sigma}
    found = []
    for lazy in (False, True):
        seeds = range(10**6 * lazy, 10**6 * lazy + 300)
        if lazy:
            problem = lt.sample_dense_lazy(**sizes, steps=15, seeds=seeds)
        else:
            problem = lt.sample_sensing(ensemble="dense", **sizes, seeds=seeds)
        run = lt.simulate(
            problem, method, rank=3, learning_rate=0.15, steps=15, every=15, seeds=seeds,
            damping=0.05 if "preconditioned" in method else 0.0,
        )  # fmt: skip
        S = torch.linalg.svdvals(run.final.dense())
        found.append([run["risk"][-1], run["loss"][-1], S[:, 1], S[:, 2], run["loss"][0]])
    same_law(*found)


def test_lazy_dense_sensing_is_one_function() -> None:
    """Asked again, the same answers; gradients are those of the loss; the explicit 𝒜 agrees."""
    problem = lt.sample_dense_lazy(
        d=5, k=4, true_rank=1, measurements=90, steps=40, noise_std=0.2, seeds=(3, 4)
    )
    rng = np.random.default_rng(0)
    F = Factors(*(torch.from_numpy(rng.standard_normal((2, *s))) for s in ((5, 2), (2, 4))))
    loss, gradients = problem.loss(F), problem.gradients(F)
    for p in range(5):
        for q in range(4):  # 20 directions span R^{dk}: after them nothing is left to reveal
            unit = torch.zeros(2, 5, 4).double()
            unit[:, p, q] = 1.0
            problem.loss(Factors(unit + problem.shift.dense(), torch.eye(4).double()))
    revealed = problem.rows.matrices.shape[-2]
    assert revealed == 1 + 20
    # Four products over the 20 entries; the last direction lies within 1/100 of those before it.
    once = rounding(20, operations=4, condition=100)
    torch.testing.assert_close(problem.loss(F), loss, rtol=once, atol=0)
    tolerance.close(problem.gradients(F).A, gradients.A, once)
    # 𝒜 in the basis of R^m that was chosen: rows G_j, and labels 𝒜(Δ) + z with z along the first.
    a = problem.rows.matrices.unflatten(-1, (5, 4))
    y = torch.einsum("njdk,ndk->nj", a, problem.shift.dense())
    y[:, 0] += problem.rows.noise
    A, B = (M.clone().requires_grad_() for M in F)
    miss = torch.einsum("njdk,ndk->nj", a, A @ B) - y
    explicit = (miss**2).sum(-1) / 180
    torch.testing.assert_close(loss, explicit.detach(), rtol=once, atol=0)
    expected = torch.autograd.grad(explicit.sum(), (A, B))
    for one, two in zip(gradients, expected, strict=True):
        tolerance.close(one, two, once)
    G = torch.einsum("njdk,nj->ndk", a, y) / 90
    tolerance.close(problem.one_step_gradient(), G, once)
    assert problem.rows.matrices.shape[-2] == revealed


def test_a_lazy_run_repeats() -> None:
    runs = [
        lt.simulate(
            lt.sample_dense_lazy(d=6, k=5, true_rank=1, measurements=99, steps=10, seeds=(1, 2)),
            "lora-one",
            rank=2,
            learning_rate=0.2,
            steps=10,
            seeds=(1, 2),
        )
        for _ in range(2)
    ]
    assert torch.equal(runs[0]["loss"], runs[1]["loss"])


def test_memory_of_a_lazy_run() -> None:
    """d = k = 200, m = 7920, 40 steps: 2·42 matrices of 320 kB, where 𝒜 takes 2.5 GB."""
    problem = lt.sample_dense_lazy(
        d=200, k=200, true_rank=4, measurements=7920, steps=40, seeds=(0,)
    )
    run = lt.simulate(
        problem, "lora-one-preconditioned", rank=4, learning_rate=0.5, steps=40,
    )  # fmt: skip
    held = problem.rows.matrices.numel() + problem.rows.directions.numel()
    assert 8 * held <= 30e6
    error = (2 * run["risk"]).sqrt()
    # ‖E₀‖ = ‖Δ‖√((dof + 1)/m) = .89 to first order, dof = 4·396; then linear convergence, by what
    # 𝒜*𝒜/m has at least on dof = m/5 directions (Marchenko and Pastur's edge).
    assert 0.8 < float(error[0]) < 1.1
    assert float(error[-1] / error[0]) < (1 - 0.5 * (1 - (4 * 396 / 7920) ** 0.5) ** 2) ** 40


def test_lazy_horizons() -> None:
    sizes = {"d": 4, "k": 4, "true_rank": 1}
    with pytest.raises(ValueError, match=r"steps \+ 2 < measurements"):
        lt.sample_dense_lazy(**sizes, measurements=12, steps=10)
    problem = lt.sample_dense_lazy(**sizes, measurements=60, steps=3)
    with pytest.raises(ValueError, match="draw it with a larger steps"):
        lt.simulate(problem, "lora-one", rank=1, learning_rate=0.1, steps=30)


# --- online descent ----------------------------------------------------------------------------


def direct(d, k, r, true, b, rate, steps, alpha, sigma, runs):
    """Every row in full, all runs side by side."""
    rng = np.random.default_rng(11)
    U, V = np.eye(d, true), np.eye(k, true)
    delta = U @ V.T
    A, B = alpha * rng.standard_normal((runs, d, r)), np.zeros((runs, r, k))
    for _ in range(steps):
        X = rng.standard_normal((runs, b, d))
        W = X @ (A @ B - delta) - sigma * rng.standard_normal((runs, b, k))
        J = X.swapaxes(1, 2) @ W / b
        A, B = A - rate * J @ B.swapaxes(1, 2), B - rate * A.swapaxes(1, 2) @ J
    E = A @ B - delta
    norm = np.linalg.norm
    return [0.5 * norm(E, axis=(1, 2)) ** 2, norm(A, axis=(1, 2)), norm(A[:, :true], axis=(1, 2))]


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("b", [4, 25])
def test_online_descent_has_the_law_of_the_direct_one(sigma: float, b: int) -> None:
    """d = 20, k = 15, r = 3, b below and above the unseen widths, 40 steps."""
    rate = 0.05 if b == 4 else 0.15
    run = lt.simulate_online(
        d=20, k=15, rank=3, true_rank=2, batch=b, learning_rate=rate, steps=40, init_std=0.3,
        noise_std=sigma, seeds=range(300), every=40,
    )  # fmt: skip
    expected = direct(20, 15, 3, 2, b, rate, 40, 0.3, sigma, 300)
    same_law([run.risk[-1], run.size[-1], run.aligned[-1]], expected)


@pytest.mark.parametrize(("p", "b"), [(50, 4), (4, 4), (2, 4), (0, 3)])
def test_bartlett_factors_are_wishart(p: int, b: int) -> None:
    """E RᵀR = pI, and tr RᵀR ~ χ²_{pb}."""
    rng = np.random.default_rng(0)
    draws = np.stack([bartlett(rng, p, b) for _ in range(2000)])
    gram = (draws.swapaxes(1, 2) @ draws).mean(0)
    # Entries of a Wishart have variance at most 2p.
    assert np.abs(gram - p * np.eye(b)).max() <= 6 * (2 * p / 2000) ** 0.5
    trace = (draws**2).sum((1, 2))
    assert abs(trace.var() - 2 * p * b) <= 6 * (2 * p * b) * (4 / 2000) ** 0.5


def test_online_widths_without_a_matrix() -> None:
    run = lt.simulate_online(
        d=10**9, k=10**9, rank=3, true_rank=2, batch=8, learning_rate=1e-9, steps=3, init_std=1e-9
    )
    assert run.risk.shape == (4, 1)
    assert run.risk[0, 0] == pytest.approx(1.0, rel=rounding(2))  # ½‖Δ‖², of two columns
    with pytest.raises(ValueError, match=r"rank \+ true_rank must be at most d"):
        lt.simulate_online(d=4, k=4, rank=3, true_rank=2, batch=8, learning_rate=0.1, steps=3)


@pytest.mark.slow
def test_online_descent_learns_in_units_of_d_over_b() -> None:
    """λ = 1, ½: risk .625 to .025 in 60 d/b steps, 6000 of them at d = k = 10⁵, b = 1000."""
    found = []
    for d, b in ((10**5, 1000), (10**7, 100_000)):
        run = lt.simulate_online(
            d=d, k=d, rank=4, true_rank=2, batch=b, learning_rate=0.5 * b / d, steps=60 * d // b,
            spectrum=(1.0, 0.5), init_std=3e-7, every=d // b, seeds=(0, 1),
        )  # fmt: skip
        found.append(run.risk)
    assert (found[0][0] == 0.625).all()  # B₀ = 0
    # The widths differ by α√d, which is small at both; runs of one seed share their draws.
    np.testing.assert_allclose(found[0], found[1], rtol=0.1)
    # A figure of one run, whose α is not told and whose time is random in the limit too.
    assert 0.025 / 3 < found[0][-1].mean() < 3 * 0.025


# --- label noise, revealed along the directions that a run visits ------------------------------

WIDE = {"d": 24, "k": 30, "true_rank": 2, "samples": 60, "noise_std": 0.3}


def measures(run, problem) -> list:
    """Risk, loss, σ₁ and σ₂ of AB, and ‖B off V‖ at the end."""
    S = torch.linalg.svdvals(run.final.dense())
    V = problem.shift.B.mT
    off = run.final.B - run.final.B @ V @ V.mT
    ends = [run["risk"][-1], run["loss"][-1], S[:, 0], S[:, 1]]
    return [*ends, torch.linalg.matrix_norm(off), run["loss"][0]]


@pytest.mark.parametrize("method", ["lora", "lora-one"])
def test_lazy_noise_has_the_law_of_all_of_it(method: str) -> None:
    """After 6 steps at r = 2, from LoRA-init and from Spectral-init."""
    found = []
    for lazy in (False, True):
        seeds = range(10**6 * lazy, 10**6 * lazy + 250)
        more = {"steps": 6, "rank": 2} if lazy else {}
        sample = lt.sample_linear_lazy if lazy else lt.sample_linear_matrix_free
        problem = sample(**WIDE, **more, seeds=seeds)
        options = {"init_std": 0.3} if method == "lora" else {}
        run = lt.simulate(
            problem, method, rank=2, learning_rate=0.5, steps=6, seeds=seeds, every=6,
            record=("loss", "risk"), **options,
        )  # fmt: skip
        found.append(measures(run, problem))
    same_law(*found)


@pytest.mark.parametrize("N", [60, 17])
def test_lazy_noise_is_one_matrix(N: int) -> None:
    """Asked for in full it is one Gaussian matrix, whose loss and gradients those before were."""
    d, k, sigma = 20, 23, 0.4
    problem = lt.sample_linear_lazy(
        d=d, k=k, true_rank=2, samples=N, noise_std=sigma, steps=3, rank=2, seeds=(3, 4)
    )
    rng = np.random.default_rng(0)
    F = Factors(*(torch.from_numpy(rng.standard_normal((2, *s))) for s in ((d, 2), (2, k))))
    loss, gradients = problem.loss(F), problem.gradients(F)
    assert problem.noise.left.directions.shape[-1] == 4  # CA and CΔ
    assert problem.noise.right.directions.shape[-1] == 4
    G = problem.one_step_gradient().dense()
    Z = problem.noise.times(torch.eye(k).double().expand(2, k, k))
    assert problem.noise.right.directions.shape[-1] == k
    h = min(N, d)
    assert not Z[:, h:].any()
    # All of its norm is now in Z, of variance σ²/N: hk of them to six standard errors.
    # Norms over hk entries, after projections on up to k directions of either side.
    once = rounding(h * k, operations=4, condition=10)
    torch.testing.assert_close(Z.square().sum((-2, -1)), problem.noise.total, rtol=once, atol=0)
    assert (problem.noise.rest.abs() <= once * problem.noise.total).all()
    mean = float(Z[:, :h].square().mean()) * N / sigma**2
    assert abs(mean - 1) <= 6 * (2 / (2 * h * k)) ** 0.5
    C = problem.covariance.half(torch.eye(d).double().expand(2, d, d))
    A, B = (M.clone().requires_grad_() for M in F)
    miss = C @ (A @ B - problem.shift.dense()) - Z
    explicit = 0.5 * miss.square().sum((-2, -1)) + problem.constant
    torch.testing.assert_close(loss, explicit.detach(), rtol=once, atol=0)
    expected = torch.autograd.grad(explicit.sum(), (A, B))
    for one, two in zip(gradients, expected, strict=True):
        tolerance.close(one, two, once)
    tolerance.close(G, C.mT @ (C @ problem.shift.dense() + Z), once)


def test_completed_noise_is_gaussian() -> None:
    """After a run of 6 steps the completed Z̃ has the law of a Gaussian matrix."""
    found = []
    for lazy in (False, True):
        seeds = range(10**6 * lazy, 10**6 * lazy + 250)
        if lazy:
            problem = lt.sample_linear_lazy(**WIDE, steps=6, rank=2, seeds=seeds)
            lt.simulate(
                problem, "lora", rank=2, learning_rate=0.5, steps=6, seeds=seeds, init_std=0.3
            )
            problem.noise.most += 30
            Z = problem.noise.times(torch.eye(30).double().expand(250, 30, 30))
        else:
            Z = lt.sample_linear_matrix_free(**WIDE, seeds=seeds).noise
        S = torch.linalg.svdvals(Z)
        entries = [Z[:, 0, 0], Z[:, 23, 29]]
        found.append([Z.square().sum((-2, -1)), S[:, 0], S[:, -1], *entries])
    same_law(*found)


def test_lazy_noise_where_all_of_it_would_not_fit() -> None:
    """d = k = 10⁵: the noise takes 80 GB, two steps of rank 1 a few megabytes."""
    sizes = {"d": 10**5, "k": 10**5, "true_rank": 1, "samples": 2 * 10**5, "noise_std": 0.1}
    problem = lt.sample_linear_lazy(**sizes, steps=2, rank=1)
    run = lt.simulate(
        problem, "lora", rank=1, learning_rate=0.5, steps=2, init_std=0.01, record=("loss", "risk")
    )
    sides = (problem.noise.left, problem.noise.right)
    held = sum(s.directions.numel() + s.answers.numel() for s in sides)
    assert 8 * held <= 30e6
    # L₀ = ½⟨Δ, Σ̂Δ⟩ + σ²·(Nk dof)/2N: ½ and 500, to a relative √(2/Nk) = 1e-5.
    assert float(run["loss"][0, 0]) == pytest.approx(0.5 * 0.01 * 10**5 + 0.5, abs=0.2)
    with pytest.raises(ValueError, match="draw it with a larger steps or rank"):
        lt.simulate(problem, "lora", rank=1, learning_rate=0.1, steps=9, init_std=0.01)
    with pytest.raises(ValueError, match=r"pays for runs of fewer than k/2r steps"):
        lt.sample_linear_lazy(**(sizes | {"k": 20}), steps=5, rank=2)
    with pytest.raises(ValueError, match="noise_std must be finite and > 0"):
        lt.sample_linear_lazy(**(sizes | {"noise_std": 0.0}), steps=2, rank=1)
