"""Predictions under label noise, other covariances and other ensembles, against runs and numpy."""

import math
import re

import numpy as np
import pytest
import torch
from tolerance import deviates, near, rounding

import loraone_theory as lt
from loraone_theory.cli import main
from loraone_theory.core.factors import Factors
from loraone_theory.predict import modes
from loraone_theory.predict.ahead import outlook_beside
from loraone_theory.predict.compare import compare
from loraone_theory.predict.noiseless import noiseless

# Condition numbers of C on what it sees are below 10² in these draws, N = 9 included, and solutions
# of systems with Σ̂ lose their square; no sum is longer than N = 240.
WORST = 1e2
CLOSE = near(240, scale=10.0, operations=10, condition=WORST**2)
# A run is taken to have converged once its distance has fallen to this share.
DOWN = 1e-5
# Lanczos iteration stops at 1e-8 of the largest eigenvalue, and its ends are known to ten times it.
LANCZOS = 1e-7
SIZES = {"d": 12, "k": 10, "true_rank": 2, "spectrum": (1.0, 0.6)}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


def noisy(form: str, N: int = 200, seeds=(0, 1)) -> lt.LinearProblem:
    options = {"samples": N, "noise_std": 0.2, "seeds": seeds}
    if form == "dense":
        return lt.sample_linear(**SIZES, **options)
    spikes = (2.0, 0.5) if form == "banded" else None
    return lt.sample_linear_matrix_free(**SIZES, **options, spikes=spikes)


@pytest.mark.parametrize("N", [200, 9])
@pytest.mark.parametrize("form", ["dense", "tridiagonal", "banded"])
def test_noise_is_another_shift(form: str, N: int) -> None:
    """Same gradients, and a loss less by a constant: ½‖(I − CC†)Z̃‖² + c."""
    problem = noisy(form, N)
    other = noiseless(problem)
    gaps = []
    for seed in range(3):
        F = Factors(draw(2, 12, 3, seed=seed), draw(2, 3, 10, seed=seed))
        for one, two in zip(problem.gradients(F), other.gradients(F), strict=True):
            torch.testing.assert_close(one, two, **CLOSE)
        gaps.append(problem.loss(F) - other.loss(F))
    torch.testing.assert_close(gaps[0], gaps[1], **CLOSE)
    torch.testing.assert_close(gaps[0], gaps[2], **CLOSE)
    full = lt.predict.floor(problem, "full", rank=2)
    torch.testing.assert_close(full, gaps[0], **CLOSE)


def test_floors_are_least_squares() -> None:
    """A R B with frozen A, B, and pairs, over the rows themselves."""
    problem = lt.sample_linear(**SIZES, samples=40, noise_std=0.4, seeds=(3,), keep_inputs=True)
    X, W = problem.inputs[0].numpy(), problem.pretrained[0].numpy()
    Y = X @ problem.shift.dense()[0].numpy() + problem.row_noise[0].numpy()
    for name in ("lora-xs", "lora-sb"):
        A, B = (M[0].numpy() for M in lt.METHODS[name]().init(problem, 3, (3,)).frozen)
        columns = np.kron(X @ A, B.T)
        left = Y.ravel() - columns @ np.linalg.lstsq(columns, Y.ravel(), rcond=None)[0]
        found = float(lt.predict.floor(problem, name, rank=3, seeds=(3,)))
        assert found == pytest.approx((left @ left) / 80, rel=CLOSE["rtol"])
    Q, _ = np.linalg.qr(X)
    inside = np.linalg.svd(Q.T @ Y, compute_uv=False)
    beside = np.linalg.norm(Y - Q @ (Q.T @ Y)) ** 2
    for name, rank in (("full", 10), ("lora-one", 3)):
        expected = (beside + (inside[rank:] ** 2).sum()) / 80
        assert float(lt.predict.floor(problem, name, rank=3)) == pytest.approx(
            expected, rel=CLOSE["rtol"]
        )
    W_floor = float(lt.predict.floor(problem, "pissa", rank=3))
    offset = np.linalg.svd(W)[0][:, :3]
    kept = W - offset @ (offset.T @ W)  # W_f, from which AB starts
    inside = np.linalg.svd(Q.T @ (Y - X @ (kept - W)), compute_uv=False)
    assert W_floor == pytest.approx((beside + (inside[3:] ** 2).sum()) / 80, rel=CLOSE["rtol"])


