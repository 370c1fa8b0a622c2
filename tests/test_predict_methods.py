"""Floors, local rates and step sizes of every method, against runs and a differenced step."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.methods.parametrisations import Start

D, K, TRUE_RANK, SEED = 20, 14, 3, 1
SCALE = 1.5
NUDGE = 1e-5
# Those with a local rate, and no memory that would multiply the modes.
LOCAL = {name: make().facts.local for name, make in lt.METHODS.items()}
GD_TYPE = [name for name, local in LOCAL.items() if local is not None and local.momentum == 0]
# Central differences at h = 1e-5: third derivatives times h², and rounding of sums over d and k of
# numbers of size one over h and the step, 0.1; times the conditioning of the eigenvalues, 100.
DIFFERENCES = 100 * (1e-5**2 + rounding(D + K) / 1e-5 / 0.1)
# Eigenvalues up to 2 of forms of dk, by products with inverse roots at a condition number of 10.
MODES = 2 * rounding(D * K, operations=4, condition=10)
# Where Lanczos iterations stop, relative to the largest eigenvalue (predict/modes.py).
LANCZOS = 1e-8


def instance() -> lt.LinearProblem:
    """Δ with spectrum 1, 0.7, 0.4 and W with singular values from 1.5 to 0.5, N = 20 d."""
    drawn = lt.sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=20 * D, spectrum=(1.0, 0.7, 0.4), seeds=(SEED,)
    )
    U, _, Vh = torch.linalg.svd(drawn.pretrained, full_matrices=False)
    W = U * torch.linspace(1.5, 0.5, K, dtype=torch.float64) @ Vh
    return dataclasses.replace(drawn, pretrained=W)


def made(name: str, rank: int) -> lt.Method:
    hyper = {"scale": SCALE} if name in ("lora", "p-lora", "lora-pro", "lora-ga", "lora-xs") else {}
    if name == "lora+":
        hyper["ratio"] = 4.0
    return lt.methods.get(lt.METHODS[name](**hyper), rank)


# --- floors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [2, 3, 5])
@pytest.mark.parametrize("name", GD_TYPE)
def test_floors_are_reached(name: str, rank: int) -> None:
    """To 1e-6, or to 1e-20 where the floor is 0, at 0.7 of the largest stable step."""
    problem, method = instance(), made(name, rank)
    near = lt.predict.contraction(problem, method, rank=rank)
    floor = float(lt.predict.floor(problem, method, rank=rank))
    eta = 0.7 * float(near.largest_stable_step)
    if math.isnan(eta):
        assert near.notes
        eta = 0.1
    run = lt.simulate(
        problem,
        method,
        rank=rank,
        learning_rate=eta,
        steps=1500,
        record=("loss",),
        every=1500,
    )
    reached = float(run["loss"][-1, 0])
    # What 1500 steps at half the predicted rate leave, and rounding of sums over N.
    slowest = float(near.loss_rate(eta)) if not near.notes or eta != 0.1 else 0.97
    left = slowest**750 + rounding(20 * D, operations=10)
    if floor == 0:
        assert reached <= left
    else:
        assert reached == pytest.approx(floor, rel=left)


def test_adalora_reaches_the_floor_of_its_final_rank() -> None:
    """With the smooth penalty: the gradient of the unsquared one does not vanish at its minimum."""
    problem = instance()
    method = lt.methods.adalora(target_rank=2, total_steps=400, squared=True, init_std=0.2)
    floor = lt.predict.floor(problem, method, rank=4)
    assert floor.equal(lt.predict.pair_floor(problem, rank=2))
    run = lt.simulate(
        problem, method, rank=4, learning_rate=0.1, steps=4000, record=("loss",), every=1000
    )
    # What is left of a geometric fall, from its last two falls; and rounding of sums over N.
    before, last = (-run["loss"].flatten().diff()[-2:]).tolist()
    left = last**2 / (before - last) + rounding(20 * D, operations=10) * float(floor)
    assert float(run["loss"][-1]) == pytest.approx(float(floor), abs=2 * left)


# --- rates -----------------------------------------------------------------------------------


def stage(name: str, rank: int) -> tuple[lt.LinearProblem, lt.Method, tuple, tuple]:
    """The problem in reduced coordinates, the method without its offset, and its solution."""
    method = made(name, rank)
    start = method.init(instance(), rank, (SEED,))
    problem = instance() if start.offset is None else instance().with_offset(start.offset)
    reduction = lt.reduce(problem, lt.Factors(*start.frozen) if start.frozen else None)
    small, method = reduction.problem, dataclasses.replace(method, offset=False)
    if method.parametrisation.is_pair:
        A, B = lt.predict.pair_solution(small, rank=rank)
        ratio = method.facts.local.ratio  # λAᵀA = BBᵀ
        scale = method.scale**0.5
        return small, method, (A / scale / ratio**0.25, B / scale * ratio**0.25), ()
    if not start.frozen:
        return small, method, (small.shift.dense(),), ()
    A, B = (part[0] for part in reduction.initial)
    C = A.T * small.covariance.values[0]
    T = small.shift.dense()[0]
    R = torch.linalg.solve(C @ A, C @ T) @ torch.linalg.pinv(B) / method.scale
    return small, method, (R[None],), (A[None], B[None])


def one_step(problem, method, frozen, eta):
    """Trainable tensors -> those after one step, for rules without memory."""
    rule = method.rule(eta, 0.0)

    def step(params):
        gradients = problem.gradients(method.parametrisation.shift(params, frozen))
        pulled = method.parametrisation.pullback(params, frozen, gradients)
        return rule.update(params, pulled, rule.init(params))[0]

    return step


def modes(problem, method, at, frozen, eta) -> tuple[np.ndarray, list]:
    """Multipliers of the step's linearisation, by central differences, without the r² at rest."""
    shapes = [part.shape[1:] for part in at]
    sizes = [math.prod(shape) for shape in shapes]

    def split(flat: torch.Tensor) -> tuple:
        parts = zip(flat.split(sizes, dim=-1), shapes, strict=True)
        return tuple(part.reshape(-1, *shape) for part, shape in parts)

    flat = torch.cat([part.flatten(1) for part in at], dim=1)
    h = 1e-5
    step = one_step(problem, method, frozen, eta)
    ends = []
    for sign in (1, -1):
        moved = step(split(flat + sign * h * torch.eye(sum(sizes), dtype=flat.dtype)))
        ends.append(torch.cat([part.flatten(1) for part in moved], dim=1))
    jacobian = ((ends[0] - ends[1]) / (2 * h)).T.numpy()
    values, vectors = np.linalg.eig(jacobian)
    resting = at[0].shape[-1] ** 2 if len(at) == 2 else 0
    order = np.argsort(abs(values - 1))[resting:]
    vectors = torch.from_numpy(np.ascontiguousarray(vectors.real.T[order]))
    return values[order].real, [split(vector[None]) for vector in vectors]


