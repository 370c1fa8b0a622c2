"""Values of predictions, of runs and of verdict files in corners, by longhand.

Each holds one or more small faults that all other tests let through (tests/mutants.py).
"""

import dataclasses
import importlib
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from longhand import close, normal
from tolerance import deviates, rounding

import loraone_theory as lt
from loraone_theory import predict
from loraone_theory.claims import Draws, Evidence, Finding, values
from loraone_theory.claims.verdict import Store, Verdict
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics import curvature, online, rates, recorder
from loraone_theory.dynamics.batches import Minibatches
from loraone_theory.predict import (
    ahead,
    checks,
    curves,
    flow,
    noise,
    relu,
    stationary,
    stochastic,
    tuning,
)
from loraone_theory.predict.compare import compare
from loraone_theory.predict.noiseless import noiseless
from loraone_theory.predict.seen import seen
from loraone_theory.predict.summary import UNKNOWN
from loraone_theory.problems.linear.covariance import (
    Covariance,
    Dense,
    Diagonal,
    Rows,
    Tridiagonal,
)

# --- loss curves


def test_distances_and_when_they_are_small() -> None:
    loss = np.array([[5.0, 3.0], [2.0, math.nan], [0.5, math.nan]])
    found = curves.distance(loss, np.array([1.0, 2.0]))
    # The last loss of the first run is below its floor.
    np.testing.assert_array_equal(found, [[1.0, 1.0], [0.5, np.inf], [0.0, np.inf]])
    np.testing.assert_array_equal(curves.reached(found, 0.5), [1.0, np.nan])
    np.testing.assert_array_equal(curves.reached(found, 1.0), [0.0, 0.0])


def test_the_measured_rate_is_that_of_the_later_half_of_the_way() -> None:
    # The seventh is not there yet: a millionth of the first is what counts.
    late = [1.0, 0.5, 0.25, 0.125, 0.0625, 6.25e-4, 1.05e-6, 6.25e-8, 1e-12, 1e-12]
    never = [0.5**t for t in range(10)]
    gone = [1.0, 2.0, 4.0, *[math.inf] * 7]
    at_once = [1.0, *[0.0] * 9]
    found = curves.measured_rate(np.array([late, never, gone, at_once]).T)
    # From t = 3 to 7; from 4 to 9. The others have none.
    expected = [(6.25e-8 / 0.125) ** (1 / 4), 0.5]
    assert found[:2].tolist() == pytest.approx(expected, rel=rounding(8))
    assert np.isnan(found[2:]).all()


@pytest.mark.parametrize("options", [{}, {"start": 0.5}])
def test_a_decay_begins_where_the_run_is_near(options: dict[str, float]) -> None:
    """At the first distance of a tenth; every second step is recorded."""
    steps = np.arange(0, 12, 2)
    # The root of 0.0992/9 is 0.105.
    runs = np.array([[9.0, 1.0, 0.0992, 0.04, 0.01, 0.0], [1.0] * 6]).T
    floor, rate = np.array([0.5, 0.25]), np.array([0.9, 0.8])
    found = curves.decay(steps, runs + floor, floor, rate, **options)
    share = options.get("start", 0.1)
    first = next(i for i in range(6) if math.sqrt(runs[i, 0] / runs[0, 0]) <= share)
    assert first == (3 if not options else 1)
    for i in range(6):
        if i < first:
            assert math.isnan(found[i, 0])
        else:
            expected = 0.5 + runs[first, 0] * 0.9 ** (2 * (2 * i - 2 * first))
            assert found[i, 0] == pytest.approx(expected, rel=rounding(24))
    assert np.isnan(found[:, 1]).all()


def test_the_grid_of_step_sizes() -> None:
    assert tuning.GRID == (
        1 / 512, 1 / 256, 1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0,
    )  # fmt: skip


# --- what is predicted before a run


def test_what_a_method_cannot_do_is_a_row_of_every_size() -> None:
    problem = lt.sample_linear(d=9, k=8, true_rank=2, samples=90, seeds=(0, 1, 2))
    row = compare(problem, rank=8, steps=5, names=["lora-ga"]).rows[0]
    for name in ("loss", "error"):
        assert getattr(row, name).shape == (6, 3)
        assert np.isnan(getattr(row, name)).all()
    for name in ("initial_error", "floor", "reached", "predicted_rate", "rate", "steps"):
        assert getattr(row, name).shape == (3,)
        assert np.isnan(getattr(row, name)).all()
    assert math.isnan(row.learning_rate)


