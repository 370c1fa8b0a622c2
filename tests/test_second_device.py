"""The library on a second device, by tensors that claim one (second_device.py)."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import test_hostile
import tolerance
import torch
from graph_double import GraphDouble
from second_device import Elsewhere, Mixed, Read, SecondDevice, back, moved, places
from test_capture import CLOSE, ETA, PROBLEMS, RANK, SIZES, VARIANTS, method, prepared
from torch import Tensor

import loraone_theory as lt
from loraone_theory.core import eigen
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics import capture, steppers
from loraone_theory.dynamics.records import RECORDS
from loraone_theory.methods.rules import RULES, Rule, gd
from loraone_theory.problems import recipes
from loraone_theory.problems.base import facts
from loraone_theory.problems.sensing.operators import OPERATORS

# What a step may wait for where it is not recorded: a decomposition that says if it converged.
DECOMPOSITIONS = {"aten._linalg_eigh.default", "aten._linalg_svd.default"}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondDevice]:
    """The second device, which records nothing."""
    monkeypatch.delitem(capture.RECORDERS, "cuda")
    with torch.no_grad(), SecondDevice() as entered:
        yield entered


def there(problem: str) -> Any:
    """A problem of `test_capture`, drawn there."""
    given = PROBLEMS[problem]()
    recipe = facts(given).recipe
    if recipe is None:  # the population of a ReLU problem
        return there("relu").population
    return recipes.rebuild({**recipe, "device": "cuda"})


# --- the step loop -----------------------------------------------------------------------------


def second_step(made: Any, place: SecondDevice, *, sends: bool = False) -> list[str]:
    """What the second step waits for; the first may fill what is kept from step to step.

    Where the rule replays, nothing is sent there either unless the step `sends`.
    """
    stepper = steppers.make(made)
    stepper.step(0)
    place.reads.clear()
    stepper.step(1)
    assert places((stepper.params, list(capture.leaves_of(stepper.state)))) <= {True}
    found = list(place.reads)
    if made.rule.replays:
        with place.unread(sends=sends), eigen.recorded_work():
            stepper.step(2)
    return found


@pytest.mark.parametrize("name", [n for n in lt.METHODS if not method(n).facts.flow])
def test_a_step_of_every_method_waits_for_nothing(place: SecondDevice, name: str) -> None:
    """Nothing at all where the rule says that it replays, else for decompositions alone."""
    for problem in ("relu", "linear"):
        found = second_step(prepared(there(problem), method(name)), place)
        assert set(found) <= DECOMPOSITIONS, found


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_step_of_every_variant_waits_for_nothing(
    place: SecondDevice, name: str, options: dict[str, Any]
) -> None:
    found = second_step(prepared(there("relu"), method(name, **options)), place)
    assert set(found) <= DECOMPOSITIONS, found


@pytest.mark.parametrize("rule", [name for name, make in RULES.items() if not make(0.1).flow])
def test_a_step_of_every_rule_waits_for_what_it_says(place: SecondDevice, rule: str) -> None:
    made = prepared(there("relu"), method("lora").trained_by(rule))
    found = set(second_step(made, place))
    if rule != "gauss-newton":  # its systems are solved until they are
        assert found <= DECOMPOSITIONS, found


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_step_on_every_problem_waits_for_nothing(place: SecondDevice, problem: str) -> None:
    assert second_step(prepared(there(problem), method("lora")), place) == []


@pytest.mark.parametrize("sampling", ["with-replacement", "epochs", "fresh"])
@pytest.mark.parametrize("problem", ["linear", "relu", *(f"sensing, {name}" for name in OPERATORS)])
def test_a_step_on_rows_waits_for_nothing(place: SecondDevice, problem: str, sampling: str) -> None:
    """Rows are drawn on the CPU and sent there."""
    recipe = dict(facts(PROBLEMS[problem]()).recipe or {})
    if problem == "linear":
        recipe["keep_inputs"] = True
    given = recipes.rebuild({**recipe, "device": "cuda"})
    made = prepared(given, method("lora"), batch_size=5, sampling=sampling)
    assert second_step(made, place, sends=True) == []


# --- all of simulate ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", lt.METHODS)
def test_runs_of_every_method_are_those_of_the_cpu(place: SecondDevice, name: str) -> None:
    chosen, options = method(name), {"rank": RANK, "learning_rate": ETA, "steps": 3}
    if chosen.facts.inverts:
        options["damping"] = 0.1
    found = lt.simulate(there("linear"), chosen, **options)
    expected = lt.simulate(PROBLEMS["linear"](), chosen, **options)
    assert places((found.final, found.initial, dict(found.records))) == {True}
    for ours, theirs in zip(back(found.final), expected.final, strict=True):
        tolerance.close(ours, theirs, CLOSE)
    assert [str(s) for s in found.status.flat] == [str(s) for s in expected.status.flat]


def test_a_recorded_run_is_that_of_the_cpu(
    place: SecondDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graph and second device together, with a sweep whose second half diverges."""
    made: list[GraphDouble] = []
    monkeypatch.setitem(
        capture.RECORDERS, "cuda", lambda work, like: made.append(GraphDouble(work)) or made[-1]
    )
    options: dict[str, Any] = {"rank": RANK, "learning_rate": [ETA, 1e200], "steps": 6}
    found = lt.simulate(there("relu"), method("lora-one-adamw"), **options)
    assert made[0].replays >= 6
    expected = lt.simulate(PROBLEMS["relu"](), method("lora-one-adamw"), **options)
    assert [s.step for s in found.status.flat] == [s.step for s in expected.status.flat]
    for ours, theirs in zip(back(found.final), expected.final, strict=True):
        tolerance.close(ours[0], theirs[0], CLOSE)


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_is_that_of_the_cpu(place: SecondDevice, name: str) -> None:
    rows = np.random.default_rng(0).standard_normal((60, 9))
    shift = lt.sample_linear(**SIZES, samples=60).shift.dense()[0]
    given = [
        lt.LinearProblem.from_data(X, shift=M, split=0.2)
        for X, M in (
            (place.put(torch.from_numpy(rows)), place.put(shift)),
            (torch.from_numpy(rows), shift),
        )
    ]
    options: dict[str, Any] = {"rank": RANK, "learning_rate": ETA, "steps": 3, "record": (name,)}
    found, expected = (lt.simulate(problem, "lora-one", **options)[name] for problem in given)
    assert isinstance(found, Elsewhere)
    (ours,) = back(found)
    # A largest curvature is good to eps^{2/3} and angles to rounding over the gap of the spectrum.
    loose = tolerance.eps() ** (2 / 3) if name == "sharpness" else CLOSE
    torch.testing.assert_close(ours, expected, rtol=loose, atol=CLOSE, equal_nan=True)


