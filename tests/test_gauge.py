"""Which rules make the same step of AB for (AQ, Q⁻¹B), and the rules of neighbouring papers."""

from collections.abc import Callable

import numpy as np
import pytest
import tolerance
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.methods import inits, rules
from loraone_theory.methods.rules.lora_pro import project

D, K, R, ETA = 12, 9, 3, 0.1
DRAWS = 20
# Condition numbers of Gaussian 3x12 and 3x9 factors and of their products with a full gradient are
# below WORST in these draws (a test says so), so Gram matrices lose its square.
WORST = 20.0
# Products of length D; the step is a difference of products that are 1/η as large.
LONGHAND_CLOSE = rounding(D, operations=1 / ETA, condition=WORST**2)
# Products with cond(Q)² = 100 lose that much more.
INVARIANT = 100 * LONGHAND_CLOSE


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


FULL, A, B = normal(0, DRAWS, D, K), normal(1, DRAWS, D, R), normal(2, DRAWS, R, K)


def gradients_at(params: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of ½‖AB − T‖_F² with T = A₀B₀ − (a full gradient): the same function in every gauge."""
    E = params[0] @ params[1] - (A @ B - FULL)
    return E @ params[1].mT, params[0].mT @ E


def step(rule: lt.Rule, params: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What one step adds to AB."""
    state = rule.init(params)
    if rule.advance is not None:
        new, _ = rule.advance(params, gradients_at, state)
    else:
        new, _ = rule.update(params, gradients_at(params), state)
    return new[0] @ new[1] - params[0] @ params[1]


def change(rule: lt.Rule, Q: torch.Tensor) -> torch.Tensor:
    """Relative change of the step under (AQ, Q⁻¹B), of every draw."""
    plain, moved = step(rule, (A, B)), step(rule, (A @ Q, torch.linalg.solve(Q, B)))
    return torch.linalg.matrix_norm(moved - plain) / torch.linalg.matrix_norm(plain)


ORTHOGONAL = torch.linalg.qr(normal(3, DRAWS, R, R)).Q
GAUGES = {
    "orthogonal": ORTHOGONAL,
    "times 3": 3 * torch.eye(R, dtype=torch.float64).expand(DRAWS, R, R),
    "condition 10": ORTHOGONAL
    @ torch.diag(torch.tensor([10.0, 10**0.5, 1.0], dtype=torch.float64))
    @ torch.linalg.qr(normal(4, DRAWS, R, R)).Q,
}
INVARIANT_RULES: dict[str, lt.Rule] = {
    "preconditioned": rules.preconditioned(ETA),
    "alternating": rules.alternating(ETA),
    "lora-muon": rules.lora_muon(ETA),
    "lora-rite": rules.lora_rite(ETA),
    "gauss-newton": rules.gauss_newton(ETA),
    "whitened": rules.whitened(ETA),
}
# With the least relative change that any draw shows in the last two gauges.
ROTATING_RULES: dict[str, tuple[lt.Rule, float]] = {
    "gd": (rules.gd(ETA), 0.1),
    "momentum": (rules.momentum(ETA), 0.1),
    "muon": (rules.muon(ETA), 0.1),
    "scaled muon": (rules.muon(ETA, scaled=True), 0.1),
    "lora-plus": (rules.lora_plus(ETA, 4.0), 0.1),
    "lora-rite with damping": (rules.lora_rite(ETA, damping=1e-2), 1e-5),
    "preconditioned with damping": (rules.preconditioned(ETA, damping=1e-2), 1e-5),
}


def test_the_draws_are_as_well_conditioned_as_the_tolerances_suppose() -> None:
    for M in (A, B.mT, FULL @ B.mT, FULL.mT @ A):
        assert torch.linalg.cond(M).max() <= WORST


@pytest.mark.parametrize("gauge", GAUGES)
@pytest.mark.parametrize("name", INVARIANT_RULES)
def test_steps_that_do_not_depend_on_the_gauge(name: str, gauge: str) -> None:
    assert change(INVARIANT_RULES[name], GAUGES[gauge]).max() <= INVARIANT


@pytest.mark.parametrize("name", ROTATING_RULES)
def test_steps_that_only_rotations_leave_alone(name: str) -> None:
    rule, least = ROTATING_RULES[name]
    assert change(rule, GAUGES["orthogonal"]).max() <= INVARIANT
    for gauge in ("times 3", "condition 10"):
        assert change(rule, GAUGES[gauge]).min() >= least


def test_spectral_scaling_leaves_out_the_size_only() -> None:
    """Invariant for cQ with Q orthogonal; the condition of Q changes the step."""
    rule = rules.spectral_scaled(ETA)
    for gauge in ("orthogonal", "times 3"):
        assert change(rule, GAUGES[gauge]).max() <= INVARIANT
    assert change(rule, GAUGES["condition 10"]).min() >= 0.1


@pytest.mark.parametrize("escapes", [False, True])
def test_moments_of_lora_rite_follow_the_gauge(escapes: bool) -> None:
    """Five steps with moments, each from where the last one ended, in every gauge the same."""
    for gauge, Q in GAUGES.items():
        ends = []
        for params in ((A, B), (A @ Q, torch.linalg.solve(Q, B))):
            rule = rules.lora_rite(0.02, betas=(0.6, 0.9), escaped_mass=escapes)
            state = rule.init(params)
            for _ in range(5):
                params, state = rule.update(params, gradients_at(params), state)
            ends.append(params[0] @ params[1])
        gap = torch.linalg.matrix_norm(ends[1] - ends[0]) / torch.linalg.matrix_norm(ends[0])
        # Five steps, with another inverse root of a square in each.
        assert gap.max() <= 5 * WORST**2 * INVARIANT, gauge


def test_lora_pro_is_invariant_to_first_order_only() -> None:
    """A g^B + g^A B is the same in every gauge; η²g^A g^B is not, for Z goes with the gradients."""
    Q = GAUGES["condition 10"]
    found = []
    for params in ((A, B), (A @ Q, torch.linalg.solve(Q, B))):
        g_A, g_B = project(params, gradients_at(params), 0.0, 1.0).steps
        found.append(params[0] @ g_B + g_A @ params[1])
    gap = torch.linalg.matrix_norm(found[1] - found[0]) / torch.linalg.matrix_norm(found[0])
    assert gap.max() <= INVARIANT
    large, small = (change(rules.lora_pro(eta, ridge=0.0), Q).max() for eta in (1e-2, 1e-4))
    assert large > 1e-4
    assert float(large / small) == pytest.approx(100.0, rel=0.1)


def test_entrywise_steps_depend_on_rotations_too() -> None:
    assert change(rules.adamw(ETA), GAUGES["orthogonal"]).min() >= 0.05


# --- longhand, one matrix at a time in numpy -------------------------------------------------


def msign(M: np.ndarray) -> np.ndarray:
    U, _, Vt = np.linalg.svd(M, full_matrices=False)
    return U @ Vt


def inverse_root(M: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(M)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def longhand_alternating(A, B, T, lam):
    eye = lam * np.eye(R)
    A = A - ETA * (A @ B - T) @ B.T @ np.linalg.inv(B @ B.T + eye)
    return A, B - ETA * np.linalg.inv(A.T @ A + eye) @ A.T @ (A @ B - T)


def longhand_muon(A, B, T, lam):
    E = A @ B - T
    return A - ETA * msign(E @ B.T), B - ETA * msign(A.T @ E)


def longhand_lora_muon(A, B, T, lam):
    E, eye = A @ B - T, lam * np.eye(R)
    P, Q = inverse_root(A.T @ A + eye), inverse_root(B @ B.T + eye)
    return A - ETA * msign(E @ B.T @ Q) @ Q, B - ETA * P @ msign(P @ A.T @ E)


def longhand_scaled_muon(A, B, T, lam):
    E = A @ B - T
    nuclear = [np.linalg.svd(G, compute_uv=False).sum() for G in (E @ B.T, A.T @ E)]
    return A - ETA * nuclear[0] * msign(E @ B.T), B - ETA * nuclear[1] * msign(A.T @ E)


def longhand_spectral(A, B, T, lam):
    E = A @ B - T
    by_B, by_A = (np.linalg.norm(M, 2) ** 2 + lam for M in (B, A))
    return A - ETA * E @ B.T / by_B, B - ETA * A.T @ E / by_A


LONGHAND: dict[str, tuple[Callable, Callable]] = {
    "gauss-newton": (longhand_alternating, rules.gauss_newton),
    "lora-rite": (longhand_lora_muon, rules.lora_rite),
    "scaled muon": (longhand_scaled_muon, lambda eta, lam: rules.muon(eta, scaled=True)),
    "spectral-scaled": (longhand_spectral, rules.spectral_scaled),
    "alternating": (longhand_alternating, rules.alternating),
    "muon": (longhand_muon, lambda eta, lam: rules.muon(eta)),
    "lora-muon": (longhand_lora_muon, rules.lora_muon),
}


@pytest.mark.parametrize("damping", [0.0, 0.2])
@pytest.mark.parametrize("name", LONGHAND)
def test_steps_are_their_formulas(name: str, damping: float) -> None:
    formula, make = LONGHAND[name]
    rule = make(ETA, damping)
    if rule.advance is not None:
        (found_A, found_B), _ = rule.advance((A, B), gradients_at, rule.init((A, B)))
    else:
        (found_A, found_B), _ = rule.update((A, B), gradients_at((A, B)), rule.init((A, B)))
    target = (A @ B - FULL).numpy()
    for i in range(DRAWS):
        expected = formula(A[i].numpy(), B[i].numpy(), target[i], damping)
        for ours, theirs in zip((found_A[i], found_B[i]), expected, strict=True):
            assert np.linalg.norm(ours.numpy() - theirs) <= LONGHAND_CLOSE * np.linalg.norm(theirs)


def test_muon_averages_gradients() -> None:
    rule, params = rules.muon(ETA, beta=0.6), (A[0], B[0])
    state, ball = rule.init(params), [np.zeros((D, R)), np.zeros((R, K))]
    expected = [P.numpy() for P in params]
    for t in range(3):
        gradients = (normal(10 + t, D, R), normal(20 + t, R, K))
        params, state = rule.update(params, gradients, state)
        ball = [0.6 * M + G.numpy() for M, G in zip(ball, gradients, strict=True)]
        expected = [P - ETA * msign(M) for P, M in zip(expected, ball, strict=True)]
    for ours, theirs in zip(params, expected, strict=True):
        # Three polar factors of averages of Gaussian matrices.
        allowed = rounding(D, operations=3, condition=WORST)
        assert np.linalg.norm(ours.numpy() - theirs) <= allowed * np.linalg.norm(theirs)


@pytest.mark.parametrize("escapes", [False, True])
def test_moments_of_lora_rite(escapes: bool) -> None:
    """Three steps of the formulas of m, v, ρ and P, with Bᵀ = QR in place of Bᵀ = QN^{½}."""
    rule = rules.lora_rite(ETA, betas=(0.6, 0.9), escaped_mass=escapes)
    params, eye = (A[0], B[0]), np.eye(R)
    state, old = rule.init(params), {}
    mine = [P.numpy() for P in params]

    def moved(name: str, G: np.ndarray, other: np.ndarray, t: int) -> np.ndarray:
        Q, upper = np.linalg.qr(other)
        back = np.linalg.inv(upper)
        plain = G @ back
        m, v, before, rho = old.get(name, (0 * plain, 0 * back, 0 * Q, 0.0))
        P = Q.T @ before
        m = 0.6 * m @ P.T + 0.4 * plain
        kept = P @ v @ P.T
        rho = 0.9 * (rho + np.abs(np.linalg.eigvalsh(v) - np.linalg.eigvalsh(kept)).max())
        v = 0.9 * kept + 0.1 * plain.T @ plain
        old[name] = (m, v, Q, rho)
        under = v + rho * eye if escapes else v
        return m / (1 - 0.6**t) @ inverse_root(under / (1 - 0.9**t)) @ back.T

    for t in range(1, 4):
        gradients = (normal(10 + t, D, R), normal(20 + t, R, K))
        params, state = rule.update(params, gradients, state)
        step_A = moved("A", gradients[0].numpy(), mine[1].T, t)
        step_B = moved("B", gradients[1].numpy().T, mine[0], t).T
        mine = [mine[0] - ETA * step_A, mine[1] - ETA * step_B]
    for ours, theirs in zip(params, mine, strict=True):
        # Three inverse roots of squares of matrices as well conditioned as the factors.
        allowed = rounding(D, operations=3, condition=WORST**4)
        assert np.linalg.norm(ours.numpy() - theirs) <= allowed * np.linalg.norm(theirs)


def test_gauss_newton_is_alternating_least_squares() -> None:
    """At η = 1 each half-step is the least-squares fit of one factor, on every ensemble."""
    for name in lt.operators.OPERATORS:
        k = 5 if name == "symmetric" else 4
        m = 40 * k if name == "multi-response" else 60
        problem = lt.sample_sensing(
            ensemble=name, d=5, k=k, true_rank=2, measurements=m, noise_std=0.3
        )
        start = (normal(7, 5, 2), normal(8, 2, k))
        rule = rules.gauss_newton(1.0)

        def at(params, problem=problem):
            found = problem.gradients(lt.Factors(*params))
            return found.A[0], found.B[0]

        (found_A, found_B), _ = rule.advance(start, at, rule.init(start))
        a = problem.operator.adjoint(torch.eye(m).double()[:, None])[:, 0].numpy()
        y = problem.labels[0].numpy()
        rows = np.einsum("ipq,rq->ipr", a, start[1].numpy()).reshape(m, -1)
        fit_A = np.linalg.lstsq(rows, y, rcond=None)[0].reshape(5, 2)
        columns = np.einsum("ipq,pr->irq", a, fit_A).reshape(m, -1)
        fit_B = np.linalg.lstsq(columns, y, rcond=None)[0].reshape(2, k)
        if name == "symmetric":  # XB may be antisymmetric and unseen: other A fit as well
            misses = [np.linalg.norm(rows @ L.ravel() - y) for L in (found_A.numpy(), fit_A)]
            assert misses[0] == pytest.approx(misses[1], rel=rounding(m, condition=30**4))
            continue
        # The condition number of the rows is below 30, squared by the normal equations, and
        # conjugate gradients end at rounding of the right side.
        for ours, theirs in ((found_A, fit_A), (found_B, fit_B)):
            gap = np.linalg.norm(ours.numpy() - theirs)
            assert gap <= rounding(m, condition=30**4) * np.linalg.norm(theirs), name


def test_lora_muon_is_the_core_of_lora_rite() -> None:
    """RITE: with Bᵀ = QR the unmagnified ∇̄ = 𝒢Q, and the step ∇̄(∇̄ᵀ∇̄)^{−½}R^{−ᵀ} of A."""
    rule = rules.lora_muon(1.0)
    found, _ = rule.update((A, B), gradients_at((A, B)), rule.init((A, B)))
    for i in range(DRAWS):
        Q, upper = np.linalg.qr(B[i].numpy().T)
        plain = FULL[i].numpy() @ Q
        expected = plain @ inverse_root(plain.T @ plain) @ np.linalg.inv(upper).T
        step_A = (A[i] - found[0][i]).numpy()
        assert np.linalg.norm(step_A - expected) <= LONGHAND_CLOSE * np.linalg.norm(expected)


# --- what they are for -----------------------------------------------------------------------


def well(seeds: tuple[int, ...] = (0, 1)) -> lt.LinearProblem:
    drawn = lt.sample_linear(d=D, k=K, true_rank=3, samples=60, condition_number=10.0, seeds=seeds)
    return lt.LinearProblem.population(shift=drawn.shift)


@pytest.mark.parametrize("eta", [0.3, 0.7, 0.9, 1.5])
def test_alternating_steps_contract_by_one_minus_eta(eta: float) -> None:
    """At the population and r = r*: also where simultaneous steps, |1 − 2η|, blow up."""
    problem = well()
    near = lt.methods.lora().init(problem, 3, (0, 1)).trainable
    U, S, V = lt.linalg.truncated_svd(problem.shift, 3)
    start = lt.Factors(U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT)
    start = lt.Factors(start.A + 1e-3 * near[0], start.B + 1e-3 * normal(5, 2, 3, K))
    method = lt.methods.lora().trained_by("alternating")
    run = lt.simulate(
        problem, method, rank=3, learning_rate=eta, steps=8, initial=start, record=("error",)
    )
    error = run["error"]
    # Second-order terms are of the relative size of the start's error, 1e-3/σ_min = 1e-2.
    rates = (error[8] / error[5]) ** (1 / 3)
    assert rates.tolist() == pytest.approx([abs(1 - eta)] * 2, rel=3e-2)


@pytest.mark.parametrize("rank", [3, 5])
def test_from_a_sketch_of_the_shift_one_step_is_exact(rank: int) -> None:
    problem = well((0, 1, 2))
    method = lt.methods.lora().with_init(inits.nystrom(), name="nystrom")
    method = method.trained_by("preconditioned")
    run = lt.simulate(problem, method, rank=rank, learning_rate=1.0, steps=1, record=("error",))
    # The pseudo-inverse of A₀ᵀA₀ loses the square of A₀'s condition number on its range, of rank 3.
    S = torch.linalg.svdvals(run.initial.A)
    lost = rounding(D, operations=4, condition=float((S[:, 0] / S[:, 2]).max()) ** 2)
    assert (run["error"][1] <= lost * run["error"][0]).all()
    plain = lt.methods.lora().trained_by("preconditioned")
    run = lt.simulate(problem, plain, rank=rank, learning_rate=1.0, steps=1, record=("error",))
    assert (run["error"][1] >= 0.5 * run["error"][0]).all()


def test_a_sketch_is_its_formula() -> None:
    problem = well((3, 4))
    A0, B0 = inits.nystrom()(problem, 4, (3, 4)).trainable
    G = problem.shift.dense()
    assert not B0.any()
    # Its columns are combinations of G's, and over many seeds its Gram matrix is r/k·GGᵀ.
    inside = G @ torch.linalg.pinv(G) @ A0
    # Three products of length D, with the pseudo-inverse of a matrix of condition 10.
    tolerance.close(inside, A0, rounding(D, operations=3, condition=10.0))
    one = lt.LinearProblem.population(shift=lt.Factors(*(part[0] for part in problem.shift)))
    many = inits.nystrom()(one, 4, tuple(range(4000))).trainable[0]
    mean = (many @ many.mT).mean(0) * K / 4
    scale = torch.linalg.matrix_norm(G[0]) ** 2
    # 16,000 columns: each entry of the mean is known to about scale/√16000, an eighth of the bound.
    assert (mean - G[0] @ G[0].mT).abs().max() <= 8 * scale / 16000**0.5