def test_the_best_step_of_several_instances_is_the_least() -> None:
    problem = lt.sample_linear(d=9, k=8, true_rank=2, samples=40, seeds=range(4))
    found = predict.outlook(problem, "full", rank=2)
    spectra = problem.covariance.spectrum("all")
    each = 2 / (spectra[:, 0] + spectra[:, -1])
    assert float(each.max() / each.min()) > 1.01  # or this could not fail
    # Eigenvalues are known to eps of the largest one, of which the smallest is a twentieth.
    allowed = rounding(9, operations=8, condition=float(spectra[:, -1].max() / spectra.min()))
    assert found.best_step == pytest.approx(float(each.min()), rel=allowed)


RELU = {"d": 8, "k": 6, "true_rank": 2, "relative_shift": 0.1}


@pytest.mark.parametrize(
    ("name", "rank", "floor", "notes"),
    [
        ("full", 1, 0.0, (ahead.NO_RELU_RATE,)),
        ("full-adamw", 1, 0.0, (ahead.NO_RELU_RATE,)),
        ("lora", 1, math.nan, (ahead.NO_RELU_FLOOR, ahead.NO_RELU_RATE)),
        ("lora", 2, 0.0, (ahead.NO_RELU_RATE,)),
        ("lora", 3, 0.0, (ahead.NO_RELU_RATE,)),
        ("lora-one-preconditioned", 2, 0.0, ()),
        ("lora-one-preconditioned", 3, 0.0, (ahead.NO_RELU_RATE,)),
        ("lora-one-preconditioned", 1, math.nan, (ahead.NO_RELU_FLOOR, ahead.NO_RELU_RATE)),
        ("lora-ga", 2, math.nan, (ahead.NO_RELU_FLOOR, ahead.NO_RELU_RATE)),
    ],
)
def test_floors_and_notes_in_the_relu_model(
    name: str, rank: int, floor: float, notes: tuple[str, ...]
) -> None:
    problem = lt.sample_relu_population(**RELU, seeds=(0, 1))
    found = predict.outlook(problem, name, rank=rank)
    np.testing.assert_array_equal(found.floor, [floor, floor])
    assert found.notes == notes
    assert bool(found.near.extremes.isnan().all()) == (ahead.NO_RELU_RATE in notes)


def test_nothing_is_predicted_of_noisy_labels_in_the_relu_model() -> None:
    problem = lt.sample_relu(**RELU, samples=60, noise_std=0.1, seeds=(0, 1))
    found = predict.outlook(problem, "lora-one-preconditioned", rank=2)
    assert np.isnan(found.floor).all()
    assert found.notes == (ahead.NOISY_RELU, ahead.NOISY_RELU_RATE)


@pytest.mark.parametrize(("room", "known"), [(28, True), (27, False)])
def test_rates_of_a_relu_problem_take_a_matrix_of_all_its_unknowns(
    monkeypatch: pytest.MonkeyPatch, room: int, known: bool
) -> None:
    """r*(d + k) = 2·(8 + 6) of them."""
    module = importlib.import_module("loraone_theory.predict.relu_contraction")
    monkeypatch.setattr(module, "DENSE_SIZE", room)
    problem = lt.sample_relu(**RELU, samples=400, seeds=(0, 1))
    found = module.relu_contraction(problem)
    assert found.extremes.shape == (2, 2)
    assert bool(found.extremes.isnan().any()) is not known
    expected = () if known else (module.TOO_LARGE.format(size=28),)
    assert found.notes == expected


@pytest.mark.parametrize("true_rank", [1, 2])
def test_the_initial_error_of_a_start_at_zero_is_the_shift(true_rank: int) -> None:
    problem = lt.sample_linear(d=7, k=5, true_rank=true_rank, samples=40, seeds=(0, 1))
    expected = torch.linalg.matrix_norm(problem.shift.dense())
    for name in ("full", "lora"):
        found = predict.summary(problem, name, 2)
        close(found.initial_error, expected, rounding(7, operations=8))
        assert UNKNOWN not in found.notes


