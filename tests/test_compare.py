"""The comparison: step sizes, floors and rates beside runs, what is stored, and the command."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import storage
from loraone_theory.cli import main
from loraone_theory.predict import compare as comparing
from loraone_theory.predict import curves, tuning
from loraone_theory.predict.ahead import Outlook
from loraone_theory.predict.compare import compare
from loraone_theory.predict.curves import TARGET

SEEDS = (0, 1)
SMALL = ["--d", "12", "--k", "10", "--rank", "2", "--true-rank", "2", "--steps", "60"]


def problem() -> lt.LinearProblem:
    return lt.sample_linear(d=16, k=12, true_rank=2, samples=320, spectrum=(1.0, 0.6), seeds=SEEDS)


@pytest.fixture(scope="module")
def everything() -> comparing.Comparison:
    return compare(problem(), rank=2, steps=300, seeds=SEEDS)


def test_one_row_for_every_method(everything: comparing.Comparison) -> None:
    assert [row.method for row in everything.rows] == list(lt.methods.stepping())
    for row in everything.rows:
        assert row.loss.shape == (301, 2)
        assert row.learning_rate > 0
        assert row.status
        for name in ("initial_error", "floor", "reached", "predicted_rate", "rate", "steps"):
            assert getattr(row, name).shape == (2,)


def test_predictions_choose_where_there_are_any(everything: comparing.Comparison) -> None:
    for row in everything.rows:
        best = lt.predict.summary(problem(), row.method, 2, seeds=SEEDS).best_step
        if row.chosen_by == "prediction":
            assert row.learning_rate == float(best.min())
        else:
            assert row.learning_rate in tuning.GRID
            failed = any("fails at the predicted best step" in note for note in row.notes)
            assert failed or torch.isnan(best).all()


def test_gd_type_methods_reach_their_floors_at_their_rates(
    everything: comparing.Comparison,
) -> None:
    """From a generic start the tail is faster than the slowest mode, so the rate is an upper end.

    A finite step unbalances the factors by O(η²), which moves the modes of pairs a little.
    """
    known = [row for row in everything.rows if row.chosen_by == "prediction"]
    assert len(known) >= 12
    for row in known:
        assert row.status == "converged", row.method
        distance = np.abs(row.reached - row.floor)
        # 300 steps at twice the distance of the predicted rate from 1, or slower by a fifth, leave
        # this much of the first loss; and rounding of sums over N + d + k.
        left = (1 - 0.8 * (1 - row.predicted_rate)) ** (2 * 300)
        allowed = left * row.loss[0] + rounding(200, operations=300) * row.floor
        # Entries move until a step is less than what sums of 12 terms round.
        least = 0.5 * rounding(12, operations=4 / row.learning_rate) ** 2
        assert (distance <= allowed + least).all(), row.method
        assert (row.rate < 1 - 0.8 * (1 - row.predicted_rate)).all(), row.method
        # Steps are counted on the curve that is stored.
        curve = curves.distance(row.loss, row.floor)
        for seed, steps in enumerate(row.steps.astype(int)):
            assert curve[steps, seed] <= TARGET < curve[:steps, seed].min()


def test_tuning_finds_the_best_of_the_grid() -> None:
    """Against one run for each value: fewest steps, and never one that diverges."""
    grid = (0.05, 0.2, 0.6, 8.0)
    row = compare(
        problem(), rank=2, steps=120, seeds=SEEDS, names=["lora-one"], tune=True, grid=grid
    ).rows[0]
    counted = {}
    for eta in grid[:3]:
        run = lt.simulate(problem(), "lora-one", rank=2, learning_rate=eta, steps=120, seeds=SEEDS)
        curve = (run["loss"] / run["loss"][0]).sqrt().numpy()
        inside = curve <= TARGET
        counted[eta] = inside.argmax(0).mean() if inside[-1].all() else math.inf
    assert row.chosen_by == "grid"
    assert row.learning_rate == min(counted, key=counted.get)
    assert row.steps.mean() == counted[row.learning_rate]


def test_the_search_is_public_and_takes_any_problem() -> None:
    """Cross-entropy has no floor of 0: the run that ends lowest is taken."""
    X = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 5)))
    labels = torch.arange(30) % 3

    def loss(W: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(x @ W, y)

    given = lt.from_loss(loss, d=5, k=3, data=(X, labels))
    grid = (0.01, 0.1, 1.0)
    found = lt.tune_step(given, "lora", rank=2, steps=20, grid=grid)
    ends = [
        float(lt.simulate(given, "lora", rank=2, learning_rate=eta, steps=20)["loss"][-1, 0])
        for eta in grid
    ]
    assert found.learning_rate == grid[int(np.argmin(ends))]
    assert found.index == int(np.argmin(ends))
    assert found.status.shape == (1,)
    assert np.isnan(found.steps).all()
    assert "0 of 1 runs reach the target" in repr(found)
    with pytest.raises(ValueError, match="grid must be"):
        lt.tune_step(given, "lora", rank=2, steps=20, grid=(0.0,))


def test_no_run_that_diverges_is_chosen() -> None:
    """Even where it passed the floor on its way."""
    steps = np.arange(5.0)[:, None, None]
    loss = np.concatenate([0.9**steps, 0.8**steps, 1e-9**steps], axis=1).repeat(2, axis=2)
    loss[3:, 2] = math.nan
    assert tuning.best(curves.distance(loss, np.zeros(2))) == 1


def test_a_failing_prediction_falls_back_to_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A best step that is eight times too large is past the stability edge, and GD diverges."""
    outlook = lt.predict.outlook

    def hasty(*args: object, **kwargs: object) -> Outlook:
        ahead = outlook(*args, **kwargs)  # type: ignore[arg-type]
        near = dataclasses.replace(ahead.near, extremes=ahead.near.extremes / 8)
        return dataclasses.replace(ahead, near=near)

    monkeypatch.setattr(comparing, "outlook", hasty)
    row = compare(problem(), rank=2, steps=300, seeds=SEEDS, names=["lora"]).rows[0]
    assert row.chosen_by == "grid"
    assert any("fails at the predicted best step" in note for note in row.notes)
    assert row.status == "converged"


