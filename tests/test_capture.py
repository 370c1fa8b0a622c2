"""Recorded steps against the steps themselves, by a double of the device's graph on the CPU."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import graph_double
import numpy as np
import pytest
import tolerance
import torch
from graph_double import GraphDouble

import loraone_theory as lt
from loraone_theory.core import eigen
from loraone_theory.dynamics import capture, plan, settings, steppers
from loraone_theory.dynamics.by_rule import ByRule
from loraone_theory.dynamics.execution import prepare
from loraone_theory.methods.rules import Rule, gd
from loraone_theory.problems.base import Problem, fact, facts
from loraone_theory.problems.sensing.operators import OPERATORS

D, K, RANK, STEPS, ETA = 9, 8, 2, 4, 0.02
SIZES: dict[str, Any] = {"d": D, "k": K, "true_rank": 2, "seeds": (0, 1)}
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "linear": lambda: lt.sample_linear(**SIZES, samples=60),
    "linear with noise": lambda: lt.sample_linear(**SIZES, samples=60, noise_std=0.1),
    "linear, tridiagonal": lambda: lt.sample_linear_matrix_free(**SIZES, samples=60),
    "relu": lambda: lt.sample_relu(**SIZES, samples=60, relative_shift=0.1),
    "relu population": lambda: lt.sample_relu(**SIZES, samples=60, relative_shift=0.1).population,
    **{
        f"sensing, {name}": lambda name=name: lt.sample_sensing(
            ensemble=name, **SIZES | {"k": D if name == "symmetric" else K}, measurements=304
        )
        for name in OPERATORS
    },
}
# Relative errors of a few steps of products of length 304 at damped Gram matrices, whose entries
# are 0.09·D at the least: nothing is magnified by more than 1e3.
CLOSE = tolerance.rounding(304, operations=8 * STEPS, condition=1e3)


def method(name: str, **options: Any) -> lt.Method:
    factory = lt.METHODS[name]
    known = inspect.signature(factory).parameters
    return factory(**({"init_std": 0.3} if "init_std" in known else {}) | options)


# What a hyper-parameter of a rule may be besides its default, which is another way through it.
OTHERWISE: dict[str, Any] = {
    "adaptive": 0.5, "weight_decay": 0.5, "beta": 0.5, "betas": (0.0, 0.5), "escaped_mass": True,
    "bias_correction": True, "order": "peft", "squared": True, "covariance": np.eye(D) + 0.5,
}  # fmt: skip
VARIANTS = [
    (name, {option: value})
    for name, factory in lt.METHODS.items()
    for option, value in OTHERWISE.items()
    if option in inspect.signature(factory).parameters
]


def prepared(problem: Problem, chosen: lt.Method, **options: Any) -> plan.Plan:
    known = {"rank": RANK, "learning_rate": ETA, "steps": STEPS, "damping": 0.1}
    if not chosen.facts.inverts:
        del known["damping"]
    return prepare(problem, chosen, settings.check(problem, chosen, **(known | options)))


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[GraphDouble]]:
    """The graphs that are made while the CPU counts as a device that records."""
    made: list[GraphDouble] = []

    def record(work: Callable[[], None], like: torch.Tensor) -> GraphDouble:
        assert like.device.type == "cpu"
        made.append(GraphDouble(work))
        return made[-1]

    monkeypatch.setitem(capture.RECORDERS, "cpu", record)
    with torch.no_grad():
        yield made


def run(stepper: steppers.Stepper, count: int = STEPS) -> list[torch.Tensor]:
    for t in range(count):
        stepper.step(t)
    return [tensor.clone() for tensor in stepper.params]


def compared(monkeypatch: pytest.MonkeyPatch, made: plan.Plan) -> tuple[Any, Any]:
    """A stepper that replays and one that does not, after the same steps."""
    recorded = steppers.make(made)
    with monkeypatch.context() as without:
        without.delitem(capture.RECORDERS, "cpu")
        plain = steppers.make(made)
    for found, expected in zip(run(recorded), run(plain), strict=True):
        tolerance.close(found, expected, CLOSE)
    return recorded, plain


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem_is_replayed(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble], problem: str
) -> None:
    for name in ("lora", "lora-one-adamw"):
        given = PROBLEMS[problem]()
        if fact(given, "matrix_free") and not method(name).facts.equivariant:
            continue
        stepper, _ = compared(monkeypatch, prepared(given, method(name)))
        assert stepper._recorded is not None
        assert recorders[-1].replays == STEPS


@pytest.mark.parametrize("name", lt.METHODS)
def test_every_method_is_replayed_where_its_rule_says_so(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble], name: str
) -> None:
    """On the ReLU problem, where all go by gradient and rule; counts come out as numbers."""
    made = prepared(PROBLEMS["relu"](), method(name))
    stepper, plain = compared(monkeypatch, made)
    assert (stepper._recorded is not None) == made.rule.replays
    for found, expected in zip(stepper.saved()[1:], plain.saved()[1:], strict=True):
        leaves = [list(steppers.capture.leaves_of(state)) for state in (found, expected)]
        assert [type(x) for x in leaves[0]] == [type(x) for x in leaves[1]]
        numbers = [[x for x in side if not isinstance(x, torch.Tensor)] for side in leaves]
        assert numbers[0] == numbers[1]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_variant_is_replayed_where_its_rule_says_so(
    monkeypatch: pytest.MonkeyPatch,
    recorders: list[GraphDouble],
    name: str,
    options: dict[str, Any],
) -> None:
    made = prepared(PROBLEMS["relu"](), method(name, **options))
    stepper, _ = compared(monkeypatch, made)
    assert (stepper._recorded is not None) == made.rule.replays


def test_a_step_with_too_wide_decompositions_goes_on_without_a_graph(
    recorders: list[GraphDouble],
) -> None:
    wide = lt.sample_relu(d=12, k=11, true_rank=2, samples=60, relative_shift=0.1)
    stepper = steppers.make(prepared(wide, method("p-lora"), rank=eigen.WIDEST + 1))
    assert stepper._recorded is None
    assert recorders == []
    run(stepper)


@pytest.mark.parametrize("name", [n for n in lt.METHODS if not method(n).facts.replays])
def test_rules_that_do_not_say_so_could_not_be(recorders: list[GraphDouble], name: str) -> None:
    """They look at what they compute, which the device refuses; so none is left out for nothing."""
    made = prepared(PROBLEMS["relu"](), method(name))
    vars(made)["rule"] = made.rule._replace(replays=True)
    assert steppers.make(made)._recorded is None
    assert recorders == []


IN_PLACE = [n for n in lt.METHODS if method(n).facts.descent and method(n).is_pair]


@pytest.mark.parametrize(
    "rate", [ETA, [ETA, ETA / 2], lt.schedules.cosine(ETA, steps=STEPS)], ids=str
)
@pytest.mark.parametrize("name", IN_PLACE)
def test_steps_in_place_are_replayed(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble], name: str, rate: Any
) -> None:
    """Also with a rate of every step, which is written where the recorded step reads it."""
    made = prepared(PROBLEMS["linear"](), method(name), learning_rate=rate)
    made.batch.rates.prepare(0, STEPS)
    stepper, _ = compared(monkeypatch, made)
    assert isinstance(stepper, steppers.InPlace)
    assert recorders[-1].replays == STEPS


RATES: dict[str, Any] = {
    "schedule": lt.schedules.cosine(ETA, steps=STEPS),
    "schedules": [ETA, lt.schedules.linear(ETA, steps=STEPS)],
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", lt.METHODS)
def test_rates_of_every_step_are_read_where_they_lie(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble], name: str, rate: str
) -> None:
    """By gradient and rule: each step's η is written where the recorded one reads it."""
    made = prepared(PROBLEMS["relu"](), method(name), learning_rate=RATES[rate])
    stepper, _ = compared(monkeypatch, made)
    assert (stepper._recorded is not None) == made.rule.replays


