"""Dense sensing by K = 𝒜*𝒜/m: the same values, and only where it pays."""

import math

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics import plan
from loraone_theory.problems.sensing.gram import Gram, pays
from loraone_theory.problems.sensing.problem import SensingProblem

D, K, M = 5, 4, 60
# κ of K and sums over m and dk of numbers of size one: m·κ·eps, κ <= 30 at m = 3dk.
RELATIVE = M * 30 * 2.3e-16


def problem(sigma: float, known: bool, seeds=(0, 1)) -> SensingProblem:
    made = lt.sample_sensing(
        ensemble="dense", d=D, k=K, true_rank=2, measurements=M, noise_std=sigma, seeds=seeds
    )
    if known:
        return made
    return SensingProblem.from_data(made.operator, made.labels)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("known", [True, False])
def test_loss_and_gradients_are_those_of_the_measurements(sigma: float, known: bool) -> None:
    made = problem(sigma, known)
    rng = np.random.default_rng(0)
    offset = Factors(*(torch.from_numpy(rng.standard_normal(s)) for s in ((D, 1), (1, K))))
    F = Factors(*(torch.from_numpy(rng.standard_normal((3, 2, *s))) for s in ((D, 2), (2, K))))
    for whole in (made, made.with_offset(offset)):
        light = whole.lighter(10**6)
        assert light.gram is not None
        torch.testing.assert_close(light.loss(F), whole.loss(F), rtol=RELATIVE, atol=0)
        for one, two in zip(light.gradients(F), whole.gradients(F), strict=True):
            assert (one - two).abs().max() <= RELATIVE * two.abs().max()
    assert light.with_offset(offset).gram is None


def test_small_losses_keep_their_digits() -> None:
    """At distance 1e-9 from Δ the loss is 1e-18 and known to rounding of its own size."""
    made = problem(0.0, True)
    light = made.lighter(10**6)
    step = torch.from_numpy(np.random.default_rng(1).standard_normal((D, K)))
    size = 1e-9
    at = Factors(made.shift.dense() + size * step, torch.eye(K).double())
    # E itself is known to eps·‖Δ‖, over `size` relative to it, and the loss to twice that.
    torch.testing.assert_close(light.loss(at), made.loss(at), rtol=2 * rounding(1) / size, atol=0)
    assert (light.loss(at) < size**2 * step.square().sum()).all()  # twice the mean


@pytest.mark.parametrize("method", ["lora", "lora-one-preconditioned", "lora-ga", "lora-adamw"])
def test_runs_are_the_same_to_rounding(method: str) -> None:
    made = problem(0.2, True)
    options = {"rank": 2, "learning_rate": [0.02, 0.05], "steps": 30, "init_std": None}
    auto, never = (lt.simulate(made, method, reduce=r, **options) for r in ("auto", "never"))
    # 30 steps amplify the roundings of one by less than (1 + 30·η‖K‖) each, Adam's by 1/√ε.
    tolerance = 1e5 * RELATIVE if "adam" in method else 1e3 * RELATIVE
    for name in ("loss", "risk"):
        torch.testing.assert_close(auto[name], never[name], rtol=tolerance, atol=0)


def test_where_it_pays() -> None:
    assert pays(20, 40, 2)
    assert not pays(20, 39, 10**6)
    assert not pays(20, 40, 1)
    assert pays(160, 320, 10)  # 160/16 evaluations, and no fewer
    assert not pays(160, 320, math.nextafter(10, 0))
    few = lt.sample_sensing(ensemble="dense", d=D, k=K, true_rank=2, measurements=39)
    other = lt.sample_sensing(ensemble="rank-one", d=D, k=K, true_rank=2, measurements=400)
    assert few.lighter(1e9).gram is None
    assert other.lighter(1e9).gram is None
    made = problem(0.0, True)
    for reduce, steps, taken in (("auto", 30, True), ("auto", 1, True), ("never", 30, False)):
        settings = lt.simulate(
            made, "lora", rank=1, learning_rate=0.1, steps=steps, reduce=reduce
        ).resume.plan
        assert isinstance(settings, plan.Plan)
        assert isinstance(settings.problem.gram, Gram) == taken  # type: ignore[attr-defined]


def test_memory_decides_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem(0.0, True)
    monkeypatch.setattr("loraone_theory.core.memory.machine_bytes", lambda: 10_000)
    assert made.lighter(10**6).gram is None
