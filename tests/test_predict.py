"""Predictions of the linear model against runs that know nothing of them."""

import numpy as np
import pytest
import tolerance
import torch
import xloop

import loraone_theory as lt

# Where Lanczos iterations stop, relative to the largest eigenvalue (predict/modes.py): a Ritz value
# of a symmetric form is as close to an eigenvalue as its residual is long.
LANCZOS = 1e-8

FLOORS = [
    ("lora-one", {}),
    ("lora", {}),
    ("lora-ga", {"gamma": 4.0}),
    ("lora-ga", {"gamma": 16.0}),
    ("lora-sb", {}),
    ("full", {}),
]


@pytest.mark.parametrize("rank", [4, 8, 16])
@pytest.mark.parametrize(("name", "hyper"), FLOORS)
def test_floors_are_reached(name, hyper, rank):
    """d = k = 100, N = 1600, λ* = linspace(1, 0.25, 8): to 1e-6, or 1e-25 where the floor is 0."""
    problem = lt.sample_linear(
        d=100, k=100, true_rank=8, samples=1600, spectrum=np.linspace(1, 0.25, 8), seeds=(0, 1)
    )
    method = lt.METHODS[name](**hyper)
    floor = lt.predict.floor(problem, method, rank=rank, seeds=(0, 1))
    run = lt.simulate(
        problem,
        method,
        rank=rank,
        learning_rate=0.25,
        steps=6000,
        seeds=(0, 1),
        record=("loss",),
        every=6000,
    )
    reached = run["loss"][-1]
    if name in ("lora-one", "lora", "full") and (rank >= 8 or name == "full"):
        assert bool((floor == 0).all())
        # Entries move until a step of ¼ is less than what sums of 100 terms round.
        assert float(reached.max()) <= 0.5 * tolerance.rounding(100, operations=4) ** 2
    else:
        assert bool((floor > 0.01).all())
        # What 6000 steps at half the rate that is predicted leave, and rounding of as many.
        rate = lt.predict.contraction(problem, method, rank=rank, seeds=(0, 1)).loss_rate(0.25)
        left = float(rate.max()) ** 3000 + tolerance.rounding(1600, operations=10)
        torch.testing.assert_close(reached, floor, rtol=left, atol=0)


def test_a_deficient_offset_method_can_lie_below():
    """At r < r* LoRA-GA's floor depends on its scale and may undercut LoRA-One's."""
    problem = lt.sample_linear(
        d=100, k=100, true_rank=8, samples=1600, spectrum=np.linspace(1, 0.25, 8)
    )
    one = lt.predict.floor(problem, "lora-one", rank=4)
    assert one.item() == pytest.approx(0.355, abs=0.01)
    large = lt.predict.floor(problem, lt.methods.lora_ga(gamma=4.0), rank=4)
    assert float(large) < float(one)
    gamma = 1e6
    tiny = lt.predict.floor(problem, lt.methods.lora_ga(gamma=gamma), rank=4)
    # The offset has singular values ζ² = √d/γ; singular values of the target move by as much each,
    # so ½Σσ_i² over four of them by ζ²Σσ_i, below 4ζ².
    torch.testing.assert_close(tiny, one, rtol=0, atol=4 * 100**0.5 / gamma)


def test_plateau_is_where_alignment_settles():
    """d = k = 100, N = 1600, r = 8, r* = 4, η = 1/64, α² = 1e-4: to 1e-3 at t = 2500."""
    problem = lt.sample_linear(d=100, k=100, true_rank=4, samples=1600, seeds=(0, 1, 2))
    run = lt.simulate(
        problem,
        "lora",
        rank=8,
        learning_rate=1 / 64,
        steps=2500,
        seeds=(0, 1, 2),
        init_std=1e-2,
        record=("left_alignment",),
        every=10,
    )
    predicted = lt.predict.plateau(problem)
    # To the size of what LoRA-init leaves of the start: init_std² over the least singular value.
    torch.testing.assert_close(run["left_alignment"][-1], predicted, atol=4 * 1e-2**2, rtol=0)
    # It first dips below, towards U(G), and then comes back.
    assert bool((run["left_alignment"].nan_to_num(1.0).amin(0) < 0.75 * predicted).all())


