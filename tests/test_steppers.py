"""Steps in place against steps by gradient and rule, and measuring on several threads."""

import pytest
import tolerance
import torch
from tolerance import near, roots, rounding

import loraone_theory as lt
from loraone_theory.core import threads
from loraone_theory.core.status import Outcome
from loraone_theory.dynamics import plan, recorder, records, settings, steppers
from loraone_theory.methods.rules import gd

RECORDED = ("loss", "risk", "error", "left_alignment", "right_alignment", "balance")
# Every method whose rule is plain descent of a pair, a scale other than 1 and an offset among them.
IN_PLACE = {
    "lora": lt.methods.lora(scale=2.0, init_std=0.3),
    "lora+": lt.methods.lora_plus(ratio=3.0, init_std=0.3),
    "lora-one": lt.METHODS["lora-one"](),
    "lora-ga": lt.METHODS["lora-ga"](),
    "lora-one-preconditioned": lt.METHODS["lora-one-preconditioned"](),
    "p-lora": lt.METHODS["p-lora"](init_std=0.3, scale=0.5),
}


def problems(d):
    sizes = {"d": d, "k": 7, "true_rank": 2, "samples": 20 * d, "seeds": (0, 1, 2)}
    free = lt.sample_linear_matrix_free(**sizes)
    dense = lt.sample_linear(**sizes)
    return {
        "tridiagonal": free,
        "diagonal": dense,
        "identity": lt.LinearProblem.population(shift=dense.shift, pretrained=dense.pretrained),
    }


def both(monkeypatch, problem, method, **options):
    """The same run in place and by rule; each is seen to be what it says."""
    made = []

    def recording(kind):
        def make(prepared):
            made.append(kind(prepared))
            return made[-1]

        return make

    def in_place(prepared):
        stepper = MAKE(prepared)
        assert isinstance(stepper, steppers.InPlace)
        return stepper

    known = {"rank": 3, "steps": 40, "record": RECORDED, "seeds": (0, 1, 2), "learning_rate": 0.05}
    runs = []
    for kind in (in_place, steppers.ByRule):
        monkeypatch.setattr(steppers, "make", recording(kind))
        runs.append(lt.simulate(problem, method, **(known | options)))
    return (*runs, made[0])


MAKE = steppers.make


# Where singular values of A cross, its leading subspace moves by rounding over their gap. Steps are
# 1/40 of the way apart, so that one that comes within 1e-4 of a crossing is a coincidence.
CROSSING = 1e4


def terms(run, name):
    """Size of what a record is computed from: sines are of unit vectors, balances of Gram matrices.

    Both may be rounding themselves, in all steps.
    """
    if name.endswith("alignment"):
        return 1.0
    if name == "balance":
        pairs = (run.initial, run.final)
        return max(float((M * M).sum((-2, -1)).max()) for F in pairs for M in F)
    return float(run[name].nan_to_num().abs().max())


def assert_agree(found, expected, *, steps=40, damping=0.0):
    """Four products of length d a step; Gram matrices are as badly conditioned as 1/damping."""
    d = expected.final.A.shape[-2]
    allowed = rounding(d, operations=4 * steps, condition=1 / damping if damping else 1.0)
    for name in expected.records:
        slack = CROSSING if name.endswith("alignment") else 1.0
        torch.testing.assert_close(
            found[name],
            expected[name],
            rtol=0,
            atol=slack * allowed * terms(expected, name),
            equal_nan=True,
        )
    for tensor, other in zip(found.final, expected.final, strict=True):
        tolerance.close(tensor, other, allowed)


@pytest.mark.parametrize("covariance", ["tridiagonal", "diagonal", "identity"])
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_equals_by_rule(monkeypatch, name, covariance):
    damping = 1e-2 if IN_PLACE[name].facts.inverts else 0.0
    problem = problems(30)[covariance]
    for rate in (0.05, [0.02, 0.05]):
        found, expected, _ = both(
            monkeypatch, problem, IN_PLACE[name], learning_rate=rate, damping=damping
        )
        assert_agree(found, expected, damping=damping)


def test_a_dense_covariance_is_stepped_in_place_too(monkeypatch):
    problem = problems(20)["diagonal"]
    found, expected, _ = both(monkeypatch, problem, "lora-one", reduce="never")
    assert_agree(found, expected)


