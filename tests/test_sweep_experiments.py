"""The experiments that are sweeps: their files, their theory lines, and going on in a folder."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scripts import assert_smoke_writes_its_files, loaded, part_of

import loraone_theory as lt

NAMES = ("fig_phase_diagram", "fig_noise_map")


@pytest.mark.parametrize("name", NAMES)
def test_smoke_writes_its_files(name: str, tmp_path: Path) -> None:
    assert_smoke_writes_its_files(name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_full_size_has_ten_thousand_runs(name: str, tmp_path: Path) -> None:
    sweep = part_of(name, "sweep_of")(loaded(name).presets["full"], tmp_path / "sweep")
    assert sweep.spec.runs >= 10_000


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_gone_on_from(name: str, tmp_path: Path) -> None:
    script = loaded(name)
    config = dataclasses.replace(script.smoke, folder=str(tmp_path / "sweep"))
    sweep = part_of(name, "sweep_of")(config, config.folder)
    first = sweep.run(shard="1/3")
    second = script.run(config, lambda share: None)
    assert 0 < first.computed < len(list(sweep.spec.together["rank"])) * 2
    assert sweep.run().computed == 0
    alone = script.run(script.smoke, lambda share: None)
    assert all(np.array_equal(second[key], alone[key]) for key in alone)


def test_axes_of_the_data_are_method_rank_and_ratio() -> None:
    """One entry of each map against a run of its own."""
    script = loaded("fig_phase_diagram")
    config = script.smoke
    data = script.run(config, lambda share: None)
    for at, (method, std) in enumerate(part_of("fig_phase_diagram", "PANELS").values()):
        problem = lt.sample_sensing(
            ensemble="dense",
            d=config.d,
            k=config.d,
            true_rank=2,
            measurements=round(2.5 * 2 * (2 * config.d - 2)),
            condition_number=config.condition_number,
            seeds=range(config.trials),
        )
        run = lt.simulate(
            problem,
            method,
            rank=2,
            learning_rate=config.learning_rate,
            steps=config.steps,
            init_std=std,
            record=("error",),
        )
        assert np.array_equal(data["error"][at, 1, 1], run["error"][-1].numpy())


def test_convex_threshold_is_the_mean_distance_to_the_cone() -> None:
    """Against inf_τ of the squared distance of Gaussian matrices to τ times the subdifferential.

    dist² is a 1-Lipschitz distance squared, so that its mean over n draws has a standard deviation
    of at most about 2√(δ/n); the formula's own error at finite d is of order d, one row in d of
    them.
    """
    d, r, draws = 40, 8, 24
    G = torch.randn(draws, d, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    singular = torch.linalg.svdvals(G[:, r:, r:]).numpy()
    corner, rest = G[:, :r, :r].numpy(), (G**2).sum((1, 2)) - (G[:, r:, r:] ** 2).sum((1, 2))
    rest = rest.numpy() - (corner**2).sum((1, 2))

    def squared(tau: float) -> float:
        inner = ((corner - tau * np.eye(r)) ** 2).sum((1, 2))
        return float((inner + rest + (np.maximum(singular - tau, 0) ** 2).sum(1)).mean())

    measured = minimize_scalar(squared, bounds=(0, 3 * d**0.5), method="bounded").fun
    threshold = part_of("fig_phase_diagram", "convex_threshold")(d, r)
    assert abs(measured - threshold) <= d + 6 * 2 * (threshold / draws) ** 0.5
    # Wrong by one part of five, as with √(4 − u²) for its square, is noticed.
    assert 0.2 * threshold > d + 6 * 2 * (threshold / draws) ** 0.5


def test_noise_grows_where_the_line_says() -> None:
    """α√r(1 + ηs)^T/2 for each factor, with their product s where `grown` changes its sign."""
    script = loaded("fig_noise_map")
    config = script.config()
    grown, edge = (part_of("fig_noise_map", name) for name in ("grown", "edge"))
    sigma = np.geomspace(0.01, 3, 2001)
    for rank in config.ranks:
        sign = grown(config, sigma, np.array(rank)) > 0
        at = sigma[sign.argmax()]
        assert not sign[: sign.argmax()].any()
        assert sign[sign.argmax() :].all()
        s = edge(config, at)
        factor = config.init_std * rank**0.5 * (1 + config.learning_rate * s) ** config.steps / 2
        step = np.log(sigma[1] / sigma[0])  # of the grid, times d ln(factor²/s)/d ln σ
        slope = 2 * config.steps * config.learning_rate * s + 1
        assert abs(np.log(factor**2 / s)) <= slope * step
