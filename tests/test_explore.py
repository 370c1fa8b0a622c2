"""The laboratory without a browser: curves, lines of theory and the script, by value."""

import contextlib
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.explore import axes, model, plot, words
from loraone_theory.explore.model import Curves, Result
from loraone_theory.explore.script import script
from loraone_theory.explore.settings import ENSEMBLES, Settings

SMALL = Settings(d=12, k=10, true_rank=2, rank=2, steps=60, ratio=8.0)
RELU = replace(SMALL, model="relu", methods=("lora-one-preconditioned", "lora"))
SENSING = replace(SMALL, model="sensing", ensemble="dense", k=12, ratio=4.0, steps=40)

# A spread of what can be set; each has several methods, some of which nothing is predicted of.
SPREAD: dict[str, Settings] = {
    "linear": replace(SMALL, methods=("lora-one", "lora", "lora-adamw", "adalora", "full")),
    "linear, over-ranked": replace(SMALL, rank=4, methods=("lora", "p-lora"), init_std=1e-3),
    "linear, deficient": replace(SMALL, rank=1, seeds=(0, 5)),
    "linear, noise": replace(SMALL, noise_std=0.1, methods=("lora-one", "full", "lora-pro")),
    "linear, N = inf": replace(SMALL, ratio=math.inf, methods=("lora", "rslora", "flow")),
    "linear, N < d": replace(SMALL, ratio=0.5, ensemble="rademacher"),
    "linear, absolute": replace(SMALL, fraction=None, learning_rate=0.3, steps=61),
    "linear, diverging": replace(SMALL, fraction=None, learning_rate=9.0),
    "relu": RELU,
    "relu, N = inf": replace(RELU, ratio=math.inf, ensemble="orthonormal"),
    "relu, noise": replace(RELU, noise_std=0.1),
    "sensing": replace(SENSING, methods=("lora-one", "lora", "pissa")),
    "sensing, noise": replace(SENSING, noise_std=0.1),
    "linear, noise, deficient": replace(SMALL, rank=1, noise_std=0.1),
    "linear, noise, over-ranked": replace(SMALL, rank=4, noise_std=0.1),
    "sensing, noise, deficient": replace(SENSING, rank=1, noise_std=0.1, condition_number=4.0),
    "sensing, noise, over-ranked": replace(SENSING, d=6, k=6, rank=3, noise_std=0.1),
    **{f"sensing, {name}": replace(SENSING, ensemble=name) for name in ENSEMBLES["sensing"]},
}


def carried_out(code: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    before = torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, "script", "exec"), found)
    finally:
        torch.set_num_threads(before)
    return found


def of(result: Result, method: str) -> Curves:
    return next(curves for curves in result.curves if curves.method == method)


def line(curves: Curves, label: str) -> np.ndarray:
    return next(each.values for each in curves.lines if each.label.startswith(label))


@pytest.mark.parametrize("name", SPREAD)
def test_the_script_gives_what_is_plotted(name: str) -> None:
    """Every number of every curve and dashed line, bit for bit."""
    result = model.run(SPREAD[name])
    found = carried_out(script(result))
    assert set(found["curves"]) == {curves.method for curves in result.curves}
    for curves in result.curves:
        for record, values in curves.records.items():
            theirs = found["curves"][curves.method][record]
            np.testing.assert_array_equal(theirs.reshape(values.shape), values)
        for each in curves.lines:
            theirs = np.asarray(found["theory"][curves.method, each.panel, each.label])
            np.testing.assert_array_equal(theirs, each.values)
    assert len(found["theory"]) == sum(len(curves.lines) for curves in result.curves)


@pytest.mark.parametrize("name", ["linear", "linear, absolute", "relu", "sensing"])
def test_pieces_are_of_one_run(name: str) -> None:
    """What grows under the eyes of a user ends with the bits of a run in one piece."""
    pieces = list(model.grow(SPREAD[name], patience=0.0))
    whole = model.run(SPREAD[name])
    done = [piece.done for piece in pieces]
    assert done == sorted(set(done))
    assert done[-1] == SPREAD[name].steps
    for ours, theirs in zip(pieces[-1].curves, whole.curves, strict=True):
        np.testing.assert_array_equal(ours.steps, theirs.steps)
        for record, values in theirs.records.items():
            np.testing.assert_array_equal(ours.records[record], values)


