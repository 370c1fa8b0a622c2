"""Predictions at every small shape, N < d, r > r*, damping and scale, against longhand loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tolerance
import torch

import loraone_theory as lt
from loraone_theory.predict.tangent_map import tangent_map

RNG_SEED = 3
# Central differences at h = 1e-5: third derivatives times h², and rounding of sums over at most 20
# numbers of size one over h and the step, 0.1; times the conditioning of the eigenvalues, 100.
DIFFERENCES = 100 * (1e-5**2 + tolerance.rounding(20) / 1e-5 / 0.1)
SCALAR = tolerance.rounding(1, operations=10)  # roots, quotients and products of scalars


def root(M: np.ndarray, power: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(M)
    return (vectors * values**power) @ vectors.T


def step(X, T, A, B, *, eta, rule="gd", s=1.0, damping=0.0):
    """One step of L = ‖X(sAB − T)‖²/2N, every product written out."""
    J = -X.T @ (X @ (s * A @ B - T)) / len(X)
    grad_A, grad_B = -s * J @ B.T, -s * A.T @ J
    if rule == "gd":
        return A - eta * grad_A, B - eta * grad_B
    eye = damping * np.eye(A.shape[1])
    left, right = np.linalg.inv(A.T @ A + eye), np.linalg.inv(B @ B.T + eye)
    return A - eta * grad_A @ right, B - eta * left @ grad_B


def best_fit(X: np.ndarray, T: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Balanced factors of T V Vᵀ on the row space of X, V the top right singular vectors of XT."""
    XT = X @ T
    V = np.linalg.svd(XT)[2][:rank].T
    fit = np.linalg.pinv(X) @ XT @ V @ V.T
    U, S, Vh = np.linalg.svd(fit)
    return U[:, :rank] * np.sqrt(S[:rank]), np.sqrt(S[:rank])[:, None] * Vh[:rank]


def moving_modes(X, T, A, B, rule: str, s: float = 1.0, damping: float = 0.0) -> np.ndarray:
    """(1 − multiplier)/η of one step linearised by central differences, without those at rest.

    B stays in the row space of XT, as runs do; eigenvalues below 1e-6 of the largest are at rest:
    differences at h = 1e-5 are good to eps/h = 2e-11 of the factors, times conditioning.
    """
    R = np.linalg.svd(X @ T)[2][: np.linalg.matrix_rank(X @ T)]
    C, T = B @ R.T, T @ R.T
    size, h, eta = A.size + C.size, 1e-5, 0.1
    columns = []
    for i in range(size):
        ends = []
        for sign in (1, -1):
            z = np.concatenate([A.ravel(), C.ravel()])
            z[i] += sign * h
            a, b = z[: A.size].reshape(A.shape), z[A.size :].reshape(C.shape)
            moved = step(X, T, a, b, eta=eta, rule=rule, s=s, damping=damping)
            ends.append(np.concatenate([part.ravel() for part in moved]))
        columns.append((ends[0] - ends[1]) / (2 * h))
    mu = (1 - np.linalg.eigvals(np.array(columns).T).real) / eta
    return np.sort(mu[mu > 1e-6 * mu.max()])


SHAPES = [
    (d, k, N, true_rank, rank)
    for d, k in itertools.product((1, 2, 4), (1, 3))
    for N in range(1, d + 2)
    for true_rank in range(1, min(d, k) + 1)
    for rank in range(1, min(d, k, N) + 1)
]