BY_ROWS = {
    "linear": lambda: lt.sample_linear(**SIZES, samples=60, noise_std=0.1, keep_inputs=True),
    "relu": PROBLEMS["relu"],
    "sensing, rank-one": PROBLEMS["sensing, rank-one"],
    "sensing, multi-response": PROBLEMS["sensing, multi-response"],
}


@pytest.mark.parametrize("sampling", ["with-replacement", "epochs"])
@pytest.mark.parametrize("problem", BY_ROWS)
def test_minibatches_are_replayed(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble], problem: str, sampling: str
) -> None:
    """The rows of each step are written where the recorded one reads them; with a schedule too."""
    given = BY_ROWS[problem]()
    size = facts(given).samples // 2
    options = {"batch_size": size, "sampling": sampling, "learning_rate": RATES["schedule"]}
    stepper, _ = compared(monkeypatch, prepared(given, method("lora-one-adamw"), **options))
    assert stepper._recorded is not None
    assert recorders[-1].replays == STEPS


def test_minibatches_that_are_no_fixed_work_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble]
) -> None:
    """Pieces of an epoch of two lengths; rows drawn afresh."""
    cases: list[tuple[str, dict[str, Any]]] = [
        ("linear", {"batch_size": 7, "sampling": "epochs"}),
        ("linear", {"batch_size": 5, "sampling": "fresh"}),
    ]
    for problem, options in cases:
        given = BY_ROWS[problem]()
        stepper, _ = compared(monkeypatch, prepared(given, method("lora"), **options))
        assert stepper._recorded is None
    assert recorders == []