@pytest.mark.parametrize("covariance", ["tridiagonal", "diagonal"])
@pytest.mark.parametrize("name", ["lora", "p-lora"])
def test_pieces_hand_on_what_they_share(monkeypatch, name, covariance):
    """Three pieces of unequal height, whose neighbours' rows have been overwritten."""
    monkeypatch.setattr(steppers, "BLOCK_BYTES", 1)
    damping = 1e-2 if IN_PLACE[name].facts.inverts else 0.0
    found, expected, stepper = both(
        monkeypatch,
        problems(641)[covariance],
        IN_PLACE[name],
        damping=damping,
        learning_rate=0.005,
    )
    assert torch.isfinite(found["risk"]).all()
    assert [piece.A.shape[-1] for piece in stepper._pieces] == [214, 214, 213]
    assert_agree(found, expected, damping=damping)


def test_long_inner_products_in_halves(monkeypatch):
    wide = lt.sample_linear_matrix_free(d=8192, k=9, true_rank=2, samples=100_000)
    found, expected, _ = both(monkeypatch, wide, "lora-one", seeds=(0,), steps=10)
    assert_agree(found, expected, steps=10)


def test_divergence_in_place_is_dated_as_by_rule(monkeypatch):
    problem = problems(30)["diagonal"]
    found, expected, _ = both(
        monkeypatch, problem, "lora-one", learning_rate=[0.05, 30.0], steps=300
    )
    assert found.status[1, 0].outcome is Outcome.DIVERGED
    assert [s.step for s in found.status.flat] == [s.step for s in expected.status.flat]
    roots(found["risk"][:, 0], expected["risk"][:, 0], rounding(30, operations=4 * 300))


def test_stepping_leaves_initial_factors_alone():
    problem = problems(30)["diagonal"]
    start = lt.simulate(problem, "lora-one", rank=2, learning_rate=0.1, steps=1).initial
    kept = lt.Factors(*(tensor.clone() for tensor in start))
    run = lt.simulate(problem, "lora-one", rank=2, learning_rate=0.1, steps=50, initial=start)
    for tensor, before, again in zip(start, kept, run.initial, strict=True):
        assert torch.equal(tensor, before)
        assert torch.equal(again, before)


def planned(problem, name):
    checked = settings.check(problem, name, rank=2, learning_rate=0.1, steps=1)
    return plan.make(problem, name, checked)


def test_other_rules_and_problems_go_by_rule():
    problem = lt.sample_relu(d=6, k=5, true_rank=2, samples=40, relative_shift=0.1)
    relu = planned(problem, "lora")
    assert relu.rule.descent is not None
    assert isinstance(MAKE(relu), steppers.ByRule)
    linear = lt.sample_linear(d=6, k=5, true_rank=2, samples=40)
    for name in ("lora-momentum", "lora-adamw", "lora-sb", "full"):
        prepared = planned(linear, name)
        assert isinstance(MAKE(prepared), steppers.ByRule)
    assert gd(0.1).descent is not None


def test_records_do_not_depend_on_the_threads(monkeypatch):
    """Snapshots measured on three threads against all of them on one."""
    problem = problems(30)["diagonal"]
    options = {"rank": 3, "learning_rate": 0.05, "steps": 60, "record": RECORDED}
    monkeypatch.setattr(threads, "ENTRIES_PER_THREAD", 100)
    alone = lt.simulate(problem, "lora", **options)
    slices = []
    measure = recorder.Recorder._measure_rows
    monkeypatch.setattr(
        recorder.Recorder,
        "_measure_rows",
        lambda run, rows: (slices.append(rows), measure(run, rows)),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        shared = lt.simulate(problem, "lora", **options)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert sorted((s.start, s.stop) for s in slices if s.stop > 1) == [(0, 20), (20, 40), (40, 61)]
    for name in RECORDED:
        # The same factors, measured: at most four products of length d.
        slack = CROSSING if name.endswith("alignment") else 1.0
        by_entry = near(30, operations=4 * slack, scale=1.0)
        torch.testing.assert_close(shared[name], alone[name], **by_entry, equal_nan=True)


def test_an_error_in_a_measuring_thread_is_raised(monkeypatch):
    def fail(view):
        raise ArithmeticError("no such record")

    monkeypatch.setattr(threads, "ENTRIES_PER_THREAD", 1)
    monkeypatch.setitem(records.RECORDS, "risk", lt.Record("risk", fail, invariant=True))
    problem = problems(10)["diagonal"]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ArithmeticError, match="no such record"):
            lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=40)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