def drawn(d: int, k: int, N: int, true_rank: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([RNG_SEED, d, k, N, true_rank])
    X = rng.standard_normal((N, d))
    # Singular values apart, so that best fits are isolated.
    U, V = (np.linalg.qr(rng.standard_normal((n, true_rank)))[0] for n in (d, k))
    return X, U * (1 + np.arange(true_rank)[::-1]) @ V.T


@pytest.mark.parametrize(("d", "k", "N", "true_rank", "rank"), SHAPES)
def test_modes_at_every_small_shape(d: int, k: int, N: int, true_rank: int, rank: int) -> None:
    X, T = drawn(d, k, N, true_rank)
    problem = lt.LinearProblem.from_data(X, shift=T)
    reachable = min(true_rank, N)
    if rank > reachable:
        pytest.skip("superfluous directions have a test of their own")
    A, B = best_fit(X, T, rank)
    for name, rule in (("lora-one", "gd"), ("lora-one-preconditioned", "preconditioned")):
        near = lt.predict.contraction(problem, name, rank=rank)
        mu = moving_modes(X, T, A, B, rule)
        moving = near.extremes[..., 0] if near.moving is None else near.moving
        # Everything is relative to the largest of the differences' eigenvalues.
        wrong = DIFFERENCES * mu[-1]
        assert float(near.extremes[..., 1]) == pytest.approx(mu[-1], abs=wrong)
        assert float(moving) == pytest.approx(mu[0], abs=wrong)
        assert float(near.best_step) == pytest.approx(2 / (mu[0] + mu[-1]), rel=2 * DIFFERENCES)
        unseen = N < d
        assert (near.moving is not None) == unseen
        assert bool(float(near.rate(1e-3)) == 1.0) == unseen
        assert any("the rate is 1" in note for note in near.notes) == unseen
        if rank == true_rank:
            edge = lt.predict.largest_stable_step(problem, rule)
            assert float(edge) == pytest.approx(2 / mu[-1], rel=DIFFERENCES)
            expected = pytest.approx(2 / (mu[0] + mu[-1]), rel=2 * DIFFERENCES)
            assert float(lt.predict.best_step(problem, rule)) == expected


@pytest.mark.parametrize(("rank", "k"), [(2, 5), (4, 3)])
@pytest.mark.parametrize(
    ("rule", "options"),
    [("gd", {"ratio": 3.0}), ("preconditioned", {"damping": 0.1}), ("lora-pro", {"damping": 0.1})],
)
def test_the_tangent_map_as_a_matrix(rule: str, options: dict, rank: int, k: int) -> None:
    """J = (I ⊗ (PB)ᵀ | AQ ⊗ F), its transpose and J⁺J, where r < k and where r > k."""
    d, rng = 6, np.random.default_rng(RNG_SEED)
    A, B = rng.standard_normal((d, rank)), rng.standard_normal((rank, k))
    X, Y, M = (rng.standard_normal(shape) for shape in ((d, rank), (rank, k), (d, k)))
    damping, eye = options.get("damping", 0.0) * np.eye(rank), np.eye(rank)
    P, Q, F = eye, np.sqrt(options.get("ratio", 1.0)) * eye, np.eye(k)
    if rule != "gd":
        P, Q = root(B @ B.T + damping, -0.5), root(A.T @ A + damping, -0.5)
    if rule == "lora-pro":
        F = root(np.eye(k) - B.T @ np.linalg.solve(B @ B.T + damping, B), 0.5)
    J = np.hstack([np.kron(np.eye(d), (P @ B).T), np.kron(A @ Q, F)])
    values = np.linalg.svd(J, compute_uv=False)
    moving = values[values > np.sqrt(tolerance.eps()) * values[0]]
    # Roots of the Gram matrices, products with them, and J⁺, which squares the conditioning.
    given = [W + damping for W in (B @ B.T, A.T @ A)] if rule != "gd" else []
    gram = max([1.0, *(np.linalg.cond(W) for W in given)])
    allowed = tolerance.rounding(
        d * k, operations=6, condition=gram * (moving[0] / moving[-1]) ** 2
    )
    assert allowed < tolerance.rounding(d * k, operations=6, condition=1e4)  # it says something
    tangent = tangent_map(lt.Factors(*map(torch.from_numpy, (A, B))), rule, **options)
    z = np.concatenate([X.ravel(), Y.ravel()])
    at = [torch.from_numpy(part) for part in (X, Y)]
    size = values[0] * np.linalg.norm(z)
    assert np.linalg.norm(tangent.forward(*at).numpy().ravel() - J @ z) <= allowed * size
    for pair, expected in (
        (tangent.adjoint(torch.from_numpy(M)), J.T @ M.ravel()),
        (tangent.project(*at), np.linalg.pinv(J, rcond=np.sqrt(tolerance.eps())) @ J @ z),
    ):
        found = np.concatenate([part.numpy().ravel() for part in pair])
        assert np.linalg.norm(found - expected) <= allowed * max(size, np.linalg.norm(expected))


def test_one_by_one_in_closed_form() -> None:
    """d = k = 1 at Σ̂ = 1, Δ = 1: μ = 2 alone, the best step is ½ for GD, and 1 where B is out."""
    problem = lt.LinearProblem.population(shift=np.ones((1, 1)))
    for name, mu in (("lora-one", 2.0), ("lora-one-preconditioned", 2.0), ("full", 1.0)):
        near = lt.predict.contraction(problem, name, rank=1)
        one = torch.full_like(near.extremes, mu)
        torch.testing.assert_close(near.extremes, one, rtol=SCALAR, atol=0)
        assert float(near.best_step) == pytest.approx(1 / mu, rel=SCALAR)
        assert float(near.largest_stable_step) == pytest.approx(2 / mu, rel=SCALAR)
    for rule in ("gd", "preconditioned"):
        assert float(lt.predict.largest_stable_step(problem, rule)) == pytest.approx(
            1.0, rel=SCALAR
        )
        assert float(lt.predict.best_step(problem, rule)) == pytest.approx(0.5, rel=SCALAR)


@pytest.mark.parametrize("name", lt.METHODS)
def test_summaries_at_every_small_shape(name: str) -> None:
    """A number or a note for each, and the floor that least squares and Eckart–Young give."""
    for d, k, N in [(1, 1, 1), (1, 3, 2), (3, 1, 2), (3, 2, 1), (2, 3, 2), (3, 3, 4)]:
        problem = lt.sample_linear(d=d, k=k, true_rank=1, samples=N, seeds=(0,))
        for rank in range(1, min(d, k) + 1):
            if name == "lora-ga" and 2 * rank > min(d, k):
                with pytest.raises(ValueError, match=r"2 \* rank <= min"):
                    lt.predict.summary(problem, name, rank)
                continue
            found = lt.predict.summary(problem, name, rank)
            assert torch.isfinite(found.floor).all()
            known = torch.isfinite(found.local_rate) & torch.isfinite(found.best_step)
            assert bool(known.all()) or found.notes
            if name in ("lora", "lora-one", "full"):
                assert float(found.floor) == 0


def test_a_fixed_pair_at_fewer_samples_than_columns() -> None:
    """LoRA-XS at N < r: the floor is that of least squares over R, by lstsq on X A R B = X Δ."""
    problem = lt.sample_linear(d=5, k=4, true_rank=2, samples=60, seeds=(0,))
    X = np.random.default_rng(1).standard_normal((2, 5))
    small = lt.LinearProblem.from_data(
        X, shift=problem.shift.dense()[0].numpy(), pretrained=problem.pretrained[0].numpy()
    )
    start = lt.METHODS["lora-xs"]().init(small, 3, (0,))
    A, B = (part.reshape(part.shape[-2:]).numpy() for part in start.frozen)
    XD = X @ small.shift.dense().numpy()
    design = np.kron(X @ A, B.T)
    fit = design @ np.linalg.lstsq(design, XD.ravel(), rcond=None)[0]
    expected = 0.5 * np.sum((fit - XD.ravel()) ** 2) / len(X)
    found = float(lt.predict.floor(small, "lora-xs", rank=3))
    # Least squares of N·k equations, to the square of the condition number of the design.
    kappa = np.linalg.cond(design)
    allowed = tolerance.rounding(len(design), operations=4, condition=kappa**2)
    assert found == pytest.approx(expected, rel=allowed)


def test_a_run_on_few_samples_contracts_at_loss_rate() -> None:
    """N = 6 < d = 9: √L of a longhand loop, to 2 % of 1 − rate (the slowest mode is alone)."""
    X, T = drawn(9, 5, 6, 2)
    problem = lt.LinearProblem.from_data(X, shift=T)
    for name, rule in (("lora-one", "gd"), ("lora-one-preconditioned", "preconditioned")):
        near = lt.predict.contraction(problem, name, rank=2)
        eta = 0.5 * float(near.best_step)
        U, S, Vh = np.linalg.svd(X.T @ X @ T / len(X))
        A, B = U[:, :2] * np.sqrt(S[:2]), np.sqrt(S[:2])[:, None] * Vh[:2]
        size = []
        for _ in range(4000):
            A, B = step(X, T, A, B, eta=eta, rule=rule)
            size.append(np.linalg.norm(X @ (A @ B - T)))
        inside = np.array(size)
        first, last = (int(np.argmax(inside < bound)) for bound in (1e-8, 1e-11))
        measured = (inside[last] / inside[first]) ** (1 / (last - first))
        predicted = float(near.loss_rate(eta))
        if rule == "gd":  # the path unbalances by O(η²)
            at = lt.Factors(torch.from_numpy(A), torch.from_numpy(B))
            reached = lt.predict.contraction(problem, name, rank=2, solution=at)
            predicted = float(reached.loss_rate(eta))
        assert measured == pytest.approx(predicted, abs=0.02 * (1 - predicted))
        # AB = P_X Δ: the error off the row space of X is at rest.
        P = np.linalg.pinv(X) @ X
        # The loss has fallen to 1e-11, and E to its root over the least singular value of X.
        least = np.linalg.svd(X, compute_uv=False)[-1] / np.sqrt(len(X))
        left = (2 * inside[-1]) ** 0.5 / least + tolerance.rounding(8, operations=100)
        np.testing.assert_allclose(A @ B, P @ T, rtol=0, atol=left)


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0, 4.0])
def test_damping_with_a_scale(s: float) -> None:
    """(BBᵀ + λI)⁻¹ of the method's own B is s(B̄B̄ᵀ + sλI)⁻¹ in the units of √s B."""
    problem = lt.sample_linear(
        d=14, k=9, true_rank=2, samples=280, condition_number=8.0, seeds=(0,)
    )
    X, T = np.sqrt(14) * root(problem.covariance.matrix[0].numpy(), 0.5), problem.shift.dense()[0]
    method = lt.methods.lora_one_preconditioned(scale=s)
    near = lt.predict.contraction(problem, method, rank=2, damping=0.05)
    assert any("damped" in note for note in near.notes)
    A, B = (part / np.sqrt(s) for part in best_fit(X, T.numpy(), 2))
    mu = moving_modes(X, T.numpy(), A, B, "preconditioned", s, 0.05)
    np.testing.assert_allclose(near.extremes[0].numpy(), mu[[0, -1]], rtol=DIFFERENCES)
    handed = lt.Factors(*map(torch.from_numpy, (A, B)))
    there = lt.predict.contraction(problem, method, rank=2, damping=0.05, solution=handed)
    np.testing.assert_allclose(there.extremes[0].numpy(), mu[[0, -1]], rtol=DIFFERENCES)


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_damped_lora_pro_is_its_rule_differenced(s: float) -> None:
    problem = lt.sample_linear(d=7, k=4, true_rank=2, samples=70, condition_number=3.0, seeds=(0,))
    method, eta, h = lt.methods.lora_pro(scale=s), 0.1, 1e-5
    at = lt.Factors(*(part / s**0.5 for part in lt.predict.pair_solution(problem, rank=2)))
    near = lt.predict.contraction(problem, method, rank=2, damping=0.05, solution=at)
    R = torch.linalg.svd(problem.shift.dense()[0]).Vh[:2]
    rule = method.rule(eta, 0.05)

    def one(z: torch.Tensor) -> torch.Tensor:
        params = (z[:14].reshape(1, 7, 2), (z[14:].reshape(2, 2) @ R)[None])
        gradients = problem.gradients(method.parametrisation.shift(params, ()))
        pulled = method.parametrisation.pullback(params, (), gradients)
        A, B = rule.update(params, pulled, rule.init(params))[0]
        return torch.cat([A.flatten(), (B[0] @ R.T).flatten()])

    z = torch.cat([at.A.flatten(), (at.B[0] @ R.T).flatten()])
    eye = torch.eye(len(z), dtype=z.dtype)
    columns = [(one(z + h * e) - one(z - h * e)) / (2 * h) for e in eye]
    mu = (1 - np.linalg.eigvals(torch.stack(columns, 1).numpy()).real) / eta
    mu = np.sort(mu[mu > 1e-6 * mu.max()])
    np.testing.assert_allclose(near.extremes[0].numpy(), mu[[0, -1]], rtol=DIFFERENCES)


