"""How runs are judged: minibatches, AdamW, and runs that go on by a few steps."""

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.dynamics import endings

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