def test_labels_alone_have_no_initial_error() -> None:
    problem = lt.LinearProblem.from_data(normal(30, 6), labels=normal(30, 5, seed=1))
    found = predict.summary(problem, "lora", 2)
    assert bool(found.initial_error.isnan().all())
    assert found.notes.count(UNKNOWN) == 1


# A prediction, its arguments, those whose least value they have, and the answer by longhand.
LEAST: list[tuple[Callable[..., Any], dict[str, Any], tuple[str, ...], float]] = [
    (
        predict.alignment_time,
        {"d": 1, "theta": 0.5, "learning_rate": 0.5, "singular_value": 2.0}, ("d",), 1.0,
    ),
    (relu.finite_rate, {"learning_rate": 0.5, "samples": 4, "d": 1}, ("d",), 0.9375),
    (
        relu.first_error,
        {"relative_shift": 0.0, "concentration": 2.0, "samples": 1, "d": 1},
        ("samples", "d"), 2.2,
    ),
    (
        relu.sublinear,
        {"learning_rate": 0.5, "damping": 0.25, "rank": 2, "true_rank": 1, "t": 1},
        ("t", "true_rank"), 0.5,
    ),
    (
        relu.sublinear,
        {"learning_rate": 0.5, "damping": 0.25, "rank": 3, "true_rank": 3, "t": 9}, ("rank",), 0.0,
    ),
    (relu.deficient_floor, {"spectrum": torch.tensor([5.0, 4.0, 3.0]), "rank": 1}, ("rank",), 5.0),
    (
        relu.deficient_rate,
        {"learning_rate": 0.5, "spectrum": torch.tensor([4.0, 3.0]), "rank": 1},
        ("rank",), 0.9375,
    ),
    (
        noise.mean_noise_floor,
        {"samples": 5, "d": 1, "k": 1, "rank": 1, "noise_std": 2.0}, ("d", "k", "rank"),
        # σ²/2N·[r·dN/(N − d − 1) + (k − r)·rN/(N − r − 1)]
        4 / 10 * 5 / 3,
    ),
    (noise.mean_full_floor, {"samples": 5, "d": 1, "k": 1, "noise_std": 2.0}, ("d", "k"), 2 / 3),
    (
        stochastic.gradient_variance,
        {"error": 3.0, "d": 1, "k": 1, "batch": 1, "noise_std": 2.0}, ("d", "k", "batch"), 22.0,
    ),
    (stochastic.largest_stable_rate, {"d": 1, "batch": 1}, ("d", "batch"), 2 / 3),
    (
        stochastic.stationary_error,
        {"d": 1, "k": 1, "batch": 1, "learning_rate": 0.5, "noise_std": 2.0},
        ("d", "k", "batch"), 4.0,
    ),
    (flow.balanced_descent, {"rate": 0.5, "start": 0.25, "steps": 0}, ("steps",), 0.25),
    (flow.preconditioned_descent, {"rate": 0.5, "start": 0.25, "steps": 0}, ("steps",), 0.25),
]  # fmt: skip


@pytest.mark.parametrize("row", LEAST, ids=lambda row: f"{row[0].__name__}-{'-'.join(row[2])}")
def test_predictions_at_the_least_sizes_and_below(
    row: tuple[Callable[..., Any], dict[str, Any], tuple[str, ...], float],
) -> None:
    function, arguments, names, expected = row
    # A few operations on single numbers.
    assert float(function(**arguments)) == pytest.approx(expected, rel=rounding(1, operations=16))
    for name in names:
        least = arguments[name]
        below = arguments | {name: least - 1}
        wanted = rf"\b{name} must be >= {least}; got {name}={least - 1}"
        with pytest.raises(ValueError, match=wanted):
            function(**below)


def test_rates_near_a_solution_need_a_shift() -> None:
    alone = lt.LinearProblem.from_data(normal(30, 6), labels=normal(30, 5, seed=1))
    with pytest.raises(ValueError, match=r"^true_rank must be >= 1; got"):
        predict.tangent_extremes(alone)


# --- inputs that leave directions out

HELD: dict[str, Callable[[torch.Tensor], Covariance]] = {
    "diagonal": Diagonal,
    "dense": lambda values: Dense(torch.diag(values)),
    "tridiagonal": lambda values: Tridiagonal.from_bidiagonal(
        values.sqrt(), values.new_zeros(len(values) - 1)
    ),
    "rows": lambda values: Rows(torch.diag((len(values) * values).sqrt())),
}