def test_linearised_dynamics_is_the_matrix_power():
    """Rounding: t products of length 12 of ‖H‖ each; the subspace then has it over its gap."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 7))
    shift = rng.standard_normal((7, 2)) @ rng.standard_normal((2, 5))
    problem = lt.LinearProblem.from_data(X, shift=shift)
    A, B = rng.standard_normal((7, 3)), rng.standard_normal((3, 5))
    G = -xloop.full_gradient(X, X @ shift, np.zeros_like(shift))
    eta = 0.05
    H = np.block([[np.eye(7), eta * G], [eta * G.T, np.eye(5)]])
    Z0 = np.vstack([A, B.T])
    steps = [0, 1, 7, 40]
    initial = lt.Factors(torch.from_numpy(A), torch.from_numpy(B))
    ours = lt.predict.linearised(problem, initial, eta, steps)
    sines = lt.predict.linearised_alignment(problem, initial, eta, steps)
    U, S, _ = np.linalg.svd(G)
    for i, t in enumerate(steps):
        Z = np.linalg.matrix_power(H, t) @ Z0
        growth = np.linalg.norm(H, 2) ** t * np.linalg.norm(Z0)
        error = tolerance.rounding(12, operations=t + 1) * growth
        assert np.linalg.norm(ours.A[i].numpy() - Z[:7]) <= error
        assert np.linalg.norm(ours.B[i].numpy() - Z[7:].T) <= error
        left, values, _ = np.linalg.svd(Z[:7])
        sine = np.linalg.norm(U[:, 2:].T @ left[:, :2], 2)
        known = tolerance.subspace(values, 2, error)
        known += tolerance.subspace(S, 2, tolerance.rounding(50) * S[0])
        assert sines[i].item() == pytest.approx(sine, rel=0, abs=known)
        # So that it says something: at t = 40 σ₁ is 8.7e7 and σ₂ 2.1.
        assert known <= 0.01


def dense_tangent_spectrum(problem, rule):
    """Eigenvalues of E ↦ Σ̂E BᵀB + AAᵀΣ̂E (or with projectors) on d×r* matrices, by Kronecker."""
    Sigma = problem.covariance.apply(torch.eye(problem.d, dtype=torch.float64))[0].numpy()
    U, S, _ = lt.linalg.truncated_svd(problem.shift, problem.true_rank)
    U, S = U[0].numpy(), S[0].numpy()
    left, right = (
        (U @ U.T, np.eye(len(S))) if rule == "preconditioned" else ((U * S) @ U.T, np.diag(S))
    )
    operator = np.kron(Sigma, right) + np.kron(left @ Sigma, np.eye(len(S)))
    return np.sort(np.linalg.eigvals(operator).real)


@pytest.mark.parametrize("rule", ["gd", "preconditioned"])
@pytest.mark.parametrize("sampler", [lt.sample_linear, lt.sample_linear_matrix_free])
def test_tangent_extremes_against_the_dense_operator(rule, sampler, monkeypatch):
    problem = sampler(d=12, k=8, true_rank=3, samples=100, condition_number=5.0)
    exact = dense_tangent_spectrum(problem, rule)[[0, -1]]
    ours = lt.predict.tangent_extremes(problem, rule)[0].numpy()
    # Eigenvalues of forms of dk = 96, made of roots and inverses at κ = 5 and Σ̂.
    wrong = tolerance.rounding(96, operations=4, condition=5.0**2)
    np.testing.assert_allclose(ours, exact, rtol=wrong)
    monkeypatch.setattr("loraone_theory.predict.modes.DENSE_SIZE", 2)
    for factored in (10**4, 0):  # by a Cholesky factor, and without a matrix
        monkeypatch.setattr("loraone_theory.predict.modes.FACTORED_SIZE", factored)
        lanczos = lt.predict.tangent_extremes(problem, rule)[0].numpy()
        np.testing.assert_allclose(lanczos, exact, rtol=0, atol=LANCZOS * exact[1])


def test_population_rates_are_one_and_two():
    shift = lt.sample_linear(d=12, k=8, true_rank=3, samples=20, condition_number=7.0).shift
    problem = lt.LinearProblem.population(shift=shift)
    extremes = lt.predict.tangent_extremes(problem, "preconditioned")
    wrong = tolerance.rounding(96, operations=2)  # an eigenvalue problem of dk = 96 at κ = 1
    expected = torch.tensor([[1.0, 2.0]]).double()
    torch.testing.assert_close(extremes, expected, rtol=wrong, atol=0)
    best = lt.predict.best_step(problem, "preconditioned").item()
    assert best == pytest.approx(2 / 3, rel=wrong)
    edge = lt.predict.largest_stable_step(problem, "preconditioned").item()
    assert edge == pytest.approx(1, rel=wrong)


def slowest_mode_decay(problem, rule, method, eta):
    """Decay per step from the solution, nudged along the eigenvector that contracts slowest."""
    reduced = lt.reduce(problem).problem
    U, S, V = (part[0] for part in lt.linalg.truncated_svd(reduced.shift, reduced.true_rank))
    A, B = U * S.sqrt(), S.sqrt()[:, None] * V.T
    half = reduced.covariance.values[0].sqrt()
    K = half[:, None] * (U if rule == "preconditioned" else A)
    best = (-1.0, None)
    for i, beta in enumerate(torch.ones_like(S) if rule == "preconditioned" else S):
        values, vectors = torch.linalg.eigh(torch.diag(beta * half**2) + K @ K.T)
        for j in (0, -1):
            rate = abs(1 - eta * float(values[j]))
            if rate > best[0]:
                E = (vectors[:, j] / half)[:, None] @ V[:, i][None, :]
                best = (rate, E)
    E = 1e-6 * best[1] / torch.linalg.matrix_norm(best[1])
    # E = A X + Y B to first order, with X = 0: Y = E Bᵀ(BBᵀ)⁻¹.
    nudged = lt.Factors(A + E @ torch.linalg.pinv(B), B)
    run = lt.simulate(
        reduced, method, rank=3, learning_rate=eta, steps=40, initial=nudged, record=("error",)
    )
    error = run["error"][:, 0]
    return float((error[40] / error[20]) ** (1 / 20))


@pytest.mark.parametrize("kappa", [1.0, 10.0])
@pytest.mark.parametrize(
    ("rule", "method", "eta"),
    [
        ("gd", "lora-one", 0.25),
        ("preconditioned", "lora-one-preconditioned", 0.2),
        ("preconditioned", "lora-one-preconditioned", 0.5),
    ],
)
def test_local_rates_are_those_of_the_slowest_mode(rule, method, eta, kappa):
    """To 1 % of 1 − rate."""
    problem = lt.sample_linear(d=30, k=20, true_rank=3, samples=800, condition_number=kappa)
    predicted = lt.predict.local_rate(problem, rule, learning_rate=eta).item()
    measured = slowest_mode_decay(problem, rule, method, eta)
    assert measured == pytest.approx(predicted, abs=0.01 * (1 - predicted))


@pytest.mark.parametrize(
    ("rule", "method"), [("gd", "lora-one"), ("preconditioned", "lora-one-preconditioned")]
)
def test_the_stability_edge(rule, method):
    problem = lt.sample_linear(d=30, k=20, true_rank=3, samples=800, condition_number=2.0)
    edge = lt.predict.largest_stable_step(problem, rule).item()
    assert slowest_mode_decay(problem, rule, method, 0.98 * edge) < 1
    assert slowest_mode_decay(problem, rule, method, 1.02 * edge) > 1


def test_one_minus_rate_falls_as_one_over_kappa():
    kappas = np.array([1.0, 3.0, 10.0, 30.0])
    rates = [
        lt.predict.local_rate(
            lt.sample_linear(d=60, k=60, true_rank=4, samples=1600, condition_number=kappa),
            "gd",
            learning_rate=0.25,
        ).item()
        for kappa in kappas
    ]
    slope = np.polyfit(np.log(kappas), np.log(1 - np.array(rates)), 1)[0]
    assert slope == pytest.approx(-1, abs=0.02)


def test_alignment_time_is_when_the_growth_has_covered_the_distance():
    """The slow mode grows by 1 + ηλ a step: √d/θ is passed between ⌊t⌋ and ⌊t⌋ + 1, counted."""
    for d, theta, eta, singular_value in ((100, 0.1, 0.5, 1.0), (7, 0.02, 0.01, 3.0)):
        growth, t = 1.0, 0
        while growth * theta < d**0.5:
            growth, t = growth * (1 + eta * singular_value), t + 1
        assert t - 1 < lt.predict.alignment_time(d, theta, eta, singular_value) <= t
        rows = torch.tensor([singular_value, 2 * singular_value], dtype=torch.float64)
        found = lt.predict.alignment_time(d, theta, eta, rows)
        assert t - 1 < float(found[0]) <= t
        assert float(found[1]) < float(found[0])