# --- what is drawn, checked and predicted ------------------------------------------------------


SMALL: dict[str, dict[str, Any]] = {
    "sample_activation": {"samples": 40, "activation": "tanh", "relative_shift": 0.1},
    "sample_linear": {"samples": 40},
    "sample_linear_matrix_free": {"samples": 40},
    "sample_linear_lazy": {"samples": 40, "noise_std": 0.1, "steps": 3, "rank": 2, "k": 60},
    "sample_relu": {"samples": 40, "relative_shift": 0.1},
    "sample_relu_population": {"relative_shift": 0.1},
    "sample_sensing": {"measurements": 80, "ensemble": "dense"},
    "sample_dense_lazy": {"measurements": 80, "steps": 3},
}


@pytest.mark.parametrize("name", recipes.SAMPLERS)
def test_every_sampler_draws_there_what_it_draws_here(place: SecondDevice, name: str) -> None:
    known = inspect.signature(recipes.SAMPLERS[name]).parameters
    sizes = {n: v for n, v in {**SIZES, **SMALL[name]}.items() if n in known}
    found, expected = (recipes.SAMPLERS[name](**sizes, device=d) for d in ("cuda", "cpu"))
    assert found.like.device.type == "cuda"
    if name == "sample_activation":  # torch.func computes on tensors of its own
        return
    rng = np.random.default_rng(0)
    A, B = (torch.from_numpy(rng.standard_normal(n)) for n in ((9, 2), (2, found.k)))
    ours = found.loss(Factors(place.put(A), place.put(B)))
    assert isinstance(ours, Elsewhere)
    torch.testing.assert_close(back(ours)[0], expected.loss(Factors(A, B)), rtol=CLOSE, atol=0)
    gradients = found.gradients(Factors(place.put(A), place.put(B)))
    for mine, theirs in zip(back(gradients), expected.gradients(Factors(A, B)), strict=True):
        tolerance.close(mine, theirs, CLOSE)


PREDICTED = [name for name in test_hostile.TARGETS if name.startswith("lt.predict.")]


