"""UUᵀ as a parametrisation: its gradient, its recursion, its rates, and what it refuses."""

import numpy as np
import pytest
import torch
from tolerance import close, rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors

D = 20


def population(*values: float) -> lt.LinearProblem:
    G = np.random.default_rng(0).standard_normal((D, len(values)))
    U = torch.from_numpy(np.linalg.qr(G)[0])
    return lt.LinearProblem.population(shift=Factors(U * torch.tensor(values).double(), U.mT))


def sensed(m: int, seeds=(0, 1)) -> lt.SensingProblem:
    return lt.sample_sensing(
        ensemble="symmetric",
        d=D,
        k=D,
        true_rank=2,
        measurements=m,
        spectrum=(1.0, 0.5),
        seeds=seeds,
    )


@pytest.mark.parametrize("method", ["symmetric", "symmetric_preconditioned"])
def test_steps_longhand(method: str) -> None:
    """U ← U − ηR_sU(UᵀU + λI)⁻¹ with R = 𝒜*(𝒜(UUᵀ) − y)/m, from the packed matrices."""
    problem = sensed(240)
    made = getattr(lt.methods, method)(init_std=0.3)
    damping = 0.1 if "pre" in method else 0.0
    run = lt.simulate(
        problem, made, rank=3, learning_rate=0.1, steps=12, damping=damping, seeds=(0, 1)
    )
    rows, columns = np.triu_indices(D)
    for i in range(2):
        a = np.zeros((240, D, D))
        a[:, rows, columns] = problem.operator.packed[i].numpy()
        a[:, columns, rows] = problem.operator.packed[i].numpy()
        U = run.initial.A[i].numpy()
        assert np.array_equal(run.initial.B[i].numpy(), U.T)
        for _ in range(12):
            miss = np.einsum("mdk,dk->m", a, U @ U.T) - problem.labels[i].numpy()
            step = np.einsum("mdk,m->dk", a, miss) / 240 @ U
            if damping:
                step = step @ np.linalg.inv(U.T @ U + damping * np.eye(3))
            U = U - 0.1 * step
        # 12 steps on matrices of size one.
        allowed = rounding(240 + D, operations=2 * 12)  # two sums in each of 12 steps
        np.testing.assert_allclose(run.final.A[i].numpy(), U, rtol=0, atol=allowed)


def test_the_step_is_the_gradient_of_half_the_loss() -> None:
    problem = sensed(60)
    U = torch.from_numpy(np.random.default_rng(1).standard_normal((2, D, 3))).requires_grad_()
    loss = problem.loss(Factors(U, U.mT)).sum() / 2
    (expected,) = torch.autograd.grad(loss, U)
    form = lt.methods.symmetric().parametrisation
    with torch.no_grad():
        (found,) = form.pullback((U,), (), problem.gradients(Factors(U, U.mT)))
    close(found, expected, rounding(60 + D, operations=3))  # three products, over m and d


def test_balanced_recursion_in_the_population() -> None:
    """ε = 1 − u²/λ obeys ε⁺ = ε[1 − 2h + (2h − h²)ε + h²ε²], h = ηλ, on every eigenpair."""
    problem, eta = population(1.0, 0.5), 0.2
    V = torch.linalg.qr(problem.shift.A).Q
    values = torch.tensor([1.0, 0.5]).double()
    signs = (V.mT @ problem.shift.A / values).diagonal().sign()
    start = V * signs * (0.01 * values).sqrt()
    made = lt.methods.symmetric().with_init(lambda *_: lt.Start((start,)), name="balanced")
    run = lt.simulate(problem, made, rank=2, learning_rate=eta, steps=60)
    found = torch.linalg.svdvals(run.final.dense()).flatten()[:2]
    excess, h = torch.full((2,), 0.99, dtype=torch.float64), eta * values
    for _ in range(60):
        excess = excess * (1 - 2 * h + (2 * h - h * h) * excess + h * h * excess**2)
    # 60 steps that grow from 0.01, of a product over d each.
    allowed = rounding(D, operations=60)
    torch.testing.assert_close(found, values * (1 - excess), rtol=allowed, atol=0)


def test_the_rate_at_equal_rank() -> None:
    """r = r*: modes λ_i + λ_j and λ_i, so the rate is 1 − ηλ_{r*} = .9 at η = .2, λ = 1, ½."""
    run = lt.simulate(
        population(1.0, 0.5), lt.methods.symmetric(), rank=2, learning_rate=0.2, steps=300
    )
    error = run["risk"].sqrt().flatten()
    slope = (error[250] / error[150]) ** 0.01
    # The first step of the window has (.8/.9)^150 of the next mode left, and that is nothing.
    assert float(slope) == pytest.approx(0.9, rel=rounding(D, operations=250, condition=1e6))


