"""Figures that docs/derivations_neighbours.md gives beside its claims, by longhand loops.

Where a figure is the mean of few draws, the spread between draws is given and tested with it.
"""

import numpy as np
import pytest
from tolerance import deviates, printed

from loraone_theory.problems.sensing import rip


def frame(rng: np.random.Generator, n: int, r: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, r)))[0]


def exponent(sizes: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    """Slope of ln(values) in ln(sizes), along the last axis."""
    x = np.log(sizes) - np.log(sizes).mean()
    return (np.log(values) @ x) / (x @ x)


@pytest.mark.parametrize(("extreme", "figure"), [(True, 0.054), (False, 0.031)])
def test_how_far_off_the_spectral_start_is(extreme: bool, figure: float) -> None:
    """1: E‖P_T TΔ‖² = τ‖Δ‖²(a + (1 − a)(p − 1)/(dk − 1)), over 0.15σ_r at δ = 0.02/(√r κ)."""
    d, rank, kappa, draws = 12, 3, 10.0, 24
    S, n, p = kappa ** np.linspace(1, 0, rank), d * d, rank * (2 * d - rank)
    allowed, small = 0.02 / (rank**0.5 * kappa), 1e-6
    operators = rip.designed(d, d, small, extreme=extreme, seeds=range(draws))
    rows = operators.matrices.numpy().reshape(draws, n, n)
    squares, trace = [], 0.0
    for seed, A in enumerate(rows):
        rng = np.random.default_rng(seed)
        shift = (frame(rng, d, rank) * S) @ frame(rng, d, rank).T
        moved = (A.T @ (A @ shift.ravel()) / n).reshape(d, d)
        U, values, Vt = np.linalg.svd(moved)
        E = (U[:, :rank] * values[:rank]) @ Vt[:rank] - shift
        squares.append((np.linalg.norm(E) / small) ** 2)
        T = (A.T @ A / n - np.eye(n)) / small
        trace = np.linalg.norm(T) ** 2 / n
    along = 2 / (n + 2)
    law = trace * (S @ S) * (along + (1 - along) * (p - 1) / (n - 1))
    error = np.std(squares, ddof=1) / draws**0.5
    assert np.mean(squares) == pytest.approx(law, abs=deviates() * error)
    start = allowed * law**0.5 / 0.15
    assert start == pytest.approx(figure, abs=printed(3))
    assert 50 * start == pytest.approx(2.7 if extreme else 1.6, abs=printed(1))


ALPHAS = (1e-2, 1e-3, 1e-4)


@pytest.mark.parametrize(
    ("m", "mean", "spread"),
    [(136, 0.83, 0.21), (200, 1.01, 0.15), (400, 1.33, 0.09), (1500, 1.70, 0.06)],
)
def test_exponents_of_gaussian_operators_spread(m: int, mean: float, spread: float) -> None:
    """6: n = r = 16, r* = 2, κ = 1, η = 0.1, X₀ = αN/√n, lowest of 1500 errors, 24 draws."""
    n, draws = 16, 24
    upper = np.triu_indices(n)
    weight = np.where(upper[0] == upper[1], 1.0, 2.0**0.5)  # ⟨M, M′⟩ of symmetric ones
    grams, targets, starts = [], [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        U = frame(rng, n, 2)
        A = rng.standard_normal((m, n, n))
        rows = ((A + A.transpose(0, 2, 1)) / 2)[:, upper[0], upper[1]] * weight
        grams.append(rows.T @ rows / m)
        targets.append(U @ U.T)
        N = rng.standard_normal((n, n)) / n**0.5
        starts.append([alpha * N for alpha in ALPHAS])
    G, M, X = np.array(grams), np.array(targets)[:, None], np.array(starts)
    low, gradient = np.full(X.shape[:2], np.inf), np.zeros_like(X)
    for _ in range(1500):
        E = X @ X.swapaxes(-1, -2) - M
        low = np.minimum(low, np.linalg.norm(E, axis=(-2, -1)))
        of = (E[..., upper[0], upper[1]] * weight) @ G / weight
        gradient[..., upper[0], upper[1]] = of
        gradient[..., upper[1], upper[0]] = of
        X = X - 0.1 * gradient @ X
    found = exponent(ALPHAS, low)
    assert found.mean() == pytest.approx(mean, abs=printed(2))
    assert found.std() == pytest.approx(spread, abs=printed(2))


def lowest(n: int, values: np.ndarray, seed: int) -> np.ndarray:
    """min_t ‖E_t‖ at δ = 0.3, T of these eigenvalues; r = n, r* = 2, κ = 2, η = 0.3, 1200 steps."""
    rng = np.random.default_rng(seed)
    U = frame(rng, n, 2)
    M = (U * [1.0, 0.5]) @ U.T
    Q = frame(rng, n * n, n * n)
    T = (Q * values) @ Q.T
    N = rng.standard_normal((n, n)) / n**0.5
    X = np.array([alpha * N for alpha in (*ALPHAS, 1e-5)])
    low = np.full(len(X), np.inf)
    for _ in range(1200):
        E = X @ X.swapaxes(-1, -2) - M
        low = np.minimum(low, np.linalg.norm(E, axis=(-2, -1)))
        X = X - 0.3 * (E + 0.3 * (E.reshape(len(X), -1) @ T).reshape(E.shape)) @ X
    return low


@pytest.mark.parametrize(
    ("n", "extreme", "draws", "mean"),
    [(10, True, 12, 1.77), (10, False, 12, 1.89), (30, True, 2, 1.85), (30, False, 2, 1.92)],
)
def test_the_exponent_hangs_on_all_eigenvalues(
    n: int, extreme: bool, draws: int, mean: float
) -> None:
    """6: nearer to 2 for evenly spaced ones than for ±1, and nearer at larger n."""
    size = n * n
    values = np.linspace(-1, 1, size)
    if extreme:
        values = np.where(np.arange(size) < size // 2, -1.0, 1.0)
    low = np.array([lowest(n, values, seed) for seed in range(draws)])
    assert exponent((*ALPHAS, 1e-5), low).mean() == pytest.approx(mean, abs=printed(2))


def test_errors_under_noise_spread_between_gaussian_draws() -> None:
    """9: m‖E‖²/σ² after 250 alternating steps, d = k = 16, m = 1000, r* = 2, η = 0.5, 8 draws."""
    d, m, sigma, ranks = 16, 1000, 1e-3, (2, 3, 4, 6, 8)
    found, grams, noises, shifts, starts = [], [], [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shifts.append(frame(rng, d, 2) @ frame(rng, d, 2).T)
        A = rng.standard_normal((m, d * d))
        z = sigma * rng.standard_normal(m)
        grams.append(A.T @ A / m)
        noises.append(A.T @ z / m)
        starts.append([(rng.standard_normal((d, r)), rng.standard_normal((r, d))) for r in ranks])
    G, h, shift = np.array(grams), np.array(noises)[..., None], np.array(shifts)
    for j in range(len(ranks)):
        A = np.array([s[j][0] for s in starts]) / d**0.5
        B = np.array([s[j][1] for s in starts]) / d**0.5
        for _ in range(250):
            E = (A @ B - shift).reshape(8, -1, 1)
            Bt = B.swapaxes(-1, -2)
            A = A - 0.5 * (G @ E - h).reshape(8, d, d) @ Bt @ np.linalg.inv(B @ Bt)
            E = (A @ B - shift).reshape(8, -1, 1)
            At = A.swapaxes(-1, -2)
            B = B - 0.5 * np.linalg.inv(At @ A) @ At @ (G @ E - h).reshape(8, d, d)
        found.append(m * np.linalg.norm(A @ B - shift, axis=(-2, -1)) ** 2 / sigma**2)
    sizes = np.array(found)
    np.testing.assert_allclose(sizes.mean(1), [65, 121, 173, 247, 296], rtol=0, atol=printed(0))
    spread = sizes.std(1, ddof=1)
    np.testing.assert_allclose(spread, [12, 18, 24, 30, 34], rtol=0, atol=printed(0))


WIDTHS = (64, 256, 1024, 4096)


def third_step(rates: tuple[float, float] | None) -> np.ndarray:
    """12: |b(a₃ − a₂)ᵀx|, |(b₃ − b₂)a₂ᵀx| and |f| at the third step, 30 draws: (3, draws, n).

    f = baᵀx, a₀ = 0, b₀ = y = 1; `rates` are the powers of n in η_a and η_b, None is scaled descent
    at n⁻¹. a is a multiple of x throughout.
    """
    terms = np.zeros((3, 30, len(WIDTHS)))
    for j, n in enumerate(WIDTHS):
        for seed in range(30):
            x = np.random.default_rng(seed).standard_normal(n)
            square, a, b = x @ x, 0.0, 1.0
            for _ in range(3):
                miss = b * a * square - 1
                if rates is None:
                    of_a = -0.3 / n * miss / b
                    of_b = -0.3 / n * miss / a if a else 0.0
                else:
                    of_a = -0.3 * n ** rates[0] * miss * b
                    of_b = -0.3 * n ** rates[1] * miss * a * square
                terms[:2, seed, j] = abs(b * of_a * square), abs(of_b * a * square)
                a, b = a + of_a, b + of_b
            terms[2, seed, j] = abs(b * a * square)
    return terms


def test_exponents_of_the_toy_at_its_third_step() -> None:
    def of_medians(rates: tuple[float, float] | None) -> np.ndarray:
        return exponent(WIDTHS, np.median(third_step(rates), 1))

    assert of_medians((-0.5, -0.5))[2] == pytest.approx(2.94, abs=printed(2))
    assert of_medians((-1.0, -1.0))[1] == pytest.approx(-0.994, abs=printed(3))
    np.testing.assert_allclose(of_medians((-1.0, 0.0))[:2], [0.003, 0.005], 0, printed(3))
    np.testing.assert_allclose(of_medians(None)[:2], [-0.021, -0.021], 0, printed(3))
    each = exponent(WIDTHS, third_step(None))[1]
    assert each.mean() == pytest.approx(0.065, abs=printed(3))
    assert each.std() == pytest.approx(0.22, abs=printed(2))

    def residual(q: float) -> float:
        """Of scaled descent at its third step, ‖x‖² = qn, a in units of 1/n."""
        miss = 0.3 * q - 1
        return (0.3 - 0.3 * miss) * (1 - miss) * q - 1

    assert residual(1.27 - printed(2)) < 0 < residual(1.27 + printed(2))


@np.errstate(over="ignore", invalid="ignore")  # some runs at d = 16 diverge
def he3_steps(d: int, rate: float, runs: int, most: int) -> np.ndarray:
    """Steps of online descent at rate/d to ‖AB − Δ‖ <= 0.2, He₃, 6 neurons, residual cut at 5.

    What enters is x in the span of the neurons and u, along the rest a of A, and the square of what
    is left of it, χ² of d − 8 degrees: so x need not be drawn. A₀ and v of Gaussian direction.
    """
    rng = np.random.default_rng(d)

    def direction(n: int, rest: int) -> np.ndarray:
        """The first n entries of unit vectors of n + rest, and the norm of the others."""
        whole = rng.standard_normal((runs, n + 1))
        whole[:, n] = rng.chisquare(rest, runs) ** 0.5 if rest else 0.0
        return whole / np.linalg.norm(whole, axis=1, keepdims=True)

    k = 6
    u, v = direction(k, d - k), direction(k, 0)[:, :k]
    A, B, reached = direction(k + 1, d - k - 1), np.zeros((runs, k)), np.full(runs, np.inf)
    for step in range(most + 1):
        if step % 50 == 0:
            square = (A * A).sum(1) * (B * B).sum(1) - 2 * (A[:, :-1] * u).sum(1) * (B * v).sum(1)
            reached[np.isinf(reached) & (square + 1 <= 0.2**2)] = step
            if np.isfinite(reached).sum() > runs / 2:
                break
        x = rng.standard_normal((runs, k + 2))
        inner = (x * A).sum(1, keepdims=True)
        z = x[:, :k] + inner * B
        taught = x[:, :k] + (x[:, : k + 1] * u).sum(1, keepdims=True) * v
        miss = (z**3 - 3 * z - taught**3 + 3 * taught).sum(1, keepdims=True).clip(-5, 5)
        pull = rate / d * miss * (3 * z * z - 3)
        by = -(pull * B).sum(1, keepdims=True)
        B = B - inner * pull
        A = A + by * x
        A[:, -1] = np.hypot(A[:, -1], by[:, 0] * rng.chisquare(d - k - 2, runs) ** 0.5)
    return reached


def test_the_exponent_of_he3_hangs_on_its_rate() -> None:
    """From medians of 192 runs at d = 16 and 64: the larger rate costs the smaller d most."""

    def median(d: int, rate: float) -> float:
        return float(np.sort(he3_steps(d, rate, 192, 400 * d))[95:97].mean())

    found = [np.log(median(64, rate) / median(16, rate)) / np.log(4) for rate in (0.003, 0.01)]
    np.testing.assert_allclose(found, [1.17, 0.85], rtol=0, atol=printed(2))
    assert np.isinf(median(16, 0.02))
    assert median(64, 0.02) < median(64, 0.01)
