"""The experiments of the ReLU model at their smallest size: files, and what their data shows."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scripts import assert_smoke_writes_its_files, loaded
from tolerance import rounding

from loraone_theory import predict

RELU = ("fig_damping", "fig_one_step_relu", "fig_relu_convergence", "fig_relu_rank_regimes")


@pytest.mark.parametrize("name", RELU)
def test_smoke_writes_its_files(name: str, tmp_path: Path) -> None:
    assert_smoke_writes_its_files(name, tmp_path)


def test_the_one_step_laws() -> None:
    script = loaded("fig_one_step_relu")
    shifts = (1e-3, 1e-2)
    data = script.run(dataclasses.replace(script.smoke, shifts=shifts), lambda share: None)
    law = np.array(shifts)[:, None] / math.pi
    tangent, *others = data["population"]
    # Corrections are of second order in c.
    np.testing.assert_allclose(tangent, np.broadcast_to(law, tangent.shape), rtol=shifts[-1] ** 2)
    assert all((other < law).all() for other in others)
    # One Gaussian sample mean of d·k = 144 entries per seed: a relative spread of √(2/144)
    # between seeds where entries are independent, and three times that where columns are not.
    noise = math.sqrt(27 / (16 * 12))
    assert np.all(abs(data["sampled"] / noise - 1) < 3 * 3 * math.sqrt(2 / 144))


def test_curves_end_on_their_floors() -> None:
    script = loaded("fig_relu_rank_regimes")
    config = dataclasses.replace(script.smoke, ranks=(1,), steps=300)
    data = script.run(config, lambda share: None)
    last, floor = data["error"][0, :, -1], data["floor"][0]
    names = ["full", "lora", "lora+", "milora", "lora-ga", "lora-sb", "lora-one"]
    for j in (1, 2, 4, 5, 6):
        # The floor of the linear model holds up to the squared bias (c/π)² of the gradient.
        assert np.all(abs(last[j] / floor[j] - 1) < (0.1 / math.pi) ** 2), names[j]
    # 300 steps of full fine-tuning contract by the step times ½ at least.
    assert np.all(last[0] < (1 - config.learning_rate / 2) ** 300 + rounding(144, operations=300))
    assert np.all(floor[0] == 0)


def test_methods_and_what_is_drawn_can_be_chosen() -> None:
    script = loaded("fig_relu_rank_regimes")
    whole = script.run(script.smoke, lambda share: None)
    few = dataclasses.replace(script.smoke, methods=("lora-one", "lora"))
    error = script.run(few, lambda share: None)["error"]
    places = [script.smoke.methods.index(name) for name in few.methods]
    np.testing.assert_array_equal(error, whole["error"][:, places])
    data = script.run(dataclasses.replace(few, quantity="risk"), lambda share: None)
    assert script.plot(data, dataclasses.replace(few, quantity="risk"))
    # Risks are between a quarter and a half of the squared error; where B = 0 nothing is learned.
    ratio = data["risk"] / error**2
    slack = 1 + rounding(16 * 16, operations=4)
    assert ((ratio >= 0.5 / slack) & (ratio <= 2 * slack)).all()
    np.testing.assert_allclose(data["risk"][:, 1, 0], 1.0, rtol=rounding(16 * 16, operations=2))
    with pytest.raises(ValueError, match=r"each of methods must be one of .*; got 'lora-two'"):
        dataclasses.replace(few, methods=("lora-two",))


def test_the_adaptive_damping_restores_the_rate() -> None:
    script = loaded("fig_damping")
    config = dataclasses.replace(script.smoke, steps=400, records=400)
    data = script.run(config, lambda share: None)
    steps = data["steps"]
    end = steps[-1]
    for model in ("relu", "linear"):
        # 400 steps at a rate of at most (1 + (1 − η/2))/2 leave nothing but rounding, over N and d.
        least = rounding(200, operations=1 / config.learning_rate)
        assert (data[f"{model}.adaptive 0"][-1] < least).all()
    # In the linear model imbalance ends the slow phase, at this size within these steps.
    assert (data["relu.fixed"][-1] > 1e-6).all()
    law = [
        predict.relu.sublinear(0.5, damping=value, rank=4, true_rank=2, t=int(end))
        for value in config.dampings
    ]
    # λ = 0.01 has long been on its line; corrections are of size ln(t)/t.
    measured = data["relu.fixed"][-1, 1] * data["relu.size"]
    np.testing.assert_allclose(measured, np.full_like(measured, law[1]), rtol=0.1)


def test_contraction_in_the_population() -> None:
    script = loaded("fig_relu_convergence")
    config = dataclasses.replace(script.smoke, ratios=(), steps=120, steps_per_kappa=60)
    data = script.run(config, lambda share: None)
    expected = predict.relu.population_rate(config.learning_rate)
    # A finite window sees a mixture of modes: the tail is within 0.002 of its slowest.
    slack = 0.004 * expected
    assert np.all(abs(data["lora-one-preconditioned.rate"] - expected) < slack)
    plain = [predict.relu.gd_rate(0.5, condition_number=kappa) for kappa in (1.0, 3.0)]
    assert np.all(abs(data["lora-one.rate"][0] - np.array(plain)[:, None]) < 2 * slack)
