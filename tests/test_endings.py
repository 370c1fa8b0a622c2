"""How runs are judged: minibatches, AdamW, and runs that go on by a few steps."""

import math

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.dynamics import endings
from loraone_theory.dynamics.told import TOGETHER, Told

O = lt.Outcome


def linear():
    return lt.sample_linear(d=8, k=7, true_rank=2, samples=80, seeds=(3, 4))


def judged(values, **options):
    losses = torch.tensor([1.0, *values], dtype=torch.float64)[:, None]
    never = torch.tensor([endings.NEVER])
    return endings.judge(never, losses, losses[0], None, 99, **options)[0]


def test_a_noise_floor_is_not_an_oscillation():
    flat = [0.1 + 0.05 * (-1) ** t for t in range(32)]
    assert judged(flat).outcome is O.OSCILLATING
    assert judged(flat, minibatches=True).outcome is O.COMPLETED
    # Stretches whose means go up and down threefold are not a level.
    waves = [0.1 + 0.2 * (t // 8 % 2) for t in range(32)]
    status = judged(waves, minibatches=True)
    assert status.outcome is O.OSCILLATING
    assert status.factor == pytest.approx(0.2, rel=rounding(1, operations=3, condition=3))
    assert judged([3.0 * 1.01**t for t in range(32)], minibatches=True).outcome is O.GROWING


def points(monkeypatch, kind):
    """The numbers of points at which problems of a class are asked for their loss, per call."""
    found, loss = [], kind.loss

    def counting(self, shift, *more):
        lead = torch.broadcast_shapes(shift.shape[:-2], self.batch_shape)
        found.append(math.prod(lead) // math.prod(self.batch_shape))
        return loss(self, shift, *more)

    monkeypatch.setattr(kind, "loss", counting)
    return found


@pytest.mark.parametrize("samples", [None, 60])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_in_the_relu_model_the_status_costs_the_last_loss_alone(monkeypatch, steps, samples):
    """The others come with the gradients, as all of them do where the loss is recorded."""
    sizes = {"d": 7, "k": 5, "true_rank": 2, "relative_shift": 0.2, "seeds": (0, 1)}
    if samples is None:
        problem = lt.sample_relu_population(**sizes)
    else:
        problem = lt.sample_relu(**sizes, samples=samples)
    asked = points(monkeypatch, type(problem))
    given = {"rank": 2, "learning_rate": 0.1, "steps": steps}
    run = lt.simulate(problem, "lora-one", record=(), **given)
    assert run.ok.all()
    assert sum(asked) == 1
    for every in (1, 4, 50):
        asked.clear()
        run = lt.simulate(problem, "lora-one", record=("loss",), every=every, **given)
        assert not asked
        assert torch.isfinite(run["loss"]).all()


def test_elsewhere_the_status_costs_eight_losses_less_those_recorded(monkeypatch):
    problem = linear()
    asked = points(monkeypatch, lt.LinearProblem)
    given = {"rank": 2, "learning_rate": 0.1, "steps": 20}
    assert lt.simulate(problem, "lora-one", record=("risk",), **given).ok.all()
    assert sum(asked) == 1 + 7
    asked.clear()
    run = lt.simulate(problem, "lora-one", record=("loss",), every=3, **given)
    assert sum(asked) == len(set(run.steps.tolist()) | set(range(14, 21)))


@pytest.mark.parametrize("samples", [None, 60])
@pytest.mark.parametrize("every", [1, 3])
def test_losses_that_steps_tell_are_the_losses_at_their_factors(every, samples):
    """At t = 0, on the way, at the end, and of runs that go on; of more steps than are kept."""
    sizes = {"d": 7, "k": 5, "true_rank": 2, "relative_shift": 0.2, "seeds": (0, 1)}
    if samples is None:
        problem = lt.sample_relu_population(**sizes)
    else:
        problem = lt.sample_relu(**sizes, samples=samples)
    given = {"rank": 2, "learning_rate": [0.1, 0.4], "record": ("risk", "loss"), "every": every}
    run = lt.simulate(problem, "lora-one", steps=150, keep_factors=every, **given)
    longer = run.extend(50)
    for t, A, B, loss in zip(longer.factor_steps, *longer.factors, longer["loss"], strict=False):
        expected = problem.loss(lt.Factors(A, B))
        # Its root errs as E does, whose entries are sums of r + d terms of the size of W.
        unit = rounding(9, operations=4) * problem.pretrained.norm(dim=(-2, -1))
        assert bool(((loss.sqrt() - expected.sqrt()).abs() <= unit).all()), t
    whole = lt.simulate(problem, "lora-one", steps=200, **given)
    assert torch.equal(whole["loss"], longer["loss"])
    assert (whole.status == longer.status).all()


def test_what_steps_saw_becomes_losses_of_many_at_once():
    asked = []

    def made(seen):
        asked.append(len(seen))
        return seen.sum(-1)

    told = Told([0, 5, 6, *range(10, 100)], made, torch.full((2,), math.nan))
    told.see(5, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    told.see(0, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert not asked
    assert told[5].tolist() == [3.0, 7.0]
    assert told[0].tolist() == [2.0, 1.0]
    assert asked == [2]
    assert torch.isnan(told[6]).all()
    assert 7 not in told
    for t in range(10, 100):
        told.see(t, torch.full((2, 2), float(t)))
    assert asked == [2, TOGETHER]
    assert told.losses[3:, 0].nan_to_num(0.0).tolist() == [
        2.0 * t if t < 10 + TOGETHER else 0.0 for t in range(10, 100)
    ]
    told.settle()
    assert told.losses[-1].tolist() == [198.0, 198.0]


def test_the_status_is_that_of_the_recorded_losses():
    """Whichever way the losses at the end were come by, for runs that settle, swing and grow."""
    relu = lt.sample_relu(d=7, k=5, true_rank=2, samples=60, relative_shift=0.5, seeds=(0, 1))
    limit = relu.population
    rates = [0.1, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 1e3, 1e150]
    outcomes = set()
    for problem, method in (
        (relu, "lora-one"),
        (relu, "full-adamw"),
        (limit, "lora-one"),
        (linear(), "lora-one"),
    ):
        for steps in (2, 5, 30, 150):
            given = {"rank": 2, "learning_rate": rates, "steps": steps}
            every, seldom, never = (
                lt.simulate(problem, method, record=record, every=often, **given).status
                for record, often in ((("loss",), 1), (("loss",), 4), ((), 1))
            )
            for expected, *found in zip(every.flat, seldom.flat, never.flat, strict=True):
                outcomes.add(expected.outcome)
                for status in found:
                    assert (status.outcome, status.step) == (expected.outcome, expected.step)
    assert outcomes == {O.COMPLETED, O.OSCILLATING, O.GROWING, O.DIVERGED}


def test_a_loss_that_is_lost_at_the_start_alone_is_dated_there():
    """Half of the largest number, squared; the factors stay finite and come back."""

    class Lost(lt.ReLUProblem):
        def loss(self, shift, E=None):
            value = super().loss(shift, E)
            zero = (shift.A == 0).all(-1).all(-1) | (shift.B == 0).all(-1).all(-1)
            return torch.where(zero, math.inf, value)

    made = lt.sample_relu(d=7, k=5, true_rank=2, samples=60, relative_shift=0.2)
    problem = Lost(made.inputs, made.population)
    for steps in (3, 300):  # more steps than are taken between two looks
        for record in ((), ("loss",)):
            run = lt.simulate(
                problem, "lora", rank=2, learning_rate=0.1, steps=steps, seeds=[0], record=record
            )
            assert [(s.outcome, s.step) for s in run.status] == [(O.DIVERGED, 0)]


def test_gradients_of_a_class_of_ones_own_are_obeyed_where_the_loss_is_told_too():
    class Still(lt.ReLUProblem):
        def gradients(self, shift):
            found = super().gradients(shift)
            return lt.Factors(0 * found.A, 0 * found.B)

    made = lt.sample_relu(d=7, k=5, true_rank=2, samples=60, relative_shift=0.2)
    problem = Still(made.inputs, made.population)
    run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=3, seeds=[0], record=())
    assert torch.equal(run.final.A, run.initial.A)


def test_adamw_at_a_constant_rate_says_whether_it_settled():
    """Early on it goes up and down by a share of its start; hundreds of steps on it has settled."""
    found = set()
    for steps in (60, 400):
        run = lt.simulate(linear(), "full-adamw", rank=2, learning_rate=1.0, steps=steps)
        for i, status in enumerate(run.status):
            tail, start = run["loss"][-7:, i], run["loss"][0, i]
            moves = tail.diff().sign()
            turns = int((moves[1:] != moves[:-1]).sum())
            swings = float((tail.max() - tail.min()) / start) > 1e-3
            assert (status.outcome is O.OSCILLATING) == (turns >= 2 and swings)
            found.add(status.outcome)
    assert found == {O.OSCILLATING, O.COMPLETED}


@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize("batch_size", [None, 20])
def test_a_few_more_steps_give_the_status_of_one_long_run(every, batch_size, tmp_path):
    if batch_size is not None:
        generator = torch.Generator().manual_seed(0)
        X = torch.randn(60, 8, generator=generator, dtype=torch.float64)
        shift = torch.randn(8, 7, generator=generator, dtype=torch.float64)
        problem, method, eta = lt.LinearProblem.from_data(X, shift=shift, keep=True), "full", 0.3
    else:
        problem, method, eta = linear(), "full-adamw", 1.0
    given = {"rank": 2, "learning_rate": eta, "batch_size": batch_size, "every": every}
    whole = lt.simulate(problem, method, steps=63, **given)
    half = lt.simulate(problem, method, steps=61, **given)
    assert (half.extend(2).status == whole.status).all()
    assert (half.extend(1).extend(1).status == whole.status).all()
    half.save(tmp_path / "half.npz")
    back = lt.Trajectory.load(tmp_path / "half.npz")
    given_again = {} if batch_size is None else {"problem": problem}
    assert (back.extend(2, **given_again).status == whole.status).all()


@pytest.mark.parametrize("minibatches", [False, True])
def test_quiet_runs_are_those_of_which_nothing_is_told(minibatches):
    """What `quiet` skips, `judge` calls COMPLETED; of falling losses nothing else is left."""
    rng = np.random.default_rng(0)
    quiet = 0
    for i in range(400):
        steps = int(rng.integers(1, 9))
        losses = np.exp(np.cumsum(rng.standard_normal((steps + 1, 2)) - rng.choice([0, 4]), 0))
        losses[0] = losses[1] * rng.choice([0.1, 1.0, 3.0])
        if i % 7 == 0:
            losses[int(rng.integers(steps + 1)), 0] = rng.choice([np.nan, np.inf])
        diverged = torch.full((2,), endings.NEVER)
        diverged[0] = 1 if i % 11 == 0 else endings.NEVER
        counts = torch.tensor([0, int(i % 5 == 0)])
        drops = None if i % 3 else (counts, counts)
        given = diverged, torch.from_numpy(losses)
        told = endings.judge(
            *given, torch.ones(2, dtype=torch.float64), drops, 9, minibatches=minibatches
        )
        if endings.quiet(*given, drops):
            quiet += 1
            assert all(status == endings.COMPLETED for status in told)
    assert quiet > 20