@pytest.mark.parametrize("kind", ENSEMBLES)
def test_every_method_runs_or_says_why_not(kind: str) -> None:
    start = {"linear": SMALL, "relu": RELU, "sensing": SENSING}[kind]
    result = model.run(replace(start, methods=tuple(lt.METHODS), steps=5))
    there = {curves.method for curves in result.curves}
    assert there | set(result.refusals) == set(lt.METHODS)
    assert not there & set(result.refusals)
    # Only those that start from W have no meaning, where there is none.
    needy = {"pissa", "milora", "olora", "lora-xs"} if kind == "sensing" else set()
    assert set(result.refusals) == needy
    assert all("W" in why for why in result.refusals.values())
    for curves in result.curves:
        assert np.isfinite(curves.records["loss"]).all()
        assert curves.status


class TestLinesOfTheory:
    """Each against the formula or the public prediction that it stands for."""

    def test_a_step_is_a_fraction_of_the_best(self) -> None:
        problem = lt.sample_linear(d=12, k=10, true_rank=2, samples=96, condition_number=4.0)
        best = float(lt.predict.contraction(problem, "lora-one", rank=2).best_step)
        assert of(model.run(SMALL), "lora-one").learning_rate == 0.5 * best

    def test_without_a_best_step_the_absolute_one_is_taken(self) -> None:
        curves = of(model.run(SPREAD["linear"]), "lora-adamw")
        assert curves.learning_rate == SMALL.learning_rate
        assert curves.notes[0].startswith("no best step is predicted")
        assert not any(each.label == "local rate" for each in curves.lines)

    def test_local_rate(self) -> None:
        curves = of(model.run(SMALL), "lora")
        problem = lt.sample_linear(d=12, k=10, true_rank=2, samples=96, condition_number=4.0)
        near = lt.predict.contraction(problem, "lora", rank=2)
        rate = float(near.loss_rate(curves.learning_rate))
        values, loss = line(curves, "local rate")[:, 0], curves.records["loss"][:, 0]
        first = int(np.argmax(np.sqrt(loss / loss[0]) <= 0.1))
        assert np.isnan(values[:first]).all()
        assert values[first] == loss[first]
        slopes = values[first + 1 :] / values[first:-1]
        # Two powers and a quotient.
        assert slopes == pytest.approx(rate**2, rel=rounding(60))

    def test_floor_of_a_short_rank(self) -> None:
        result = model.run(replace(SMALL, rank=1, seeds=(0, 5)))
        problem = lt.sample_linear(
            d=12, k=10, true_rank=2, samples=96, condition_number=4.0, seeds=(0, 5)
        )
        target = problem.covariance.half(problem.shift.dense())
        second = torch.linalg.svdvals(target)[..., 1]
        values = line(of(result, "lora-one"), "floor")
        assert values[-1] == pytest.approx((second**2 / 2).numpy(), rel=rounding(12))
        assert (of(result, "lora-one").records["loss"] >= values * (1 - rounding(100))).all()

    def test_plateau(self) -> None:
        curves = of(model.run(SPREAD["linear, over-ranked"]), "lora")
        problem = lt.sample_linear(d=12, k=10, true_rank=2, samples=96, condition_number=4.0)
        assert (line(curves, "plateau") == lt.predict.plateau(problem, rank=4).numpy()).all()

    def test_envelope(self) -> None:
        curves = of(model.run(RELU), "lora-one-preconditioned")
        values = line(curves, "envelope")[:, 0]
        rate = 1 - curves.learning_rate / 4
        expected = curves.records["error"][0, 0] * rate**curves.steps
        assert values == pytest.approx(expected, rel=rounding(60))

    def test_noise_floors(self) -> None:
        result = model.run(SPREAD["linear, noise"])
        mean = line(of(result, "full"), "mean noise floor")
        assert mean == pytest.approx(0.1**2 / 2 * 10 * 12 / (96 - 12 - 1), rel=rounding(10))
        problem = lt.sample_linear(
            d=12, k=10, true_rank=2, samples=96, condition_number=4.0, noise_std=0.1
        )
        expected = lt.predict.noise_floor(problem, noise_std=0.1).numpy()
        assert (line(of(result, "lora-one"), "noise floor") == expected).all()

    def test_noise_floors_of_other_ranks(self) -> None:
        problem = lt.sample_linear(
            d=12, k=10, true_rank=2, samples=96, condition_number=4.0, noise_std=0.1
        )
        over = of(model.run(SPREAD["linear, noise, over-ranked"]), "lora-one")
        expected = lt.predict.noise_floor(problem, noise_std=0.1, rank=4).numpy()
        assert (line(over, "noise floor") == expected).all()
        C = problem.covariance.half(torch.eye(12, dtype=torch.float64)[None])
        U, S, Vh = torch.linalg.svd(problem.answer)
        fit = torch.linalg.lstsq(C, U[..., :1] * S[:, None, :1] @ Vh[:, :1]).solution
        risk = float(0.5 * (fit - problem.shift.dense()).square().sum())
        short = of(model.run(SPREAD["linear, noise, deficient"]), "lora-one")
        # A factor of Σ̂ of condition number below ten at N = 8d.
        wanted = pytest.approx(risk, rel=rounding(96, operations=4, condition=10))
        assert line(short, "best fit")[-1, 0] == wanted

    @pytest.mark.parametrize("name", ["deficient", "over-ranked"])
    def test_best_fits_of_measurements(self, name: str) -> None:
        """Where a long run of the same settings ends."""
        settings = replace(
            SPREAD[f"sensing, noise, {name}"],
            d=12,
            k=12,
            steps=2000,
            methods=("lora-one-preconditioned",),
        )
        curves = of(model.run(settings), "lora-one-preconditioned")
        end, level = curves.records["risk"][-1, 0], line(curves, "best fit")[-1, 0]
        # What the run's last change of the loss leaves of its distance, of a risk that is linear
        # in the noise there.
        assert end == pytest.approx(level, rel=1e3 * rounding(12 * 12) ** 0.5)
        assert any(note.startswith("risk of the best fit") for note in curves.notes)

    def test_no_best_fit_where_directions_are_not_measured(self) -> None:
        """An empty row of completion."""
        noisy = replace(SENSING, ensemble="completion", rank=1, ratio=0.6, noise_std=0.1)
        each = (replace(noisy, seeds=(seed,)) for seed in range(20))
        few = next(s for s in each if bool((s.problem().operator.counts.sum(-1) == 0).any()))
        assert few.samples >= 12 + 12 - 1  # as many as a matrix of rank one has
        curves = of(model.run(replace(few, steps=5)), "lora-one")
        assert not any(each.label == "best fit" for each in curves.lines)
        assert any("not measured" in note for note in curves.notes)

    def test_singular_values_of_the_flow(self) -> None:
        """Early, where AB = sinh(λt)·(UᵀA₀A₀ᵀU) on each pair for a small A₀."""
        small = replace(SPREAD["linear, N = inf"], init_std=1e-6, steps=10, methods=("lora",))
        curves = of(model.run(replace(small, condition_number=1.0, fraction=0.1)), "lora")
        values = line(curves, "gradient flow")
        learned = curves.records["singular_values"][1:, :2]
        # Descent is within O(η) of its flow: (1 + η)ᵗ against e^{ηt}, η = 0.1·(2/3) at κ = 1.
        eta = curves.learning_rate
        slack = eta**2 * curves.steps[1:, None]
        assert (np.abs(np.log(learned / values)) <= slack).all()

    def test_reasons_stand_where_there_is_no_line(self) -> None:
        result = model.run(replace(RELU, methods=("lora",), noise_std=0.1))
        (curves,) = result.curves
        told = " ".join(curves.notes)
        for word in ("no rate", "envelope", "plateau", "risk floor of label noise"):
            assert word in told, word
        assert {each.label for each in curves.lines} == {"those of Δ"}