def test_superfluous_directions_of_a_run_are_at_rest() -> None:
    """r > r* from a large LoRA-init, GD: at run.final, to 2 % of 1 − rate of a longhand loop."""
    problem = lt.sample_linear(d=12, k=10, true_rank=2, samples=120, seeds=(0,))
    method = lt.methods.lora(init_std=0.5)
    with_note = lt.predict.contraction(problem, method, rank=4)
    assert torch.isnan(with_note.extremes).all()
    eta = 0.1
    run = lt.simulate(problem, method, rank=4, learning_rate=eta, steps=3000, record=("error",))
    near = lt.predict.contraction(problem, method, rank=4, solution=run.final)
    X, T = np.sqrt(12) * root(problem.covariance.matrix[0].numpy(), 0.5), problem.shift.dense()[0]
    A, B = (part[0].numpy() for part in run.initial)
    size = []
    for _ in range(3000):
        A, B = step(X, T.numpy(), A, B, eta=eta)
        size.append(np.linalg.norm(X @ (A @ B - T.numpy())))
    inside = np.array(size)
    first, last = (int(np.argmax(inside < bound)) for bound in (1e-7, 1e-11))
    measured = (inside[last] / inside[first]) ** (1 / (last - first))
    predicted = float(near.rate(eta))
    assert predicted < 1
    assert measured == pytest.approx(predicted, abs=0.02 * (1 - predicted))


