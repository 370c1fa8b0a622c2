"""The experiments on sensing at their smallest size: files, and what their data show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import assert_smoke_writes_its_files, loaded, part_of
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import experiment

NAMES = ("fig_input_laws", "fig_noise", "fig_online", "fig_rip", "fig_sensing")


def data_of(name: str, **changes) -> tuple[experiment.Data, experiment.Config]:
    script = loaded(name)
    config = dataclasses.replace(script.smoke, **changes)
    return script.run(config, lambda share: None), config


@pytest.mark.parametrize("name", NAMES)
def test_smoke_writes_its_files(name: str, tmp_path: Path) -> None:
    assert_smoke_writes_its_files(name, tmp_path)


def test_online_runs_arrive_with_the_limit() -> None:
    """The median time to half the risk, of widths 10⁴ and 10⁹, against that of 400 limit runs."""
    data, _ = data_of("fig_online", trials=12, widths=(10**4, 10**9), limit_draws=400)
    arrival = part_of("fig_online", "arrival")
    limit = arrival(data["time"], data["limit"], 0.5)
    for i in range(2):
        found = arrival(data["time"], data["risk"][:, i], 0.5)
        assert np.isfinite(found).all()
        error = limit.std() / len(found) ** 0.5
        # Means of 12 and 400 arrivals; b = 10³ rows shift them by 1/b and the record by nothing.
        assert abs(found.mean() - limit.mean()) < 4.5 * error * (1 + 12 / 400) ** 0.5


def test_arrival_of_an_exponential_is_exact() -> None:
    arrival = part_of("fig_online", "arrival")
    time = np.arange(0, 50, 5.0)
    risk = np.stack([np.exp(-0.1 * time), np.full(10, 0.9)], -1)
    found = arrival(time, risk, 0.3)
    # Logarithms of 0.3, joined between points that are 0.5 of one apart.
    assert found[0] == pytest.approx(np.log(1 / 0.3) / 0.1, rel=rounding(4, operations=4 / 0.5))
    assert np.isnan(found[1])


def test_losses_of_sensing_fall_as_risks_do() -> None:
    """At the same rate to the factor between the two, which is that of the isometry."""
    risk, config = data_of("fig_sensing", ensembles=("dense",))
    loss, drawn = data_of("fig_sensing", ensembles=("dense",), quantity="loss")
    assert loaded("fig_sensing").plot(loss, drawn)
    np.testing.assert_array_equal(loss["predicted"], risk["predicted"])
    start = lt.METHODS["lora-one"]()
    problem = part_of("fig_sensing", "instances")(config, "dense")
    A, B = start.init(problem, config.rank, problem.seeds).trainable
    y = problem.operator.forward(problem.shift)
    miss = problem.operator.forward(lt.Factors(A, B)) - y
    expected = (miss**2).sum(-1) / (y**2).sum(-1)
    allowed = rounding(config.measurements * config.d, operations=4)
    np.testing.assert_allclose(loss["gd.loss"][0, 0], expected.numpy(), rtol=allowed)


def test_sensing_slopes_are_the_predicted_ones() -> None:
    data, _ = data_of("fig_sensing")
    measured, predicted = data["measured"], data["predicted"]
    reached = np.isfinite(measured)
    assert reached.mean() > 0.7
    # Over a window of n steps modes of a like rate add a factor of at most √2r(d + k) to the
    # error, ln(48)/n < 4/60 of the slope's share; slopes are never above the slowest mode's.
    gap = (predicted - measured)[reached]
    assert (gap > -2e-3).all()
    assert (gap < 0.07).all()


def test_slope_of_a_geometric_risk() -> None:
    slope = part_of("fig_sensing", "slope")
    t = np.arange(300)
    found = slope(np.stack([0.8 ** (2 * t), np.full(300, 0.5)], -1))
    # A fit of up to 300 logarithms, down to −134.
    assert found[0] == pytest.approx(0.8, rel=rounding(300, operations=134))
    assert np.isnan(found[1])


def test_noise_data_end_on_the_minima() -> None:
    """Full rank is the least-squares solution, and runs end where the loss of rank r is least."""
    data, config = data_of(
        "fig_noise", steps=10_000, learning_rate=0.3, inits=(1e-2,), shown=(1e-2,), every=500
    )
    problem = part_of("fig_noise", "instances")(config, config.noise_std)
    Sigma = problem.covariance.apply(torch.eye(config.d, dtype=torch.float64))
    miss = torch.linalg.solve(Sigma, problem.one_step_gradient().dense()) - problem.shift.dense()
    expected = 0.5 * (miss**2).sum((-2, -1))
    # Least squares of N measurements in d = 12 dimensions, as a solution and as a minimum.
    wrong = rounding(120, operations=4, condition=100)
    np.testing.assert_allclose(data["of_rank"][-1], expected.numpy(), rtol=wrong)
    at = config.ranks.index(config.rank)
    # Singular values of the noise differ by .3·2√(12/120)/12 = .016 in the mean: with gaps of a
    # seventh of that, e^(−.3·10⁴·.016/7) is left.
    left = np.exp(-0.3 * 1e4 * 0.016 / 7)
    np.testing.assert_allclose(data["risk"][-1, 0], data["of_rank"][at], rtol=left)


def test_rip_data_are_within_gordon() -> None:
    data, config = data_of("fig_rip")
    for i, rank in enumerate(config.ranks):
        for j, m in enumerate(part_of("fig_rip", "counts")(config, rank)):
            top, bottom = lt.rip.gordon_bounds(config.d, config.d, rank, m)
            # Suprema of Gaussians deviate from their mean by t/√m with probability e^(−t²/2).
            slack = 2 * 5.5 * (1 + top) ** 0.5 / m**0.5 + 5.5**2 / m
            assert (data["dense"][i, j, 0] < top + slack).all()
            assert (data["dense"][i, j, 1] < bottom + slack).all()
    assert (data["dense"] > 0).all()


def test_one_step_errors_of_the_input_laws() -> None:
    data, config = data_of("fig_input_laws", draws=1500, ratios=(8,))
    for i, level in enumerate((config.small + 1, config.small - 1, config.small - 1)):
        found = data["one_step"][i, 0]
        assert abs(found.mean() - level) < 4.5 * found.std() / len(found) ** 0.5