def test_momentum_on_a_pair_is_left_to_the_grid() -> None:
    row = compare(problem(), rank=2, steps=300, seeds=SEEDS, names=["lora-momentum"]).rows[0]
    assert row.chosen_by == "grid"
    assert np.isnan(row.predicted_rate).all()
    assert any("momentum does not conserve" in note for note in row.notes)


def test_what_a_method_cannot_do_is_a_row_that_says_so() -> None:
    row = compare(problem(), rank=8, steps=5, seeds=SEEDS, names=["lora-ga"]).rows[0]
    assert row.status.startswith("undefined: lora-ga takes 2r singular directions")
    assert np.isnan(row.reached).all()


def test_relu_predictions_at_infinitely_many_samples() -> None:
    given = lt.sample_relu_population(d=12, k=10, true_rank=2, relative_shift=0.1, seeds=SEEDS)
    names = ["lora-one-preconditioned", "lora-ga", "full"]
    one, ga, full = compare(given, rank=2, steps=40, seeds=SEEDS, names=names).rows
    assert (one.learning_rate, one.chosen_by) == (
        pytest.approx(4 / 3, rel=rounding(12)),
        "prediction",
    )
    # The rate holds as the relative shift goes to 0; here it is 0.1.
    assert one.rate == pytest.approx(one.predicted_rate, abs=0.02)
    assert np.isnan(ga.floor).all()
    assert np.isnan(ga.steps).all()
    assert (full.floor == 0).all()
    assert full.status == "converged"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'lora-one'"):
        compare(problem(), rank=2, steps=5, names=["lora-on"])
    with pytest.raises(ValueError, match="steps must be >= 2"):
        compare(problem(), rank=2, steps=1)