def decay(problem, method, at, frozen, eta, mode, steps: int) -> float:
    """Factor per step over the later half of `steps`, from the solution nudged along a mode."""
    start = tuple(P + NUDGE * Q for P, Q in zip(at, mode, strict=True))
    nudged = method.with_init(lambda problem, rank, seeds: Start(start, frozen), name="nudged")
    run = lt.simulate(
        problem,
        nudged,
        rank=at[0].shape[-1] if len(at) == 2 else 1,
        learning_rate=eta,
        steps=steps,
        record=("loss",),
    )
    floor = problem.loss(method.parametrisation.shift(at, frozen))
    excess = (run["loss"][:, 0] - floor[0]).numpy()
    first = steps // 2
    return float((excess[steps] / excess[first]) ** (0.5 / (steps - first)))


RATES = [
    (name, rank)
    for name in GD_TYPE
    for rank in (2, 3)
    if name != "olora" and (rank == 3 or name not in ("rslora", "lora-one-released", "full"))
]


@pytest.mark.parametrize(("name", "rank"), RATES)
def test_local_rates_step_sizes_and_edges(name: str, rank: int) -> None:
    """Rates to 1 % of 1 − rate, at half the edge; the edge holds at 0.98 and not at 1.02."""
    near = lt.predict.contraction(instance(), made(name, rank), rank=rank, seeds=(SEED,))
    problem, method, at, frozen = stage(name, rank)
    edge = float(near.largest_stable_step)
    eta = 0.5 * edge
    values, vectors = modes(problem, method, at, frozen, eta)
    # Central differences at h = 1e-5: rounding 1e-16/h and third derivatives times h².
    found = np.array([(1 - values).min(), (1 - values).max()]) / eta
    np.testing.assert_allclose(found, near.extremes[0].numpy(), rtol=DIFFERENCES)

    predicted = float(near.rate(eta))
    mode = vectors[int(abs(values).argmax())]
    # The excess starts near 1e-10 and loses two digits: the loss, of order one where the rank is
    # short, is rounded in its last place or two, 1e-16, which moves the rate by 1e-4 over a decay
    # of some steps. Losing four digits would leave a hundredth of that excess to rounding.
    steps = max(2, min(40, int(math.log(1e-1) / math.log(predicted))))
    measured = decay(problem, method, at, frozen, eta, mode, steps)
    assert measured == pytest.approx(predicted, abs=0.01 * (1 - predicted))

    fastest = vectors[int(values.argmin())]
    assert decay(problem, method, at, frozen, 0.98 * edge, fastest, 20) < 1
    assert decay(problem, method, at, frozen, 1.02 * edge, fastest, 20) > 1
    best = float(near.best_step)
    assert float(near.rate(best)) < min(float(near.rate(x * best)) for x in (0.98, 1.02))