def test_a_rank_that_holds_every_target() -> None:
    """r = min(d, k): PiSSA, MiLoRA and LoRA-One-early meet their targets, whatever the offset."""
    problem = lt.sample_linear(d=6, k=3, true_rank=2, samples=60)
    for name in ("pissa", "milora", "lora-one-early", "olora"):
        found = lt.predict.summary(problem, name, 3)
        assert float(found.floor) == 0
        assert torch.isfinite(found.local_rate).all() or found.notes


def test_other_models_are_refused_by_name() -> None:
    relu = lt.sample_relu_population(d=6, k=5, true_rank=1, relative_shift=0.1)
    factors = lt.Factors(torch.zeros(6, 1).double(), torch.zeros(1, 5).double())
    for call in (
        lambda: lt.predict.contraction(relu, "lora", rank=1),
        lambda: lt.predict.floor(relu, "lora", rank=1),
        lambda: lt.predict.pair_floor(relu, rank=1),
        lambda: lt.predict.pair_solution(relu, rank=1),
        lambda: lt.predict.summary(relu, "lora", 1),
        lambda: lt.predict.plateau(relu),
        lambda: lt.predict.tangent_extremes(relu),
        lambda: lt.predict.local_rate(relu, learning_rate=0.1),
        lambda: lt.predict.largest_stable_step(relu),
        lambda: lt.predict.best_step(relu),
        lambda: lt.predict.rates(relu, factors),
        lambda: lt.predict.linearised(relu, factors, 0.1, [1]),
        lambda: lt.predict.linearised_alignment(relu, factors, 0.1, [1]),
    ):
        with pytest.raises(TypeError, match=r"linear model.*; got ReLUPopulation; predict\.relu"):
            call()