def test_the_command_prints_saves_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, picture = tmp_path / "all.npz", tmp_path / "all.png"
    saved = ["--save", str(data), "--plot", str(picture)]
    names = ["lora-one", "lora-ga", "lora-one-adamw"]
    assert main(["compare", *names, *SMALL, "--trials", "2", *saved]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(name in printed.out for name in names)
    assert "Adam's kind" in printed.out
    arrays = storage.load_arrays(data)
    assert arrays["lora-one.loss"].shape == (61, 2)
    about = json.loads(data.with_suffix(".json").read_text())
    assert about["config"]["seeds"] == [0, 1]
    assert [row["method"] for row in about["rows"]] == names
    assert f"{about['rows'][0]['learning_rate']:.3g}" in printed.out
    assert f"{arrays['lora-one.rate'].mean():.3g}" in printed.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_compares_relu_and_tunes(capsys: pytest.CaptureFixture[str]) -> None:
    relu = ["--model", "relu", "--samples", "240", "--trials", "1", "--tune"]
    assert main(["compare", "lora-one-preconditioned", *SMALL, *relu]) == 0
    assert "grid" in capsys.readouterr().out
    assert main(["compare", "lora-on", *SMALL]) == 2
    assert "did you mean 'lora-one'" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (6, 5)])
def test_a_run_that_begins_at_the_solution_has_converged(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """By a loss of zero and by one of rounding."""
    draws = torch.Generator().manual_seed(0)
    L, R = (torch.randn(*n, generator=draws, dtype=dtype) for n in ((shape[0], 2), (2, shape[1])))
    made = lt.LinearProblem.population(shift=L @ R)
    rank = min(2, *shape)
    row = compare(made, rank=rank, steps=60, names=["lora-one"]).rows[0]
    assert (row.status, row.steps.tolist(), row.chosen_by) == ("converged", [0], "prediction")
    assert lt.tune_step(made, "lora-one", rank=rank, steps=30, grid=(0.1, 0.05)).steps[1] == 0
    # Without the loss before anything is learned zero alone is zero.
    flat = np.array([[0.0, 1e-30], [0.0, 4e-30], [1.0, math.inf]])
    np.testing.assert_array_equal(
        curves.distance(flat, np.zeros(2)), [[0, 1], [0, 2], [math.inf, math.inf]]
    )
    np.testing.assert_array_equal(
        curves.distance(flat, np.zeros(2), 1.0), [[0, 1e-15], [0, 2e-15], [1, math.inf]]
    )


def test_a_distance_below_rounding_of_the_loss_is_not_reached() -> None:
    rows, single = {}, np.float32
    for dtype in ("float32", "float64"):
        made = lt.sample_linear(
            d=12, k=9, true_rank=2, samples=100, noise_std=0.1, seeds=SEEDS, dtype=dtype
        )
        rows[dtype] = compare(made, rank=2, steps=300, names=["lora-one"]).rows[0]
    low, full = rows["float32"], rows["float64"]
    assert full.status == "converged"
    assert not any("not resolved" in note for note in full.notes)
    assert low.status == "0 of 2 converged"
    assert np.isnan(low.steps).all()
    assert any("not resolved: float32" in note for note in low.notes)
    # The rate is measured until the loss resolves no more: over a tenth of the steps, to a tenth.
    np.testing.assert_allclose(low.rate, full.rate, rtol=0.1)
    level = curves.resolution(low.loss, low.floor)
    expected = np.sqrt(curves.ROUNDINGS * np.finfo(single).eps * low.floor)
    np.testing.assert_allclose(
        level, expected / np.sqrt(low.loss[0] - low.floor), rtol=rounding(4, dtype=single)
    )
    # What it does resolve it reaches when the other does.
    ends = [curves.reached(curves.distance(r.loss, r.floor), 2 * level) for r in (low, full)]
    assert np.abs(ends[0] - ends[1]).max() <= 1