@pytest.mark.parametrize("rank", [2, 3])
def test_momentum_has_the_roots_of_its_recurrence(rank: int) -> None:
    beta = 0.5
    method = lt.methods.lora_momentum(beta=beta)
    unknown = lt.predict.contraction(instance(), method, rank=rank)
    assert torch.isnan(unknown.extremes).all()
    assert "does not conserve" in unknown.notes[0]
    balanced = lt.predict.pair_solution(instance(), rank=rank)
    near = lt.predict.contraction(instance(), method, rank=rank, solution=balanced)
    problem, plain, at, frozen = stage("lora", rank)
    method = dataclasses.replace(method, parametrise=plain.parametrise, scaling=SCALE)
    near = dataclasses.replace(near, extremes=SCALE * near.extremes)
    edge, eta = float(near.largest_stable_step), 0.02 * float(near.best_step)
    values, vectors = modes(problem, plain, at, frozen, eta)
    predicted = float(near.rate(eta))
    assert predicted > beta**0.5  # a real root, so that the decay does not beat
    slow, fast = (vectors[int(pick)] for pick in (values.argmax(), values.argmin()))
    measured = decay(problem, method, at, frozen, eta, slow, 80)
    assert measured == pytest.approx(predicted, abs=0.01 * (1 - predicted))
    assert decay(problem, method, at, frozen, 0.98 * edge, fast, 40) < 1
    assert decay(problem, method, at, frozen, 1.02 * edge, fast, 40) > 1
    best = float(near.best_step)
    assert float(near.rate(best)) <= min(float(near.rate(x * best)) for x in (0.98, 1.02))


def test_a_path_dependent_solution_can_be_handed_in() -> None:
    """OLoRA ends off balance: at the factors reached, its operator is the differenced one."""
    problem, method = instance(), made("olora", 3)
    assert math.isnan(float(lt.predict.contraction(problem, method, rank=3).best_step))
    run = lt.simulate(problem, method, rank=3, learning_rate=0.2, steps=4000, record=("loss",))
    near = lt.predict.contraction(problem, method, rank=3, solution=run.final)
    fitted = problem.with_offset(run.offset)
    reduction = lt.reduce(fitted, run.final)
    small, at = reduction.problem, tuple(reduction.initial)
    values, _ = modes(small, dataclasses.replace(method, offset=False), at, (), 0.2)
    found = np.array([(1 - values).min(), (1 - values).max()]) / 0.2
    np.testing.assert_allclose(near.extremes[0].numpy(), found, rtol=DIFFERENCES)