@pytest.mark.parametrize("name", PREDICTED)
def test_every_prediction_is_that_of_the_cpu(place: SecondDevice, name: str) -> None:
    call = test_hostile.TARGETS[name]
    given = test_hostile.needed(name)
    sent = moved(given, place)
    with torch.enable_grad():
        found, expected = call(**sent), call(**given)
    assert len(back(found)) == len(back(expected))
    for ours, theirs in zip(back(found), back(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE, equal_nan=True)


def test_values_of_two_places_are_refused_in_words(place: SecondDevice) -> None:
    """By the gates, before anything is computed."""
    X = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 9)))
    M = torch.ones(9, 8, dtype=torch.float64)
    problem = there("linear")
    start = Factors(torch.ones(9, 2, dtype=torch.float64), torch.ones(2, 8, dtype=torch.float64))
    calls: list[Callable[[], Any]] = [
        lambda: lt.LinearProblem.from_data(place.put(X), shift=M),
        lambda: lt.LinearProblem.from_data(X, shift=place.put(M)),
        lambda: lt.ReLUProblem.from_data(place.put(X), pretrained=M, shift=M),
        lambda: lt.SensingProblem.from_data(
            there("sensing, dense").operator, torch.ones(304).double()
        ),
        lambda: lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=1, initial=start),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="same device"):
            call()


# --- mutants -----------------------------------------------------------------------------------


def stepped(change: Callable[[Tensor], Tensor]) -> Callable[..., Rule]:
    """A rule of plain descent with a change on the way."""

    def factory(learning_rate: float, damping: float = 0.0) -> Rule:
        base = gd(learning_rate)

        def update(params: Any, gradients: Any, state: Any) -> Any:
            return base.update(params, tuple(change(G) for G in gradients), state)

        return Rule(base.init, update, replays=True)

    return factory


def mutant(change: Callable[[Tensor], Tensor]) -> Any:
    return prepared(there("relu"), method("lora").with_rule(stepped(change), name="mutant"))


def test_a_tensor_left_on_the_cpu_is_found_out(place: SecondDevice) -> None:
    """Made there by default, kept from before, or used as an index."""
    kept = torch.ones(2, 1)
    second_step(mutant(lambda G: G * torch.ones((), dtype=G.dtype)), place)  # a number is none
    for change in (
        lambda G: G + torch.zeros(G.shape, dtype=G.dtype),
        lambda G: G * kept.to(G.dtype)[..., None],
        lambda G: G @ torch.eye(G.shape[-1], dtype=G.dtype),
        lambda G: G[torch.arange(len(G))],
        lambda G: torch.where(torch.ones(G.shape, dtype=torch.bool), G, 0.0),
    ):
        with pytest.raises(Mixed, match="cuda:0 and on cpu"):
            second_step(mutant(change), place)


def test_a_value_read_in_the_loop_is_found_out(place: SecondDevice) -> None:
    for change in (
        lambda G: G * (1 + 0 * G.sum().item()),
        lambda G: G * (1 + 0 * float(G.sum())),
        lambda G: G if bool((G == G).all()) else 0 * G,
        lambda G: G * len(G[G > 0]),
        lambda G: G * (1 + 0 * G.cpu().sum()),
        lambda G: G * (1 + 0 * float(G.cpu().numpy()[0, 0, 0])),
        lambda G: G * (1 + 0 * G.sum().tolist()),
        lambda G: G * (1 + 0 * torch.linalg.svdvals(G).sum()),
        lambda G: G * (1 + 0 * torch.empty(()).copy_(G.sum())),
        lambda G: G if torch.equal(G, G) else 0 * G,
        lambda G: G * len(G.nonzero()),
    ):
        with pytest.raises(Read, match="makes the host wait"):
            second_step(mutant(change), place)
    with pytest.raises(TypeError, match=r"use Tensor.cpu\(\)"):
        place.put(torch.ones(2)).numpy()


def test_the_double_says_where_things_are(place: SecondDevice) -> None:
    M = place.put(torch.ones(3, 2))
    assert M.device == torch.device("cuda", 0)
    assert M.is_cuda
    assert not M.is_cpu
    for made in (
        M.mT @ M,
        M.new_zeros(2),
        torch.eye(2, device=M.device),
        M[0],
        M.to(torch.float64),
    ):
        assert isinstance(made, Elsewhere)
    assert torch.ones(2).device.type == "cpu"
    assert not isinstance(M.cpu(), Elsewhere)
    assert place.reads == ["a copy to the CPU"]
    view = M[0]
    view.add_(1)
    assert M.cpu().tolist() == [[2.0, 2.0], [1.0, 1.0], [1.0, 1.0]]
