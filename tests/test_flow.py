"""Gradient flow against closed forms: the linear population, balanced starts, LoRA-init."""

import itertools

import numpy as np
import pytest
import torch
from tolerance import eps, rounding

import loraone_theory as lt

LAMBDA = np.array([1.0, 0.7, 0.4, 0.1])
D, K = 12, 10
# What DOP853 may be off by in one step, relative and absolute: the rule's default. Errors of later
# steps contract with the flow, or grow by less than e^{λ₁t} while it leaves LoRA-init.
RTOL = 1e-10
ATOL = RTOL / 1000
# e^{λ₁t} of the largest eigenvalue 2.1 of Σ̂ at the time 2 that these runs end.
GROWTH = 100


def frame(rng: np.random.Generator, n: int, p: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, p)))[0]


def population(seed: int = 0) -> tuple[lt.LinearProblem, np.ndarray, np.ndarray]:
    """Σ̂ = I and Δ = U diag(λ) Vᵀ."""
    rng = np.random.default_rng(seed)
    U, V = frame(rng, D, 4), frame(rng, K, 4)
    shift = lt.Factors(torch.from_numpy(U * LAMBDA), torch.from_numpy(V.T.copy()))
    return lt.LinearProblem.population(shift=shift), U, V


def error(run: lt.Trajectory, problem: lt.LinearProblem) -> np.ndarray:
    return (run.learned_shift().dense() - problem.shift.dense()).numpy().reshape(D, K)


def test_full_flow_is_the_exponential() -> None:
    """E(τ) = e^{−Σ̂τ}E(0), from the eigenvectors of Σ̂."""
    problem = lt.sample_linear(d=D, k=K, true_rank=3, samples=60, seeds=(0, 1))
    values, vectors = np.linalg.eigh(problem.covariance.matrix.numpy())
    start = -problem.shift.dense().numpy()
    for eta, steps in ((0.1, 40), (2.0, 2)):
        run = lt.simulate(problem, "full-flow", rank=1, learning_rate=eta, steps=steps)
        decay = np.exp(-values * eta * steps)[..., None] * (vectors.swapaxes(-1, -2) @ start)
        found = run.learned_shift().dense().numpy() + start
        assert np.abs(found - vectors @ decay).max() <= steps * RTOL * np.abs(start).max()


@pytest.mark.parametrize("rho", [0.01, 0.5, 2.0])
def test_balanced_spectral_starts_decouple(rho: float) -> None:
    """1 − σ/λ = (1 − ρ)x/(ρ + (1 − ρ)x) with x = e^{−2λτ} on every pair of Δ."""
    problem, U, V = population()
    root = np.sqrt(rho * LAMBDA)
    initial = lt.Factors(
        torch.from_numpy(U * root)[None], torch.from_numpy(root[:, None] * V.T)[None]
    )
    steps, eta = 60, 0.25
    run = lt.simulate(
        problem, "flow", rank=4, learning_rate=eta, steps=steps, initial=initial, record=("error",)
    )
    E = -error(run, problem)
    x = np.exp(-2 * LAMBDA * eta * steps)
    expected = LAMBDA * (1 - rho) * x / (rho + (1 - rho) * x)
    assert np.abs(U.T @ E @ V - np.diag(expected)).max() <= steps * RTOL
    t = eta * run.steps[:, None]
    x = np.exp(-2 * LAMBDA * t)
    curve = np.linalg.norm(LAMBDA * (1 - rho) * x / (rho + (1 - rho) * x), axis=-1)
    assert np.abs(run["error"][:, 0].numpy() - curve).max() <= steps * RTOL