def test_a_run_on_minibatches_with_recorded_steps_is_the_run(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble]
) -> None:
    """Going on from a point takes the rows and the rates of the steps that follow."""
    given, chosen = BY_ROWS["relu"](), method("lora")
    options: dict[str, Any] = {"rank": RANK, "batch_size": 8, "seeds": (0, 1), "steps": 5}
    options["learning_rate"] = lt.schedules.cosine(ETA, steps=9)
    found = lt.simulate(given, chosen, **options).extend(4)
    assert sum(graph.replays for graph in recorders) >= 9
    monkeypatch.delitem(capture.RECORDERS, "cpu")
    expected = lt.simulate(given, chosen, **options).extend(4)
    allowed = tolerance.rounding(304, operations=8 * 9, condition=1e3)
    tolerance.roots(found["loss"], expected["loss"], allowed)
    for ours, theirs in zip(found.final, expected.final, strict=True):
        tolerance.close(ours, theirs, allowed)


def test_pieces_of_a_large_problem_are_replayed(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble]
) -> None:
    monkeypatch.setattr(steppers, "BLOCK_BYTES", 1)
    problem = lt.sample_linear_matrix_free(d=641, k=4, true_rank=2, samples=20_000)
    stepper, _ = compared(monkeypatch, prepared(problem, method("p-lora")))
    assert len(stepper._pieces) == 3
    assert recorders[-1].replays == STEPS


@pytest.mark.parametrize(
    ("problem", "name"),
    [("linear", "lora"), ("linear", "p-lora"), ("relu", "lora-one-scaled-adamw")],
)
def test_runs_with_recorded_steps_are_the_runs(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble], problem: str, name: str
) -> None:
    """Records, a divergence in the middle, and going on from a point: all of `simulate`."""
    options: dict[str, Any] = {"rank": RANK, "steps": 6, "learning_rate": [ETA, 1e200]}
    if method(name).facts.inverts:
        options["damping"] = 0.1
    given = PROBLEMS[problem]()
    found = lt.simulate(given, method(name), **options)
    found = found.extend(3)
    assert sum(graph.replays for graph in recorders) >= 9
    monkeypatch.delitem(capture.RECORDERS, "cpu")
    expected = lt.simulate(given, method(name), **options).extend(3)
    assert [s.step for s in found.status.flat] == [s.step for s in expected.status.flat]
    allowed = tolerance.rounding(304, operations=8 * 9, condition=1e3)
    tolerance.roots(found["loss"][:, 0], expected["loss"][:, 0], allowed)
    for ours, theirs in zip(found.final, expected.final, strict=True):
        tolerance.close(ours[0], theirs[0], allowed)


def test_buffers_stay_where_they_are(recorders: list[GraphDouble]) -> None:
    """Through steps, saving and loading; a saved state is a copy, which later steps leave alone."""
    stepper = steppers.make(prepared(PROBLEMS["relu"](), method("lora-one-adamw")))
    leaves = [*stepper.params, *capture.leaves_of(stepper.state)]
    places = [tensor.data_ptr() for tensor in leaves]
    before = stepper.saved()
    first = run(stepper, 3)
    kept = stepper.saved()
    run(stepper, 2)
    assert all(torch.equal(a, b) for a, b in zip(kept[0], first, strict=True))
    stepper.load(*before)
    assert all(torch.equal(a, b) for a, b in zip(run(stepper, 3), first, strict=True))
    now = [*stepper.params, *capture.leaves_of(stepper.state)]
    assert [tensor.data_ptr() for tensor in now] == places