def test_over_rank_is_sublinear() -> None:
    """2ηt‖E‖_F → √(r − r*): off the signal q ← q − ηq³."""
    run = lt.simulate(
        population(1.0, 0.5), lt.methods.symmetric(init_std=0.3), rank=4, learning_rate=0.2,
        steps=8000, every=4000,
    )  # fmt: skip
    error = (2 * run["risk"][-1]).sqrt()
    # Corrections are 1/(2ηt q₀²), with q₀² about α²d·(1 ± ½) = .9 and more: below 1 %.
    assert float(error) * 2 * 0.2 * 8000 == pytest.approx(2**0.5, rel=0.01)


def test_preconditioned_from_spectral_init() -> None:
    """Converges at one rate whatever κ is, in the population and on measurements."""
    steps, level = [], 1e-10
    for kappa in (1.0, 10.0, 100.0):
        run = lt.simulate(
            population(1.0, 1 / kappa), lt.methods.symmetric_preconditioned(init_std=0.3),
            rank=2, learning_rate=0.3, steps=120,
        )  # fmt: skip
        below = run["risk"].flatten() < (level / kappa) ** 2
        assert bool(below.any())
        steps.append(int(below.int().argmax()))
    # From a random start ln κ more; a factor κ more for plain descent.
    assert steps[2] < steps[0] + 40
    run = lt.simulate(
        sensed(600), lt.methods.symmetric_preconditioned(), rank=2, learning_rate=0.3, steps=150,
        seeds=(0, 1),
    )  # fmt: skip
    # 150 steps at a rate of 1 − η(1 − δ), δ = √(dof/m) and twice that, after ten that find it.
    rate = 1 - 0.3 * (1 - 2 * (39 / 600) ** 0.5)
    assert (run["risk"][-1] < rate**280).all()
    assert (run["risk"][0] < 0.5 * 1.25).all()


@pytest.mark.slow
def test_over_rank_under_measurements_is_nearly_as_slow_and_a_few_times_farther() -> None:
    """m = 240: slopes of ‖E‖ in t of −.93 (to −1), about 3 times √(r − r*)/(2ηt) at t = 2·10⁴."""
    last, eta, surplus = 20_000, 0.2, 2
    made = lt.methods.symmetric(init_std=0.3)
    run = lt.simulate(
        sensed(240), made, rank=2 + surplus, learning_rate=eta, steps=last, record=["error"],
        every=last // 2,
    )  # fmt: skip
    halfway, end = run["error"][1:].numpy()
    slope = np.log(end / halfway) / np.log(2)
    assert ((slope > -1) & (slope < -0.92)).all()
    # Twelve instances had 2.2 to 3.9 times as much.
    times = end * 2 * eta * last / surplus**0.5
    assert ((times > 2) & (times < 4.5)).all()


def test_damping_by_the_residual_restores_the_rate_at_over_rank() -> None:
    """λ_t ∝ ‖E‖ (PrecGD): linear where plain descent is sublinear."""
    options = {"rank": 4, "learning_rate": 0.5, "steps": 200}
    made = lt.methods.symmetric_preconditioned(init_std=0.1, adaptive=1.0)
    adaptive = lt.simulate(population(1.0, 0.5), made, **options)
    plain = lt.simulate(population(1.0, 0.5), lt.methods.symmetric(init_std=0.1), **options)
    # A rate of 0.87 against a tail of 1/(ηt).
    fast, slow = 0.87**200, 1 / (0.5 * 200)
    assert float(adaptive["risk"][-1]) < fast**0.5
    assert float(plain["risk"][-1]) > (slow / 10) ** 2


def test_what_is_refused() -> None:
    oblong = lt.sample_linear(d=6, k=5, true_rank=1, samples=30)
    with pytest.raises(ValueError, match="need a problem with d = k; got d=6, k=5"):
        lt.simulate(oblong, lt.methods.symmetric(), rank=1, learning_rate=0.1, steps=1)
    turned = lt.sample_linear_matrix_free(d=6, k=6, true_rank=1, samples=30)
    with pytest.raises(ValueError, match="known up to a rotation only"):
        lt.simulate(turned, lt.methods.symmetric(), rank=1, learning_rate=0.1, steps=1)
    with pytest.raises(ValueError, match="init_std must be one of spectral"):
        lt.methods.symmetric(init_std="spectrum")