@pytest.mark.parametrize("form", HELD)
@pytest.mark.parametrize(("share", "left"), [(3, True), (30, False)])
def test_eigenvalues_of_rounding_are_no_samples(form: str, share: float, left: bool) -> None:
    """Below d·eps of the largest, d = 10, whatever form Σ̂ has; above, all directions are seen."""
    eps = torch.finfo(torch.float64).eps
    values = torch.ones(10).double()
    values[4] = share * eps
    problem = lt.LinearProblem(HELD[form](values), Factors(normal(10, 2), normal(2, 6, seed=1)))
    found = seen(problem)
    assert (found.basis is not None) is left
    if found.basis is not None:
        assert found.basis.shape == (10, 9)
        assert float(found.basis[4].abs().max()) <= rounding(10)


@pytest.mark.parametrize("rank", [2, 4])
def test_a_problem_on_the_rows_of_few_inputs(rank: int) -> None:
    """Q QᵀΔ for the row space of X, in factors of no more columns than that has dimensions."""
    X, shift = normal(3, 8), Factors(normal(8, rank, seed=1), normal(rank, 6, seed=2))
    problem = lt.LinearProblem(Rows(X), shift)
    found = seen(problem)
    assert found.basis is not None
    P = X.mT @ torch.linalg.solve(X @ X.mT, X)
    # X has singular values within a factor of 5, whose square P has to invert.
    allowed = rounding(8, operations=16, condition=25)
    close(found.basis @ found.basis.mT, P, allowed)
    close(found.basis @ found.problem.shift.dense(), P @ shift.dense(), 8 * allowed)
    assert found.problem.shift.rank == min(rank, 3)
    A = normal(8, 2, seed=3)
    assert not found.unseen(P @ A)
    assert found.unseen(A)
    assert found.unseen(torch.stack([P @ A, A]))
    assert not seen(lt.LinearProblem(Dense(torch.eye(8).double()), shift)).unseen(A)
    # Rounding is what is below √eps of a column's length.
    inner, outer = (
        M / torch.linalg.matrix_norm(M) for M in (P @ A[:, :1], A[:, :1] - P @ A[:, :1])
    )
    for share, unseen in ((0.5, False), (2.0, True)):
        assert found.unseen(inner + share * 2.0**-26 * outer) is unseen


@pytest.mark.parametrize("N", [4, 12])
def test_noisy_labels_are_those_of_the_shift_that_fits_them_best(N: int) -> None:
    """Δ + X⁺Z by numpy's pseudo-inverse, also for fewer samples than inputs."""
    X, Y, shift = normal(N, 7), normal(N, 5, seed=1), Factors(normal(7, 2), normal(2, 5, seed=2))
    problem = lt.LinearProblem.from_data(X, labels=Y, shift=shift)
    found = noiseless(problem)
    Z = (Y - X @ shift.dense()).numpy()
    expected = shift.dense().numpy() + np.linalg.pinv(X.numpy()) @ Z
    size = np.linalg.norm(expected)
    # Singular values of X are within a factor of 30; a product and two decompositions.
    allowed = rounding(12, operations=16, condition=30 * np.linalg.norm(Z) / size)
    assert np.linalg.norm(found.shift.dense().numpy() - expected) <= allowed * size
    assert (found.noise, found.noise_std) == (None, 0.0)