@pytest.mark.parametrize("covariance", [None, "diagonal"])
def test_noisy_runs_reach_their_floors_at_their_rates(covariance: str | None) -> None:
    law = None if covariance is None else torch.linspace(0.6, 1.8, 12).double()
    problem = lt.sample_linear(**SIZES, samples=240, noise_std=0.1, covariance=law, seeds=(0, 1))
    names = ["full", "lora-one", "lora-one-preconditioned", "lora-pro", "lora-xs", "pissa", "lora"]
    for row in compare(problem, rank=2, steps=400, seeds=(0, 1), names=names).rows:
        assert not row.status.startswith("undefined"), row.status
        assert np.isfinite(row.initial_error).all()
        # The floor and the loss are sums of 10·12 and more squares.
        assert (row.reached >= row.floor * (1 - rounding(240, operations=10))).all()
        if row.method in ("full", "lora-one", "lora-one-preconditioned"):
            assert row.chosen_by == "prediction"
            assert row.status == "converged"
            # Measured over the later half of the way down to 1e-6, where one mode is left; a pair
            # under GD is unbalanced by O(η²). Tails from generic starts are faster, never slower.
            assert (row.rate <= row.predicted_rate * 1.02).all()
            assert (row.rate >= row.predicted_rate * 0.85).all(), row.method


def test_labels_alone() -> None:
    """Without Δ: floors and rates as with it, no initial error, and why."""
    made = lt.sample_linear(**SIZES, samples=200, noise_std=0.2, seeds=(0,), keep_inputs=True)
    X, Y = made.inputs[0], (made.inputs @ made.shift.dense() + made.row_noise)[0]
    alone = lt.LinearProblem.from_data(X, labels=Y)
    for name in ("full", "lora-one", "lora-one-preconditioned"):
        one, two = (lt.predict.summary(p, name, 2) for p in (alone, made))
        for field in ("floor", "best_step", "local_rate", "largest_stable_step"):
            torch.testing.assert_close(getattr(one, field).reshape(1), getattr(two, field), **CLOSE)
        assert torch.isnan(one.initial_error).all()
        assert torch.isfinite(two.initial_error).all()
        assert any("not known" in note for note in one.notes)
    row = compare(alone, rank=2, steps=300, names=["lora-one-preconditioned"]).rows[0]
    assert row.status == "converged"
    assert np.isnan(row.initial_error).all()


def test_the_plateau_under_noise_and_other_covariances() -> None:
    problem = noisy("dense", 60)
    gaps = []
    for eta in (0.3, 0.1):
        run = lt.simulate(
            problem, "lora", rank=4, learning_rate=eta, steps=6000, init_std=1e-6, every=6000,
            record=("left_alignment",), seeds=(0, 1),
        )  # fmt: skip
        gaps.append((run["left_alignment"][-1] - lt.predict.plateau(problem, rank=4)).abs())
    # What is left is the imbalance of finite steps, O(η²) each and O(η) in all: 3 times less at a
    # third of the step.
    assert (gaps[0] < 0.3**2 / 10).all()
    assert (gaps[1] < gaps[0] / 2).all()
    with pytest.raises(ValueError, match=r"pass rank=r"):
        lt.predict.plateau(problem)
    law = torch.linspace(0.5, 2.0, 12).double()
    many = lt.sample_linear(**SIZES, samples=10**6, covariance=law)
    U = torch.linalg.qr(many.shift.A[0]).Q
    V = torch.linalg.qr(law[:, None] * many.shift.A[0]).Q
    expected = torch.linalg.svdvals(V - U @ (U.T @ V))[0]
    # Σ̂ is within a few √(d/N) = 3.5e-3 of Σ.
    assert float(lt.predict.plateau(many)[0]) == pytest.approx(float(expected), abs=0.02)