def test_a_large_step_unbalances_and_moves_the_rate() -> None:
    """LoRA-GA starts balanced, and GD unbalances it by O(η²).

    At the best step the rate at the factors reached is the measured one to 1 % of 1 − rate: there
    the mode of μ_max, which stands apart, decides. The balanced prediction is off by more than
    that, and by less at half the step.
    """
    problem = lt.sample_linear(
        d=30, k=24, true_rank=4, samples=480, condition_number=2.0, seeds=(SEED,)
    )
    best = float(lt.predict.contraction(problem, "lora-ga", rank=8, seeds=[SEED]).best_step)
    floor = lt.predict.floor(problem, "lora-ga", rank=8, seeds=[SEED])
    gaps = []
    for eta in (best, best / 2):
        run = lt.simulate(
            problem, "lora-ga", rank=8, learning_rate=eta, steps=400, seeds=[SEED], record=("loss",)
        )
        near = {"rank": 8, "seeds": [SEED], "solution": run.final}
        reached = float(lt.predict.contraction(problem, "lora-ga", **near).rate(eta))
        balanced = lt.predict.contraction(problem, "lora-ga", rank=8, seeds=[SEED]).rate(eta)
        gaps.append(abs(float(balanced) - reached) / (1 - reached))
        if eta == best:
            curve = ((run["loss"] - floor) / (run["loss"][0] - floor)).sqrt()[:, 0]
            low = 1e-6
            last = int((curve <= low).nonzero()[0])
            measured = float((curve[last] / curve[last // 2]) ** (1 / (last - last // 2)))
            assert measured == pytest.approx(reached, abs=0.01 * (1 - reached))
    assert gaps[0] > 0.01 > gaps[1]


@pytest.mark.parametrize("name", ["lora", "p-lora", "lora-pro", "lora-ga"])
def test_lanczos_agrees_with_lapack(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = made(name, 2)
    dense = lt.predict.contraction(instance(), method, rank=2).extremes
    monkeypatch.setattr("loraone_theory.predict.modes.DENSE_SIZE", 10)
    for factored in (10**4, 0):  # by a Cholesky factor, and without a matrix
        monkeypatch.setattr("loraone_theory.predict.modes.FACTORED_SIZE", factored)
        found = lt.predict.contraction(instance(), method, rank=2).extremes
        # The iteration stops at 1e-8 of the largest eigenvalue.
        torch.testing.assert_close(found, dense, rtol=0, atol=LANCZOS * float(dense.max()))


def test_the_population_has_modes_outside_the_span() -> None:
    """At Σ̂ = I and r = r*: μ between S_r and 2S_1; preconditioned 1 and 2; LoRA-Pro 1."""
    problem = lt.LinearProblem.population(shift=instance().shift)
    for name, low, high in (("lora", 0.4, 2.0), ("p-lora", 1.0, 2.0), ("lora-pro", 1.0, 1.0)):
        found = lt.predict.contraction(problem, name, rank=3).extremes
        expected = torch.tensor([[low, high]], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=0, atol=MODES)
    # r = 2 < r*: the slowest mode turns U_2 towards U_3, at 0.7 − 0.4.
    found = lt.predict.contraction(problem, "lora", rank=2).extremes
    expected = torch.tensor([[0.3, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=MODES)


# --- what is known beyond numbers ------------------------------------------------------------


def test_lora_plus_is_gd_with_a_larger_step() -> None:
    for rank in (2, 3):
        plain = lt.predict.contraction(instance(), "lora", rank=rank).extremes
        plus = lt.predict.contraction(instance(), lt.methods.lora_plus(ratio=9.0), rank=rank)
        torch.testing.assert_close(plus.extremes, 3 * plain, rtol=0, atol=3 * MODES)


def test_lora_pro_contracts_as_full_fine_tuning() -> None:
    full = lt.predict.contraction(instance(), "full", rank=3).extremes
    found = lt.predict.contraction(instance(), "lora-pro", rank=3).extremes
    torch.testing.assert_close(found, full, rtol=0, atol=MODES)


@pytest.mark.parametrize(
    ("name", "rank", "note"),
    [
        ("lora-adamw", 3, "Adam"),
        ("lora-pro-adamw", 3, "Adam"),
        ("adalora", 3, "pruning"),
        ("olora", 3, "depends on the path"),
        ("p-lora", 5, "r > r"),
    ],
)
def test_what_is_not_predicted_is_nan_and_says_why(name: str, rank: int, note: str) -> None:
    found = lt.predict.summary(instance(), name, rank)
    for value in (found.local_rate, found.largest_stable_step, found.best_step):
        assert torch.isnan(value).all()
    assert torch.isfinite(found.floor).all()
    assert any(note in line for line in found.notes)


@pytest.mark.parametrize("name", lt.METHODS)
def test_summaries_of_every_method(name: str) -> None:
    """The initial error is the run's, and numbers are given or explained."""
    problem = lt.sample_linear(d=9, k=8, true_rank=2, samples=90, spectrum=(1.0, 0.5), seeds=(0, 1))
    found = lt.predict.summary(problem, name, 3, seeds=(0, 1), learning_rate=0.01)
    assert found.floor.shape == found.local_rate.shape == found.best_step.shape == (2,)
    assert bool(torch.isfinite(found.local_rate).all()) or found.notes
    run = lt.simulate(
        problem, name, rank=3, learning_rate=0.01, steps=1, seeds=(0, 1), record=("error",)
    )
    once = rounding(90, operations=4)  # a gradient over N, an SVD, a product and a norm
    torch.testing.assert_close(found.initial_error, run["error"][0], rtol=once, atol=once)