def test_a_learning_rate_of_zero_is_refused_wherever_one_is_predicted_for() -> None:
    problem = lt.sample_linear(d=6, k=5, true_rank=2, samples=60)
    calls: list[Callable[[], object]] = [
        lambda: predict.summary(problem, "lora", 2, learning_rate=0),
        lambda: predict.local_rate(problem, learning_rate=0),
        lambda: checks.step_size(0.0),
        lambda: relu.sublinear(0.0, damping=1e-3, rank=3, true_rank=2, t=5),
        lambda: predict.alignment_time(100, 0.5, 0.0, 2.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="learning_rate must be finite and > 0; got"):
            call()


# --- what counts as a solution


@pytest.mark.parametrize(
    ("ranks", "interpolates", "refused"),
    [((2, 2), False, False), ((1, 2), False, True), ((2, 1), False, True), ((1, 1), True, False)],
)
def test_a_saddle_is_short_of_rank_on_either_side(
    ranks: tuple[int, int], interpolates: bool, refused: bool
) -> None:
    tangent: Any = SimpleNamespace(A=normal(5, 2), ranks=ranks)
    if refused:
        with pytest.raises(ValueError, match="this is a saddle of the loss"):
            stationary.refuse_saddle(interpolates, tangent)
    else:
        stationary.refuse_saddle(interpolates, tangent)


@pytest.mark.parametrize(("share", "refused"), [(0.95e-3, False), (1.05e-3, True)])
def test_a_solution_is_stationary_to_a_thousandth_in_every_instance(
    share: float, refused: bool
) -> None:
    """‖(∇_A, ∇_B)‖/(‖M‖(‖A‖ + ‖B‖)) of the second of two instances; the first one's is 0."""
    at = Factors(normal(2, 5, 2), normal(2, 2, 4, seed=1))
    gradient = Factors(normal(2, 5, 2, seed=2), normal(2, 2, 4, seed=3))
    scale = torch.tensor([2.0, 3.0]).double()
    length = math.sqrt(float(gradient.A[1].square().sum() + gradient.B[1].square().sum()))
    bound = 3.0 * float(at.A[1].square().sum() ** 0.5 + at.B[1].square().sum() ** 0.5)
    factor = torch.tensor([0.0, share * bound / length]).double()[:, None, None]
    moving = Factors(*(factor * M for M in gradient))
    if refused:
        with pytest.raises(ValueError, match=r"got 0\.0011; run longer"):
            stationary.refuse_moving(moving, at, scale)
    else:
        stationary.refuse_moving(moving, at, scale)


@pytest.mark.parametrize("bad", [[0.1, -1.0], [0.0, 1.0], [math.inf, 0.1], [-math.inf, 0.1]])
def test_every_step_size_is_positive_and_finite(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="learning_rate must be finite and > 0"):
        checks.step_size(torch.tensor(bad))
    good = torch.tensor([0.1, math.nan])
    torch.testing.assert_close(checks.step_size(good), good, equal_nan=True, rtol=0, atol=0)


# --- runs


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_curvature_is_as_good_at_every_scale(scale: float) -> None:
    """The largest of 90 eigenvalues, a tenth above the next, to ε^{2/3} of it."""
    values = torch.linspace(-1.0, 1.0, 90, dtype=torch.float64)
    values[-1] = 1.1
    found = curvature.largest_eigenvalue(
        lambda p: (scale * values[:, None] * p[0],), (torch.zeros(3, 90, 1, dtype=torch.float64),)
    )
    # Where the iteration ends; at θ = 0 the differences err by rounding alone.
    wrong = 4 * torch.finfo(torch.float64).eps ** (2 / 3)
    close(found / scale, torch.full((3,), 1.1, dtype=torch.float64), wrong)


def test_rates_and_schedules_may_be_mixed() -> None:
    half = lt.schedules.constant(0.5)
    found = rates.checked([0.25, half])
    assert found == [0.25, half]
    with pytest.raises(ValueError, match="learning_rate"):
        rates.checked([-0.25, half])
    assert rates.rebuilt(rates.described(found)) == found
    assert [rates.text(rate) for rate in (0.25, half)] == [0.25, "constant(0.5)"]
    problem = lt.sample_linear(d=6, k=5, true_rank=1, samples=40, seeds=(0, 1))
    run = lt.simulate(problem, "lora-one", rank=1, learning_rate=found, steps=3)
    for i, rate in enumerate((0.25, 0.5)):
        alone = lt.simulate(problem, "lora-one", rank=1, learning_rate=rate, steps=3)
        # Three steps of sums over N and d of terms of the losses' size.
        close(run["loss"][:, i], alone["loss"], rounding(46, operations=12))


def test_a_loss_that_takes_one_point_at_a_time_in_a_sweep() -> None:
    """Two rates and three seeds: the records of each run are those of it alone."""
    X = normal(12, 4)
    Y = torch.tanh(X @ normal(4, 3, seed=1))
    given = lt.from_loss(
        lambda W, x, y: (torch.tanh(x @ W) - y).square().mean(), d=4, k=3, data=(X, Y)
    )
    options: dict[str, Any] = {"rank": 2, "steps": 3, "record": ("loss", "gradient_norm")}
    whole = lt.simulate(given, "lora", learning_rate=[0.1, 0.4], seeds=(0, 1, 2), **options)
    for (i, rate), seed in itertools.product(enumerate((0.1, 0.4)), (0, 1, 2)):
        alone = lt.simulate(given, "lora", learning_rate=rate, seeds=(seed,), **options)
        for name in ("loss", "gradient_norm"):
            # Three steps of products over N + d; losses and gradients are below 1.
            close(whole[name][:, i, seed], alone[name][:, 0], rounding(16, operations=24))


@pytest.mark.parametrize("more", [1, 2, 4])
def test_what_was_recorded_last_is_dropped_where_it_is_not_its_turn(more: int) -> None:
    problem = lt.sample_linear(d=6, k=5, true_rank=1, samples=40)
    options: dict[str, Any] = {"rank": 1, "learning_rate": 0.2, "every": 3}
    found = lt.simulate(problem, "lora-one", steps=4, **options).extend(more)
    whole = lt.simulate(problem, "lora-one", steps=4 + more, **options)
    assert found.steps.tolist() == whole.steps.tolist()
    assert found["loss"].tolist() == whole["loss"].tolist()


def test_which_minibatches_are_all_of_one_size() -> None:
    for sampling, size, samples, even in [
        ("epochs", 4, 12, True), ("epochs", 5, 12, False), ("epochs", 12, 12, True),
        ("with-replacement", 5, 12, True), ("fresh", 4, None, False),
    ]:  # fmt: skip
        assert Minibatches(size, sampling, (0,), samples).even is even


# Of three runs at d = 12, k = 10, r = 2: 44 numbers of factors and 120 of residuals each.
STATE, RESIDUAL = 3 * 44 * 8, 3 * 120 * 8


@pytest.mark.parametrize(
    ("chunk", "room", "together"),
    [
        (1, 1 << 25, 1), (1 << 22, 1, 1), (1, 1, 1), (3 * STATE, 1 << 25, 3),
        (4 * STATE - 1, 4 * RESIDUAL, 3), (1 << 22, 5 * RESIDUAL, 5), (1 << 22, 1 << 25, 10),
    ],
)  # fmt: skip
def test_how_many_states_are_measured_together(
    monkeypatch: pytest.MonkeyPatch, chunk: int, room: int, together: int
) -> None:
    """As many as both bounds hold, of ten; one where it is larger than a bound."""
    problem = lt.sample_linear(d=12, k=10, true_rank=2, samples=60, seeds=(0, 1, 2))
    options: dict[str, Any] = {"rank": 2, "learning_rate": 0.1, "steps": 9, "reduce": "never"}
    whole = lt.simulate(problem, "lora-one", record=("error",), **options)
    counts: list[int] = []
    measured = lt.LinearProblem.residual

    def residual(self: lt.LinearProblem, shift: Factors) -> torch.Tensor:
        counts.append(shift.shape[:-2].numel())
        return measured(self, shift)

    monkeypatch.setattr(lt.LinearProblem, "residual", residual)
    monkeypatch.setattr(recorder, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(recorder, "RESIDUAL_BYTES", room)
    pieces = lt.simulate(problem, "lora-one", record=("error",), **options)
    assert max(counts) == 3 * together
    # Batched sums of 120 squares may run in another order.
    close(pieces["error"], whole["error"], rounding(120))


# --- online descent


def test_online_records_are_taken_every_so_many_steps() -> None:
    options: dict[str, Any] = {"d": 9, "k": 8, "rank": 2, "true_rank": 1, "batch": 4}
    options |= {"learning_rate": 0.05, "init_std": 0.3, "noise_std": 0.1, "seeds": (0, 1)}
    every = lt.simulate_online(**options, steps=7)
    assert every.steps.tolist() == list(range(8))
    third = lt.simulate_online(**options, steps=7, every=3)
    assert third.steps.tolist() == [0, 3, 6]
    for found, whole in zip(third[1:], every[1:], strict=True):
        np.testing.assert_array_equal(found, whole[::3])


@pytest.mark.parametrize(("rows", "kept"), [(1, 1), (3, 3), (4, 3), (9, 3)])
def test_a_gram_matrix_is_kept_in_few_rows(rows: int, kept: int) -> None:
    M = normal(rows, 3).numpy()
    found = online._upper(M)
    assert found.shape == (kept, 3)
    close(*map(torch.from_numpy, (found.T @ found, M.T @ M)), rounding(9, operations=16))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_noise_of_online_descent_fills_the_outputs_there_are(k: int) -> None:
    """From B₀ = 0 one step of r = r* = 1 has E‖AB₁ − Δ‖² = ‖A‖⁴η²σ²k/b at a large σ.

    The gradient of B is ‖A‖(ηz/b)(σZ − xλ) with z, x ~ N(0, I_b) and Z (b, k) of unit Gaussians.
    """
    b, eta, sigma, draws = 8, 0.1, 1e6, 2000
    run = lt.simulate_online(
        d=4, k=k, rank=1, true_rank=1, batch=b, learning_rate=eta, steps=1, init_std=1.0,
        noise_std=sigma, seeds=range(draws),
    )  # fmt: skip
    np.testing.assert_allclose(run.size[1], run.size[0], rtol=rounding(4, operations=8))
    shares = 2 * run.risk[1] / (run.size[0] ** 4 * eta**2 * sigma**2 * k / b)
    # The product of χ²_b/b and χ²_k/k, whose means are 1 and whose variances 2/b and 2/k.
    spread = math.sqrt(((1 + 2 / b) * (1 + 2 / k) - 1) / draws)
    assert abs(shares.mean() - 1) <= deviates(3) * spread


# --- verdicts


def verdict(**changed: Any) -> Verdict:
    given = {
        "id": "lora-one/linear/one-step", "finding": Finding.SUPPORTED,
        "expected": Finding.SUPPORTED, "reason": "-", "trials": 9, "inside": 9, "worst": 0.0,
        "confidence": 0.99, "mutant": Finding.VIOLATED, "mutant_reason": "-", "seed": 0,
        "smoke": False, "requested": 9, "seconds": 0.0,
    }  # fmt: skip
    return Verdict(**given | changed)


def test_which_verdicts_are_as_expected() -> None:
    """All combinations; a smoke run may be undecided, but must find its mutant out."""
    for smoke, finding, expected, mutant in itertools.product(
        (False, True), Finding, Finding, Finding
    ):
        found = verdict(smoke=smoke, finding=finding, expected=expected, mutant=mutant)
        right = finding is expected or (smoke and finding is Finding.INCONCLUSIVE)
        assert found.as_expected is (right and mutant is Finding.VIOLATED)


@pytest.mark.parametrize(("apart", "alone"), [(0.0, True), (1e-13, True), (1e-10, False)])
def test_a_draw_is_seen_again_alone_where_it_is_the_same_alone(apart: float, alone: bool) -> None:
    """To a relative 1e-12, since products of a batch may run in another order."""

    def measure(draws: Draws) -> Evidence:
        shaken = 1.0 if draws.trials == 1 else 1.0 + apart
        return Evidence(shaken * np.array([seed % 97 + 1.0 for seed in draws.seeds()]), 0.0)

    claim: Any = SimpleNamespace(id="made/up", kind="bound", measure=measure)
    draws = Draws(6, seed=2)
    evidence = measure(draws)
    index = int(np.argmax(evidence.lhs))
    found = values.worst(claim, evidence, draws)
    assert (found["index"], found["rhs"]) == (index, 0.0)
    assert found["lhs"] == evidence.lhs[index]
    first = f", first={index}" if index else ""
    how = f"1, 2{first}).lhs[0]" if alone else f"6, 2).lhs[{index}]"
    how = how.replace(").lhs", ")).lhs")
    assert found["rerun"] == f"claim.measure(lt.claims.Draws({how}"


def test_what_other_runs_finished_is_neither_taken_over_nor_dropped(tmp_path: Any) -> None:
    path = tmp_path / "verdicts.json"
    mine, other = verdict(seed=1), verdict(seed=2)
    second = dataclasses.replace(mine, id="lora-one/linear/lora-pro")
    Store(path, {"seed": 2}).keep(other)
    store = Store(path, {"seed": 1})
    assert store.done == {}
    for each in (mine, second):
        store.keep(each)
    assert Store(path, {"seed": 1}).done == {mine.id: mine, second.id: second}
    store.finish([mine])
    # Of this run the one that was written is gone; of the other the same claim stays.
    assert list(Store(path, {"seed": 1}).done) == [second.id]
    assert Store(path, {"seed": 2}).done == {other.id: other}