def test_bad_arguments_have_one_clear_error() -> None:
    problem = lt.sample_linear(d=6, k=5, true_rank=2, samples=60)
    at = lt.predict.pair_solution(problem, rank=2)
    predict, nan = lt.predict, math.nan
    rows = [
        (lambda: predict.pair_floor(problem, rank=-1), "rank must be >= 1"),
        (lambda: predict.pair_solution(problem, rank=6), "1 <= rank <= min"),
        (lambda: predict.contraction(problem, "lora", rank=0), "rank must be >= 1"),
        (lambda: predict.contraction(problem, "lora", rank=2, damping=-1), "damping must be"),
        (lambda: predict.summary(problem, "lora", 2, learning_rate=nan), "learning_rate must be"),
        (lambda: predict.summary(problem, "lora", 2, learning_rate=-1), "learning_rate must be"),
        (lambda: predict.local_rate(problem, learning_rate=-1.0), "learning_rate must be"),
        (lambda: predict.contraction(problem, "full", rank=2).rate(nan), "learning_rate must be"),
        (
            lambda: predict.contraction(problem, "full", rank=2).rate(torch.tensor([-1.0])),
            "learning_rate must be",
        ),
        (lambda: predict.linearised(problem, at, -1.0, [1]), "learning_rate must be"),
        (lambda: predict.linearised(problem, at, 0.1, [-1]), "steps must be >= 0"),
        (lambda: predict.alignment_time(10, -0.1, 0.1, 1.0), "theta must be"),
        (lambda: predict.alignment_time(0, 0.1, 0.1, 1.0), "d must be >= 1"),
        (lambda: predict.alignment_time(10, 0.1, 0.1, -1.0), "singular_value must be"),
        (
            lambda: predict.contraction(problem, "lora", rank=2, solution=lt.Factors(at.B, at.A)),
            "solution must be A",
        ),
        (
            lambda: predict.contraction(
                problem, "lora", rank=2, solution=lt.Factors(2 * at.A, at.B)
            ),
            "a solution is stationary",
        ),
        (
            lambda: predict.contraction(problem, "full", rank=2, solution=at),
            "trains full; leave solution out",
        ),
        (lambda: predict.rates(problem, at, momentum=1.0), "momentum must satisfy"),
        (lambda: predict.rates(problem, at, scale=0.0), "scale must be"),
        (lambda: predict.tangent_extremes(problem, "adam"), "rule must be one of"),
        (lambda: predict.relu.sublinear(0.1, damping=0.1, rank=3, true_rank=2, t=-1), "t must be"),
        (lambda: predict.relu.gd_rate(0.1, condition_number=0.5), "condition_number must be >= 1"),
        (lambda: predict.relu.first_error(0.1, 1.0, samples=-1, d=3), "samples must be >= 1"),
        (lambda: predict.relu.first_error(0.1, 1.0, samples=3, d=0), "d must be >= 1"),
        (lambda: predict.relu.deficient_floor(torch.tensor([1.0]), 0), "rank must be >= 1"),
        (lambda: predict.relu.deficient_floor(torch.tensor([nan]), 1), "spectrum must be"),
        (lambda: predict.relu.deficient_rate(0.1, torch.tensor([1.0, 2.0]), 1), "descending"),
    ]
    for call, message in rows:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"solution must be a Factors"):
        predict.contraction(problem, "lora", rank=2, solution=1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"rank must be an integer"):
        predict.pair_floor(problem, rank=1.5)  # type: ignore[arg-type]


def test_a_rule_of_ones_own_has_its_own_note() -> None:
    """What a rule does not state is not predicted, and the note does not speak of Adam."""
    problem = lt.sample_linear(d=6, k=5, true_rank=2, samples=60)

    def signed(learning_rate: float, damping: float = 0.0) -> lt.Rule:
        def update(params, gradients, state):
            pairs = zip(params, gradients, strict=True)
            return tuple(P - learning_rate * G.sign() for P, G in pairs), state

        return lt.Rule(lambda params: None, update)

    found = lt.predict.contraction(
        problem, lt.methods.lora().with_rule(signed, name="sign"), rank=2
    )
    assert torch.isnan(found.extremes).all()
    assert found.notes == (
        "no rate: the rule does not state how it acts near a solution (Rule.local)",
    )
