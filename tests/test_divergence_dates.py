"""The step at which a run stops being finite, where its loss is lost before its factors are."""

import torch

import loraone_theory as lt
from loraone_theory.dynamics import run as runs


def test_a_loss_that_is_lost_long_before_the_factors_is_dated_exactly():
    """(W + Δ)₁₁ grows by a constant per step, and the loss is NaN once it is above 20.

    The gradient stays finite throughout, so that the factors never tell.
    """
    eta, limit = 0.125, 20.0

    def loss(W):
        x = W[..., 0, 0]
        return torch.where(x.detach() > limit, torch.nan, 0.0) - x

    problem = lt.from_loss(loss, d=2, k=2, pretrained=torch.zeros(2, 2, dtype=torch.float64))
    # x = ηt passes 20 after step 160, which lies between two looks at the factors.
    first = int(limit / eta) + 1
    assert runs.CHECK_STEPS < first
    for steps in (first, first + 1, 3 * runs.CHECK_STEPS):
        run = lt.simulate(problem, "full", rank=1, learning_rate=eta, steps=steps, record=("loss",))
        assert run.status[0].outcome is lt.Outcome.DIVERGED
        assert run.status[0].step == first
        assert bool(run["loss"][:first].isfinite().all())
        assert bool(run["loss"][first:].isnan().all())
    fine = lt.simulate(problem, "full", rank=1, learning_rate=eta, steps=first - 1)
    assert not fine.diverged.any()