def test_linearised_dynamics_with_every_triplet() -> None:
    """HᵗZ₀ over all of G's singular values, against powers of the matrix."""
    problem = noisy("dense", 60, seeds=(0,))
    start = Factors(draw(1, 12, 3), draw(1, 3, 10))
    found = lt.predict.linearised(problem, start, 0.1, [7])
    G = problem.one_step_gradient().dense()[0]
    H = torch.eye(22).double()
    H[:12, 12:], H[12:, :12] = 0.1 * G, 0.1 * G.T
    Z = torch.linalg.matrix_power(H, 7) @ torch.cat([start.A[0], start.B[0].T])
    torch.testing.assert_close(found.A[0, 0], Z[:12], **CLOSE)
    torch.testing.assert_close(found.B[0, 0], Z[12:].T, **CLOSE)


def test_noise_floors_in_another_metric() -> None:
    """400 noises on one X with Σ ≠ I, σ = 0.01: the mean risk ½tr(EᵀΣE) of the best rank-2 fit."""
    sigma, law = 0.01, torch.linspace(0.4, 3.0, 12).double()
    made = lt.sample_linear(**SIZES, samples=120, covariance=law, keep_inputs=True)
    X, shift = made.inputs[0], made.shift.dense()[0]
    P, C = torch.linalg.qr(X / 120**0.5)
    Z = sigma * draw(400, 120, 10)
    U, S, Vh = torch.linalg.svd(C @ shift + P.T @ Z / 120**0.5, full_matrices=False)
    best = torch.linalg.solve(C, (U[..., :2] * S[:, None, :2]) @ Vh[:, :2])
    E = best - shift
    risk = 0.5 * (E * (law[:, None] * E)).sum((-2, -1))
    predicted = float(lt.predict.noise_floor(made, noise_std=sigma))
    # First order in σ: what it leaves is the square of the edge σ(√d + √k)/√N over λ* = .6.
    left = 10 * (sigma * (12**0.5 + 10**0.5) / 120**0.5 / 0.6) ** 2
    allowed = deviates() * float(risk.std()) / 20
    assert abs(float(risk.mean()) - predicted) <= allowed + left * predicted
    isotropic = lt.predict.noise_floor(lt.LinearProblem.from_data(X, shift=shift), noise_std=sigma)
    assert abs(float(isotropic) / predicted - 1) > 0.1


ENSEMBLES = {
    "dense": (90, {}),
    "rank-one": (150, {}),
    "multi-response": (300, {}),
    "completion": (80, {"replace": False}),
    "single-response": (260, {}),
}