class TestRefusals:
    """One sentence each, before anything is drawn."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rank": 11}, "rank must satisfy 1 <= rank <= min"),
            ({"true_rank": 11}, "true_rank must satisfy"),
            ({"methods": ()}, "methods must name at least one"),
            ({"methods": ("lora-on",)}, "did you mean 'lora-one'"),
            ({"model": "cubic"}, "model must be one of"),
            ({"ensemble": "dense"}, "ensemble must be one of"),
            ({"ratio": 0.0}, "ratio"),
            ({"ratio": math.inf, "noise_std": 0.1}, "infinitely many samples"),
            ({"model": "sensing", "ensemble": "dense", "ratio": math.inf}, "finite number"),
            ({"model": "relu", "ensemble": "orthonormal", "k": 20}, "orthonormal columns need"),
            ({"seeds": tuple(range(9))}, "seeds must be 1 to 8"),
            ({"fraction": 0.0}, "fraction"),
            ({"learning_rate": -1.0}, "learning_rate"),
            ({"init_std": 0.0}, "init_std"),
            ({"noise_std": -1.0}, "noise_std"),
            ({"condition_number": 0.5}, "condition_number"),
        ],
        ids=str,
    )
    def test_one_sentence(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            model.run(replace(SMALL, **changes))
        assert "\n" not in str(caught.value)

    def test_a_rank_that_one_method_lacks(self) -> None:
        result = model.run(replace(SMALL, rank=8, methods=("lora-ga", "lora")))
        assert list(result.refusals) == ["lora-ga"]
        assert "not defined here: lora-ga takes 2r" in words.table(result)

    def test_divergence_is_a_status(self) -> None:
        curves = of(model.run(SPREAD["linear, diverging"]), "lora-one")
        assert curves.failed
        assert any("lower the learning rate" in status for status in curves.status)


class TestFigure:
    """The paths of the SVG are the numbers."""

    def test_paths_lead_through_the_values(self) -> None:
        result = model.run(SMALL)
        drawn = plot.figure(result)
        panel = re.search(r'<svg [^>]*data-record="loss".*?</svg>', drawn)
        assert panel is not None
        kind, low, high, last = re.search(r'data-axis="([^"]*)"', panel[0])[1].split()  # type: ignore[index]
        assert (kind, last) == ("log", "60.0")
        paths = dict(
            re.findall(r'<path d="([^"]*)"[^>]*data-method="lora" data-line="([^"]*)"', panel[0])
        )
        for d, label in paths.items():
            curves = of(result, "lora")
            values = line(curves, label) if label else curves.records["loss"]
            points = np.array([p.split() for p in re.findall(r"[ML]([^ML]*)", d)], dtype=float)
            right, up = points.T
            steps = 60 * (right - plot.LEFT) / (plot.WIDTH - plot.LEFT - plot.RIGHT)
            height = (plot.HEIGHT - plot.BOTTOM - up) / (plot.HEIGHT - plot.TOP - plot.BOTTOM)
            span = math.log10(float(high) / float(low))
            found = math.log10(float(low)) + height * span
            shown = np.isfinite(values[:, 0]) & (values[:, 0] >= float(low))
            # Two decimals of a coordinate, half of the last one each way.
            across = 0.0051 * 60 / (plot.WIDTH - plot.LEFT - plot.RIGHT)
            off = 0.0051 * span / (plot.HEIGHT - plot.TOP - plot.BOTTOM)
            assert np.abs(steps - curves.steps[shown]).max() <= across
            assert np.abs(found - np.log10(values[shown, 0])).max() <= off
        assert set(paths.values()) == {"", "local rate"}

    def test_what_has_no_place_breaks_the_path(self) -> None:
        drawn = plot.figure(model.run(SPREAD["linear, diverging"]))
        assert "nan" not in re.sub(r"from [^<]*", "", drawn)
        assert "inf" not in "".join(re.findall(r' d="([^"]*)"', drawn))

    @pytest.mark.parametrize(
        ("axis", "labels"),
        [
            (axes.Axis(0.0, 1.05), ["0", "0.5", "1"]),
            (axes.Axis(0.0, 60.0), ["0", "20", "40", "60"]),
            (axes.Axis(1e-8, 1.0, log=True), ["1", "1e-2", "1e-4", "1e-6", "1e-8"]),
        ],
        ids=["alignment", "steps", "loss"],
    )
    def test_ticks(self, axis: axes.Axis, labels: list[str]) -> None:
        assert [label for _, label in axis.ticks()] == labels

    def test_no_value_can_be_drawn_on_a_logarithmic_axis(self) -> None:
        assert axes.fitted(np.array([0.0, np.nan]), log=True) == axes.Axis(0.1, 1.0, log=True)


def test_words_are_escaped() -> None:
    assert "&lt;b&gt;" in words.refusal("<b>")
    assert "&lt;b&gt;" in words.code("<b>")


def test_the_command_writes_a_script_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from loraone_theory.cli import main

    target = tmp_path / "lab.py"
    assert main(["explore", "--script", str(target)]) == 0
    assert capsys.readouterr().out == f"wrote {target}\n"
    found = carried_out(target.read_text(encoding="utf-8"))
    expected = model.run(Settings())
    for curves in expected.curves:
        np.testing.assert_array_equal(
            found["curves"][curves.method]["loss"], curves.records["loss"]
        )