def test_recording_leaves_the_start_as_it_was(recorders: list[GraphDouble]) -> None:
    for problem in ("linear", "relu"):
        made = prepared(PROBLEMS[problem](), method("p-lora"))
        start = [tensor.clone() for tensor in made.start.trainable]
        stepper = steppers.make(made)
        assert all(torch.equal(a, b) for a, b in zip(stepper.params, start, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(made.start.trainable, start, strict=True))
        assert not any(bool(x.any()) for x in capture.leaves_of(stepper.state))


# --- mutants: each breaks what a recorded step has to keep, and is found out -------------------


def stepped(update: Callable[..., Any], state: Any = None) -> Callable[..., Rule]:
    """A rule of plain descent whose step goes through `update` on the way."""

    def factory(learning_rate: float, damping: float = 0.0) -> Rule:
        base = gd(learning_rate)

        def changed(params: Any, gradients: Any, now: Any) -> Any:
            factor, after = update(params, now)
            scaled = tuple(factor * G for G in gradients)
            return base.update(params, scaled, None)[0], after

        return Rule(lambda params: state, changed, replays=True)

    return factory


def broken(update: Callable[..., Any], state: Any = None) -> plan.Plan:
    chosen = method("lora").with_rule(stepped(update, state), name="broken")
    return prepared(PROBLEMS["relu"](), chosen)


def test_the_unbroken_rule_passes(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble]
) -> None:
    """A count in the state is no Python state: it enters as a tensor."""
    counting = broken(lambda params, t: (1 / (1 + t), t + 1), 0)
    stepper, plain = compared(monkeypatch, counting)
    assert stepper._recorded is not None
    assert stepper.saved()[1] == plain.saved()[1] == STEPS


def test_a_value_read_back_is_refused(recorders: list[GraphDouble]) -> None:
    """By .item(), float(), bool(), a mask and a decomposition that checks itself."""
    reading: list[Callable[[torch.Tensor], Any]] = [
        lambda A: A.sum().item(),
        lambda A: float(A.sum()),
        lambda A: 1.0 if bool((A > 0).all()) else 2.0,
        lambda A: A[A > 0].sum(),
        lambda A: torch.linalg.eigvalsh(A.mT @ A).sum(),
        lambda A: torch.linalg.svdvals(A).sum(),
    ]
    for read in reading:
        made = broken(lambda params, _, read=read: (0 * read(params[0]) + 1, None))
        assert steppers.make(made)._recorded is None
    assert recorders == []


def test_a_number_that_decides_is_refused(recorders: list[GraphDouble]) -> None:
    deciding = broken(lambda params, t: (0.5 if t > 2 else 1.0, t + 1), 0)
    assert steppers.make(deciding)._recorded is None
    assert recorders == []


def test_python_state_is_found_out(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble]
) -> None:
    """A count outside the state stands still in the graph; the comparison sees it."""
    calls = []

    def counted(params: Any, _: Any) -> Any:
        calls.append(1)
        return 1 / len(calls), None

    with pytest.raises(AssertionError, match="apart"):
        compared(monkeypatch, broken(counted))


def test_a_reallocated_buffer_is_found_out(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble]
) -> None:
    """Values that go to memory of their own: the next replay starts from the old ones."""
    monkeypatch.setattr(capture, "_overwrite", lambda buffers, values: None)
    with pytest.raises(AssertionError, match="apart"):
        compared(monkeypatch, prepared(PROBLEMS["relu"](), method("lora")))


def test_reallocated_space_in_place_is_found_out(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble]
) -> None:
    """A buffer of the stepper in place that its step makes anew."""
    advance = steppers.InPlace._advance

    def anew(stepper: Any, state: Any) -> Any:
        stepper._A = stepper._A.clone()
        stepper._pieces = [p._replace(A=stepper._A) for p in stepper._pieces]
        return advance(stepper, state)

    monkeypatch.setattr(steppers.InPlace, "_advance", anew)
    with pytest.raises(AssertionError, match="apart"):
        compared(monkeypatch, prepared(PROBLEMS["linear"](), method("lora")))


@pytest.mark.parametrize("held", ["_rate", "_rows"])
def test_a_rate_or_rows_of_another_step_are_found_out(
    monkeypatch: pytest.MonkeyPatch, recorders: list[GraphDouble], held: str
) -> None:
    """What the recorded step reads is not written: it stays that of the first step."""
    turn = ByRule._turn_to

    def stale(stepper: Any, t: int) -> None:
        kept = getattr(stepper, held).clone()
        turn(stepper, t)
        getattr(stepper, held).copy_(kept)

    monkeypatch.setattr(ByRule, "_turn_to", stale)
    options = {"batch_size": 8, "learning_rate": RATES["schedule"]}
    with pytest.raises(AssertionError, match="apart"):
        compared(monkeypatch, prepared(PROBLEMS["relu"](), method("lora"), **options))