def riccati(t: float, A0: np.ndarray, delta: float, U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UᵀEV and (I − P_U)EV of the flow from A₀ᵀA₀ = δI, B₀ = 0, in closed form."""
    a = U.T @ A0
    across = A0 - U @ a
    w = np.sqrt(LAMBDA**2 + delta**2 / 4)
    x = np.exp(-2 * w * t)
    g = (1 - x**2) / (4 * w) + delta * (1 - x) ** 2 / (8 * w**2)
    c = np.exp(-w * t) * ((1 + x) / 2 + delta * (1 - x) / (4 * w)) / g
    beta = np.exp(-w * t) * LAMBDA * (1 - x) / (2 * w * g)
    N = np.eye(A0.shape[1]) + np.expm1(delta * t) / delta * across.T @ across
    inner = np.linalg.solve(N, a.T)
    S = np.linalg.solve(np.diag(x / g) + a @ inner, np.diag(beta))
    return -c[:, None] * S, np.exp(delta * t / 2) * across @ inner @ S


@pytest.mark.parametrize("rank", [4, 6])
@pytest.mark.parametrize("alpha", [0.1, 1e-3])
def test_from_lora_init_the_flow_solves_a_riccati_equation(rank: int, alpha: float) -> None:
    problem, U, V = population()
    A0 = alpha * frame(np.random.default_rng(5), D, rank)
    initial = lt.Factors(torch.from_numpy(A0)[None], torch.zeros(1, rank, K, dtype=torch.float64))
    eta = 0.5
    for steps in (4, 30, 120):
        run = lt.simulate(
            problem, "flow", rank=rank, learning_rate=eta, steps=steps, initial=initial
        )
        E = error(run, problem)
        inside, across = riccati(eta * steps, A0, alpha**2, U)
        # Absolute errors in a start of size alpha grow with it to size one.
        allowed = steps * (RTOL + ATOL / alpha)
        assert np.abs(U.T @ E @ V - inside).max() <= allowed
        assert np.abs(E @ V - U @ (U.T @ E @ V) - across).max() <= allowed
        # Rows outside row(Δ) are what products of length D and K round to: the projection's, and
        # those of the slopes, over the time that they are integrated for.
        assert np.abs(E - E @ V @ V.T).max() <= rounding(D, operations=2 + eta * steps)


def test_gradient_descent_approaches_the_flow_at_first_order() -> None:
    problem = lt.sample_linear(d=D, k=K, true_rank=3, samples=60)
    options = {"rank": 3, "record": ("loss",)}
    flow = lt.simulate(
        problem, lt.methods.flow(init_std=0.3), learning_rate=2.0, steps=1, **options
    )
    gaps = []
    for steps in (40, 80, 160):
        run = lt.simulate(
            problem,
            lt.methods.lora(init_std=0.3),
            learning_rate=2.0 / steps,
            steps=steps,
            **options,
        )
        gaps.append(float(torch.linalg.matrix_norm(run.final.dense() - flow.final.dense())))
    ratios = [a / b for a, b in itertools.pairwise(gaps)]
    # An error of cη + c'η² halves up to a relative c'η/c.
    assert ratios == pytest.approx([2.0, 2.0], rel=0.1)


def test_time_is_rate_times_steps_and_balance_is_conserved() -> None:
    problem = lt.sample_linear(d=D, k=K, true_rank=3, samples=60, seeds=(0, 1))
    method = lt.methods.flow(init_std=0.3, scale=2.0)
    runs = [
        lt.simulate(problem, method, rank=3, learning_rate=eta, steps=steps, reduce=reduce)
        for eta, steps, reduce in ((0.05, 40, "auto"), (0.2, 10, "auto"), (0.2, 10, "never"))
    ]
    for other in runs[1:]:
        for ours, theirs in zip(runs[0].final, other.final, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=GROWTH * 40 * RTOL)
    for run in runs:
        (A0, B0), (A, B) = run.initial, run.final
        before, after = (M.mT @ M - N @ N.mT for M, N in ((A0, B0), (A, B)))
        assert (after - before).abs().max() <= GROWTH * 40 * RTOL


def test_a_run_of_a_batch_keeps_its_own_tolerance() -> None:
    problem = lt.sample_linear(d=D, k=K, true_rank=3, samples=60, seeds=(0, 1, 2))
    method = lt.methods.flow(init_std=0.3)
    options = {"rank": 3, "steps": 20}
    swept = lt.simulate(problem, method, learning_rate=[0.01, 1.0], **options)
    for i, eta in enumerate((0.01, 1.0)):
        alone = lt.simulate(problem, method, learning_rate=eta, **options)
        gap = (swept.final.dense()[i] - alone.final.dense()).abs().max()
        assert gap <= GROWTH * 20 * RTOL


def test_the_tolerance_is_kept_and_can_be_loosened() -> None:
    problem, _, _ = population()
    start = {"rank": 2, "learning_rate": 5.0, "steps": 2}
    errors, loose = [], 1e-4
    for rtol in (RTOL, loose):
        run = lt.simulate(problem, lt.methods.full_flow(rtol=rtol), **start)
        exact = -np.exp(-10.0) * problem.shift.dense().numpy().reshape(D, K)
        errors.append(np.abs(error(run, problem) - exact).max())
    assert errors[0] <= 2 * RTOL < errors[1] <= 2 * loose  # in two steps
    tiny = RTOL**2
    with pytest.raises(ValueError, match="rtol of rule 'flow' must satisfy 1e-13 <= rtol < 1"):
        lt.methods.flow(rtol=tiny)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flows_on_other_problems_and_in_float32(dtype: str) -> None:
    problem = lt.sample_relu(d=6, k=3, true_rank=1, samples=40, relative_shift=0.3, dtype=dtype)
    run = lt.simulate(problem, "flow", rank=2, learning_rate=0.5, steps=20, record=("loss",))
    loss = run["loss"][:, 0].double()
    # The factors, of the size of what they have learned, err by the integrator's tolerance, and
    # the loss by twice that over what is left of the residual.
    tight = 100 * eps(torch.float32) if dtype == "float32" else RTOL
    noise = 2 * tight * float(loss[0] / loss[-1]) ** 0.5
    assert bool((loss[1:] <= loss[:-1] * (1 + noise)).all())
    assert loss[-1] < loss[0]
    assert run.final.A.dtype == getattr(torch, dtype)


def test_it_goes_on_from_a_saved_state_bit_for_bit() -> None:
    """The integrator's own step is in the state, so the loop's checkpoints hold all there is."""
    problem = lt.sample_linear(d=D, k=K, true_rank=3, samples=60)
    one = lt.simulate(problem, lt.methods.flow(init_std=0.3), rank=3, learning_rate=0.3, steps=9)
    rule = lt.methods.flow().at(3).rule(0.3, 0.0)
    params = tuple(one.initial)
    state = rule.init(params)

    def gradients(params):
        return tuple(problem.gradients(lt.Factors(*params)))

    for _ in range(4):
        params, state = rule.advance(params, gradients, state)
    held = tuple(P.clone() for P in params), state.clone()
    ends = []
    for now, own in ((params, state), held):
        for _ in range(5):
            now, own = rule.advance(now, gradients, own)
        ends.append(now)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    for ours, theirs in zip(ends[0], one.final, strict=True):  # which is reduced
        torch.testing.assert_close(ours, theirs, rtol=0, atol=GROWTH * 9 * RTOL)


def test_where_a_flow_cannot_run() -> None:
    rule = lt.methods.flow().rule(0.1)
    with pytest.raises(TypeError, match="'flow' asks for gradients at points of its own"):
        rule.update((), (), ())