@pytest.mark.parametrize("rule", ["gd", "preconditioned"])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_below_the_edge_runs_converge_above_they_leave(ensemble: str, rule: str) -> None:
    """From 1e-4 beside the solution, at .97 and at 1.03 of 2/μ_max.

    Above the edge the solution repels; under GD runs stay near, most on a bounded orbit, the others
    at less balanced factors with AB = Δ whose own edge is above η.
    """
    m, more = ENSEMBLES[ensemble]
    method = "lora-one" if rule == "gd" else "lora-one-preconditioned"
    for seed in (1, 2):
        problem = lt.sample_sensing(
            ensemble=ensemble, d=10, k=10, true_rank=2, measurements=m, seeds=(seed,), **more
        )
        near = lt.predict.measured_contraction(problem, method, rank=2)
        assert near.notes == ()
        U, S, V = lt.linalg.truncated_svd(problem.shift, 2)
        root = S.sqrt()
        start = Factors(
            U * root[..., None, :] + 1e-4 * draw(1, 10, 2),
            root[..., None] * V.mT + 1e-4 * draw(1, 2, 10),
        )
        edge = float(near.largest_stable_step)
        run = lt.simulate(
            problem, method, rank=2, learning_rate=[0.97 * edge, 1.03 * edge], steps=1200,
            initial=start, record=("error",),
        )  # fmt: skip
        below, above = run["error"][:, :, 0].unbind(1)
        assert float(below[-1]) < DOWN * float(below[0])
        assert float(below.max()) < 3 * float(below[0])
        # A mode that grows by 1.06 a step meets the quadratic terms at a few per cent of ‖Δ‖ = √2.
        assert not float(above.max()) < 0.03
        if rule == "gd":
            assert float(above.max()) < 0.5
            if float(above[-1]) < DOWN * float(above[0]):
                end = Factors(*(M[1] for M in run.final))
                assert float(lt.predict.rates(problem, end).largest_stable_step) >= 1.03 * edge


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_lanczos_and_lapack_give_the_same_rates(
    ensemble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, more = ENSEMBLES[ensemble]
    problem = lt.sample_sensing(
        ensemble=ensemble, d=10, k=10, true_rank=2, measurements=m, seeds=(1,), **more
    )
    for method in ("lora-one", "lora-one-preconditioned"):
        dense = lt.predict.measured_contraction(problem, method, rank=2).extremes
        with monkeypatch.context() as patch:
            patch.setattr("loraone_theory.predict.modes.DENSE_SIZE", 1)
            free = lt.predict.measured_contraction(problem, method, rank=2).extremes
        # Lanczos stops at 1e-8 of the largest.
        torch.testing.assert_close(free, dense, rtol=0, atol=LANCZOS * float(dense.max()))


def test_a_small_eigenvalue_is_found_by_a_few_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise beyond r* has modes far slower than the others: LAPACK's, to 1e-8 of their own size."""
    problem = noisy("dense")
    dense = lt.predict.contraction(problem, "lora-one", rank=5).extremes
    assert float((dense[:, 0] / dense[:, 1]).min()) < 1e-2
    monkeypatch.setattr(modes, "DENSE_SIZE", 1)
    monkeypatch.setattr(modes, "_lanczos", None)  # is not called
    found = lt.predict.contraction(problem, "lora-one", rank=5).extremes
    torch.testing.assert_close(found, dense, rtol=LANCZOS, atol=0)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_methods_that_end_alike_share_what_is_found(rank: int) -> None:
    """To the last bit what each has on its own, in any order."""
    problem, known = noisy("dense"), {}
    for name in (*lt.METHODS, "lora-one", "lora"):
        alone = lt.predict.outlook(problem, name, rank=rank)
        beside = outlook_beside(problem, name, rank=rank, seeds=None, known=known)
        for part in ("extremes", "momentum", "moving"):
            ours, theirs = getattr(beside.near, part), getattr(alone.near, part)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
        np.testing.assert_array_equal(beside.floor, alone.floor)
        assert beside.notes == alone.notes
    assert len(known) < len(lt.METHODS)


def test_what_sensing_does_not_predict_is_told() -> None:
    sizes = {"ensemble": "dense", "d": 6, "k": 5, "true_rank": 2, "measurements": 90}
    exact = lt.sample_sensing(**sizes)
    # Fewer measurements than a matrix of rank 2 has dimensions: many fit best.
    noise = lt.sample_sensing(**(sizes | {"measurements": 15}), noise_std=0.1)
    blind = lt.SensingProblem.from_data(exact.operator, exact.labels)
    for problem, method, rank, message in [
        (noise, "lora-one", 2, "label noise moves"),
        (blind, "lora-one", 2, "true shift is not known"),
        (exact, "lora-one", 3, "r > r\\* without noise"),
        (exact, "lora-ga", 2, "train A and B without an offset"),
        (exact, "lora-adamw", 2, "Adam"),
        (exact, "lora-momentum", 2, "momentum does not conserve"),
    ]:
        near = lt.predict.measured_contraction(problem, method, rank=rank)
        assert torch.isnan(near.extremes).all()
        assert re.search(message, near.notes[0])
    for problem in (exact, noise, blind):
        for row in compare(
            problem, rank=2, steps=200, names=["lora-one-preconditioned", "lora-adamw"]
        ).rows:
            assert row.learning_rate > 0
            assert np.isfinite(row.reached).all()
            # As few noisy labels are met to rounding, in squares of sums of 15 terms.
            low = row.floor <= (0 if problem is exact else rounding(15, operations=10) ** 2)
            assert (np.isnan(row.floor) if problem is blind else low).all()
            predicted = problem is exact and row.method != "lora-adamw"
            assert math.isfinite(row.predicted_rate[0]) == predicted
            if predicted:
                assert row.rate[0] == pytest.approx(row.predicted_rate[0], rel=0.05)


def test_the_command_compares_on_noisy_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "lora-one", "--d", "8", "--k", "6", "--rank", "2", "--true-rank", "2",
                 "--steps", "30", "--noise-std", "0.2"]) == 0  # fmt: skip
    assert "lora-one" in capsys.readouterr().out
    assert main(["compare", "lora-one", "--model", "relu", "--noise-std", "0.2"]) == 2
    assert "--noise-std is of the labels of samples" in capsys.readouterr().err