def test_leaves_that_change_their_shape_are_refused(recorders: list[GraphDouble]) -> None:
    growing = broken(lambda params, seen: (1.0, torch.cat([seen, seen])), torch.ones(1))
    assert steppers.make(growing)._recorded is None
    number = broken(lambda params, seen: (1.0, 3), torch.ones(1))
    assert steppers.make(number)._recorded is None


def test_leaves_may_change_places(recorders: list[GraphDouble]) -> None:
    """Each buffer gets the other's value, also as a view of it, and none its own."""
    first, second = torch.ones(2, 2), torch.arange(4.0).reshape(2, 2)

    def swap(tree: Any) -> Any:
        return tree[1], tree[0].mT

    found = capture.recorded(swap, (first, second), like=first)
    assert found is not None
    found.graph.replay()
    assert torch.equal(found.buffers[0], second)
    assert torch.equal(found.buffers[1], first.mT)


def test_nothing_is_recorded_on_the_cpu() -> None:
    stepper = steppers.make(prepared(PROBLEMS["relu"](), method("lora")))
    assert stepper._recorded is None


def test_the_double_refuses_what_a_device_does() -> None:
    M = torch.ones(3, 3)
    waiting: list[Callable[[], Any]] = [
        lambda: M.sum().item(),
        lambda: bool(M.any()),
        lambda: M.nonzero(),
        lambda: M[M > 0],
        lambda: torch.linalg.eigh(M),
        lambda: torch.linalg.svd(M),
        lambda: torch.equal(M, M),
    ]
    for wait in waiting:
        with graph_double.Recording(), pytest.raises(graph_double.Waited):
            wait()
    with graph_double.Recording():
        (M @ M).add_(1)[..., 1:].sum()


# --- rotations in place of a decomposition that checks itself ----------------------------------


def spectra(r: int) -> dict[str, np.ndarray]:
    return {
        "full": np.arange(1.0, r + 1),
        "singular": np.where(np.arange(r) < (r + 1) // 2, 1.0 + np.arange(r), 0.0),
        "graded": np.logspace(0, -14, r),
        "equal": np.ones(r),
        "zero": np.zeros(r),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("r", range(1, eigen.WIDEST + 1))
def test_rotations_give_the_eigenvalues_that_went_in(r: int, dtype: torch.dtype) -> None:
    """M = QΛQᵀ with known Λ: Weyl's bound for the values, MV = VΛ and VᵀV = I for the vectors."""
    rng = np.random.default_rng(r)
    for name, values in spectra(r).items():
        Q = np.linalg.qr(rng.standard_normal((20, r, r))).Q
        M = torch.from_numpy((Q * values) @ Q.swapaxes(-1, -2)).to(dtype)
        found, V = eigen.jacobi(M)
        size = float(values.max(initial=0.0))
        # Two products of length r make M; each round is two more of length 2, of entries <= size.
        allowed = tolerance.rounding(r, operations=4 + 4 * eigen.SWEEPS, dtype=dtype)
        expected = torch.from_numpy(np.sort(values)).to(dtype)
        assert float((found - expected).abs().max()) <= allowed * size, name
        assert float((M @ V - V * found[..., None, :]).abs().max()) <= allowed * size, name
        assert float((V.mT @ V - torch.eye(r, dtype=dtype)).abs().max()) <= allowed, name


def test_rotations_are_used_while_recording_alone() -> None:
    M = torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64))
    with graph_double.Recording() as seen, eigen.recorded_work():
        values, again = eigen.eigh(M)[0], eigen.eigvalsh(M)
    assert values.tolist() == again.tolist() == [1.0, 2.0, 3.0]
    assert seen.calls
    with graph_double.Recording(), pytest.raises(graph_double.Waited):
        eigen.eigh(M)
    wide = torch.eye(eigen.WIDEST + 1)
    for decompose in (eigen.eigh, eigen.eigvalsh):
        with eigen.recorded_work(), pytest.raises(RuntimeError, match="no decomposition wider"):
            decompose(wide)
