"""Compiled loops against longhand loops over X, and against torch's for all that they serve."""

import inspect
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tolerance
import torch
import xloop
from test_steppers import terms

import loraone_theory as lt
from loraone_theory.core import linalg
from loraone_theory.core.linalg import GRAM_GAP
from loraone_theory.core.status import Outcome
from loraone_theory.dynamics import engine, execution, settings

pytest.importorskip("numba", reason="the compiled loops need the extra fast")

from loraone_theory.core import compiled as core_compiled
from loraone_theory.dynamics import compiled, kernels, sines
from loraone_theory.problems.relu import fused
from loraone_theory.problems.relu.fused import PIECE, Fused

D, K, RANK, TRUE_RANK, N, STEPS, ETA = 13, 9, 4, 3, 90, 60, 0.05
RECORDED = ("loss", "risk", "error", "left_alignment", "right_alignment", "balance")
SEEDS = (0, 1, 2)


def method(name: str) -> lt.Method:
    """A method whose A is Gaussian of size 0.3 where it is Gaussian."""
    factory = lt.METHODS[name]
    known = inspect.signature(factory).parameters
    return factory(**{"init_std": 0.3} if "init_std" in known else {})


def plain(name: str) -> bool:
    facts = method(name).at(RANK)
    rule = facts.rule(ETA, 0.0)
    return facts.is_pair and rule.descent is not None and rule.descent.inverses is None


PLAIN = [name for name in lt.METHODS if plain(name)]


def problem(**other: Any) -> lt.LinearProblem:
    sizes = {"d": D, "k": K, "true_rank": TRUE_RANK, "samples": N, "seeds": SEEDS}
    return lt.sample_linear(**(sizes | other))


def both(given: Any, chosen: lt.Method, **options: Any) -> tuple[lt.Trajectory, lt.Trajectory]:
    known = {"rank": RANK, "learning_rate": ETA, "steps": STEPS, "record": RECORDED}
    if chosen.facts.inverts:
        known["damping"] = 0.1
    found, expected = (
        lt.simulate(given, chosen, **(known | options), engine=name) for name in ("numba", "torch")
    )
    return found, expected


# Two products of length N a step, of well-conditioned factors.
CLOSE = tolerance.rounding(N, operations=2 * STEPS, condition=10)
CLOSE_SINGLE = tolerance.rounding(N, operations=2 * STEPS, condition=10, dtype=torch.float32)


def assert_same(found: lt.Trajectory, expected: lt.Trajectory, allowed: float = CLOSE) -> None:
    """To rounding: norms by their roots, sines where no singular values of A cross.

    Δ is of size one, at least: Spectral-init of the population starts at its rounding.
    """
    assert list(found.records) == list(expected.records)
    for name, value in expected.records.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == value.dtype
        if name in ("loss", "risk"):
            gap = (found[name].sqrt() - value.sqrt()).abs()
            assert bool((gap <= allowed * value[:1].sqrt().clamp_min(1.0)).all())
        else:
            size = max(terms(expected, name), 1.0)
            torch.testing.assert_close(
                found[name], value, rtol=0, atol=10 * allowed * size, equal_nan=True
            )
    for ours, theirs in zip(found.final, expected.final, strict=True):
        tolerance.close(ours, theirs, allowed)
    assert [str(s) for s in found.status.flat] == [str(s) for s in expected.status.flat]


# --- longhand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("s", "ratio"), [(1.0, 1.0), (2.0, 3.0)])
def test_steps_and_records_are_those_of_the_loop_over_X(s: float, ratio: float) -> None:
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((N, D)), rng.standard_normal((D, K))
    shift = rng.standard_normal((D, 2)) @ rng.standard_normal((2, K)) / 10
    A0, B0 = 0.3 * rng.standard_normal((D, RANK)), 0.3 * rng.standard_normal((RANK, K))
    given = lt.LinearProblem.from_data(X, shift=shift, pretrained=W)
    run = lt.simulate(
        given,
        lt.methods.lora_plus(ratio=ratio, scale=s),
        rank=RANK,
        learning_rate=0.02,
        steps=STEPS,
        initial=lt.Factors(torch.from_numpy(A0), torch.from_numpy(B0)),
        record=RECORDED[:4],
        engine="numba",
    )
    Y = X @ (W + shift)
    U = np.linalg.svd(X.T @ (X @ shift) / N)[0]
    found: list[list[float]] = []
    for A, B in xloop.pair_loop(X, Y, W, A0, B0, eta=0.02, steps=STEPS, s=s, ratio=ratio):
        E, Q = s * A @ B - shift, np.linalg.svd(A)[0][:, :2]
        sine = np.linalg.norm(U[:, 2:].T @ Q, 2)
        square = float((E**2).sum())
        found.append([((X @ E) ** 2).sum() / (2 * N), square / 2, square**0.5, sine])
    for name, column in zip(RECORDED, zip(*found, strict=True), strict=False):
        expected = torch.tensor(column, dtype=torch.float64)[:, None]
        if name in ("loss", "risk"):
            tolerance.roots(run[name], expected, CLOSE)
        else:
            size = max(1.0, column[0])
            torch.testing.assert_close(run[name], expected, rtol=0, atol=10 * CLOSE * size)
    tolerance.close(run.final.A[0], torch.from_numpy(A), CLOSE)
    tolerance.close(run.final.B[0], torch.from_numpy(B), CLOSE)


def test_the_fused_pass_is_the_gradient_written_out() -> None:
    """In more than one piece of samples, the last of them filled up; widths that are odd."""
    rng = np.random.default_rng(1)
    n, d, k, r = PIECE + 37, 6, 7, 5
    X, W, shift = rng.standard_normal((n, d)), rng.standard_normal((d, k)), np.ones((d, k)) / 10
    A, B = rng.standard_normal((d, r)), rng.standard_normal((r, k))
    given = lt.ReLUProblem.from_data(X, pretrained=W, shift=shift)
    loss, found = Fused(given).loss_and_gradients(lt.Factors(*map(torch.from_numpy, (A, B))))
    Z, Y = X @ (W + A @ B), np.maximum(X @ (W + shift), 0)
    M = np.where(Z > 0, Z - Y, 0)
    expected = ((np.maximum(Z, 0) - Y) ** 2).sum() / (2 * n)
    # Squares of the entries of Z, each a sum of d + r terms, and a sum of n·k squares.
    allowed = tolerance.rounding(n * k) + tolerance.rounding(d + r, operations=8)
    assert abs(float(loss) - expected) <= allowed * ((Z**2).sum() + (Y**2).sum()) / n
    for ours, theirs in zip(found, (X.T @ M @ B.T / n, A.T @ X.T @ M / n), strict=True):
        tolerance.close(ours, torch.from_numpy(theirs), tolerance.rounding(n, operations=4))


def test_the_fused_pass_tells_the_losses_that_the_status_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the last one is asked for, and runs end as they are said to elsewhere."""
    given = lt.sample_relu(d=7, k=5, true_rank=2, samples=60, relative_shift=0.5, seeds=(0, 1))
    asked, loss = [], lt.ReLUProblem.loss

    def counting(self: lt.ReLUProblem, *arguments: Any) -> torch.Tensor:
        asked.append(1)
        return loss(self, *arguments)

    monkeypatch.setattr(lt.ReLUProblem, "loss", counting)
    known: dict[str, Any] = {"rank": 2, "steps": 30, "record": ()}
    run = lt.simulate(given, "lora-one", learning_rate=0.1, **known, engine="numba")
    assert run.ok.all()
    assert len(asked) == 1
    rates = [0.1, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 1e3]
    found, expected = (
        lt.simulate(given, "lora-one", learning_rate=rates, **known, engine=name).status
        for name in ("numba", "torch")
    )
    outcomes = {status.outcome for status in expected.flat}
    assert {Outcome.COMPLETED, Outcome.OSCILLATING} < outcomes
    for ours, theirs in zip(found.flat, expected.flat, strict=True):
        assert (ours.outcome, ours.step) == (theirs.outcome, theirs.step)


OWN = """\
from loraone_theory.core.compiled import compiled

@compiled
def total(x):
    return x + 1.0
"""


def test_what_is_kept_on_disk_hangs_on_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machine code is taken from disk, but not that of other options."""
    path = tmp_path / "own.py"
    path.write_text(OWN)

    def hits() -> int:
        made = runpy.run_path(str(path))["total"]
        assert made(2.0) == 3.0
        return sum(made.stats.cache_hits.values())

    assert [hits(), hits()] == [0, 1]
    monkeypatch.setitem(core_compiled.OPTIONS, "fastmath", ("contract",))
    assert [hits(), hits()] == [0, 1]
    monkeypatch.undo()
    assert hits() == 1


@pytest.mark.parametrize("module", [kernels, sines, fused])
def test_compiled_functions_hold_nothing_of_other_files(module: Any) -> None:
    """numba would not notice that it changed: names that they use are of their own file."""
    functions = [value for value in vars(module).values() if hasattr(value, "py_func")]
    assert functions
    text = inspect.getsource(module)
    for function in functions:
        for name in function.py_func.__code__.co_names:
            found = getattr(module, name, None)
            if isinstance(found, (bool, int, float)):
                assert f"\n{name} = " in text, f"{function.py_func.__name__} bakes {name} in"
            elif hasattr(found, "py_func"):
                assert found.py_func.__module__ == module.__name__


def sines_of(A: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Of states A (count, d, r) against P (d, p), through the padded form of the loops."""
    width = A.shape[1] + 3
    padded = np.zeros((len(A), A.shape[2], width), A.dtype)
    padded[..., : A.shape[1]] = A.transpose(0, 2, 1)
    frame = np.zeros((P.shape[1], width), A.dtype)
    frame[:, : A.shape[1]] = P.T
    out = np.empty(len(A), A.dtype)
    sines.largest_sines(padded, frame, A.shape[1], GRAM_GAP, out)
    return out


@pytest.mark.parametrize("p", [1, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 40])
def test_sines_are_those_of_complete_decompositions(p: int, count: int) -> None:
    rng = np.random.default_rng(p)
    A = rng.standard_normal((count, 20, 5)) * np.array([4.0, 3.0, 2.0, 1.0, 0.5])
    P = np.linalg.qr(rng.standard_normal((20, p)))[0]
    U, S, _ = np.linalg.svd(A)
    out = np.linalg.svd(P, full_matrices=True)[0][:, p:]
    expected = np.linalg.norm(out.T @ U[..., :p], 2, axis=(-2, -1))
    error = tolerance.rounding(20, operations=4) * S[:, 0]
    allowed = max(tolerance.subspace(s, p, e) for s, e in zip(S, error, strict=True))
    np.testing.assert_allclose(sines_of(A, P), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sines_do_not_depend_on_scale(dtype: type) -> None:
    """Where the Gram matrix is within range its squares need not be: powers of two change no bit.

    Beyond, A's own rotations take over, and agree to rounding.
    """
    rng, kind = np.random.default_rng(8), np.finfo(dtype)
    A = (rng.standard_normal((3, 40, 5)) * np.array([3, 3, 1, 0.3, 0.3])).astype(dtype)
    P = np.linalg.qr(rng.standard_normal((40, 2)))[0].astype(dtype)
    expected = sines_of(A, P)
    low = float(kind.tiny) ** 0.5 / float(kind.eps)
    exponents = (-math.log2(low) - 8, -math.log2(low) / 2, math.log2(low) / 2, math.log2(low) + 8)
    for exponent in map(round, exponents):
        assert np.array_equal(sines_of(A * dtype(2.0**exponent), P), expected), exponent
    values = np.linalg.svd(A.astype(float), compute_uv=False)
    error = tolerance.rounding(40, operations=10, dtype=dtype)
    allowed = max(tolerance.subspace(v, 2, error * v[0]) for v in values)
    for exponent in (-round(1.5 * math.log2(1 / low)), round(1.5 * math.log2(1 / low))):
        found = sines_of(A * dtype(2.0**exponent), P)
        np.testing.assert_allclose(found, expected, rtol=0, atol=allowed)
    # Sines whose squares are subnormal or zero.
    for tilt in (float(kind.tiny) ** 0.5 / 64, float(kind.tiny)):
        axes, tilted = np.eye(40, 2, dtype=dtype), np.eye(40, 4, dtype=dtype)
        tilted[:, 2:] = 0
        tilted[5, 0] = tilt
        assert 0 <= sines_of(tilted[None], axes)[0] <= 2 * tilt


def test_small_sines_keep_their_digits_and_hard_spectra_are_taken_from_A() -> None:
    """A small angle by construction, at spectra that are clear, close, and spread by 1e12."""
    d, p, angle = 30, 2, 1e-9
    rng = np.random.default_rng(2)
    Q = np.linalg.qr(rng.standard_normal((d, 6)))[0]
    P, tilted = Q[:, :p], np.cos(angle) * Q[:, :p] + np.sin(angle) * Q[:, p : 2 * p]
    V = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    rest = Q[:, 4:6]
    spectra = [(3, 2, 0.5, 0.2), (1, 0.9, 0.85, 0.1), (1, 1e-6, 1e-9, 1e-12)]
    A = np.stack([np.concatenate([tilted, rest], 1) * np.array(s) @ V.T for s in spectra])
    found = sines_of(A, P)
    for value, s in zip(found, spectra, strict=True):
        allowed = tolerance.subspace(s, p, tolerance.rounding(d, operations=4) * s[0])
        np.testing.assert_allclose(value, np.sin(angle), rtol=0, atol=allowed)
    assert found[0] == pytest.approx(np.sin(angle), rel=0.01)


def test_where_a_subspace_is_undefined_the_sine_is_nan_and_its_neighbours_are_not() -> None:
    rng = np.random.default_rng(3)
    P = np.linalg.qr(rng.standard_normal((20, 3)))[0]
    good = rng.standard_normal((20, 4))
    short = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 4))
    level = np.linalg.qr(rng.standard_normal((20, 4)))[0]
    odd = [short, 0 * good, good * np.nan, np.where(good > 2, np.inf, good), level, 1e300 * good]
    A = np.stack([good, *odd, 1e-200 * good, good])
    found = sines_of(A, P)
    assert np.isnan(found[1:6]).all()
    assert found[0] == found[-1]
    # A of any size has the subspace of the same A at size one.
    allowed = tolerance.subspace(np.linalg.svd(good)[1], 3, tolerance.rounding(20, operations=40))
    np.testing.assert_allclose(found[6:8], found[0], rtol=0, atol=allowed)
    _, defined = linalg.left_frame(torch.from_numpy(A[:6]), 3)
    assert defined.tolist() == [True, *[False] * 5]


def test_a_sine_does_not_depend_on_those_beside_it() -> None:
    rng = np.random.default_rng(4)
    A, P = rng.standard_normal((70, 20, 6)), np.linalg.qr(rng.standard_normal((20, 3)))[0]
    together = sines_of(A, P)
    for i in (0, 31, 32, 69):
        assert sines_of(A[i : i + 1], P)[0] == together[i]


# --- all that is served, against torch ---------------------------------------------------------


def test_what_is_served_is_plain_descent() -> None:
    assert {"lora", "lora+", "lora-one", "rslora"} <= set(PLAIN)
    assert "p-lora" not in PLAIN


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", PLAIN)
def test_runs_on_linear_problems_are_those_of_torch(name: str, dtype: str) -> None:
    """Reduced from dense and from the identity, where all widths are a few."""
    given = problem(dtype=dtype)
    allowed = CLOSE if dtype == "float64" else CLOSE_SINGLE
    at_infinity = lt.LinearProblem.population(shift=given.shift, pretrained=given.pretrained)
    for each in (given, at_infinity):
        recorded = RECORDED if dtype == "float64" else RECORDED[:3]
        assert_same(*both(each, method(name), record=recorded), allowed)


@pytest.mark.parametrize("name", lt.METHODS)
def test_runs_on_relu_problems_are_those_of_torch(name: str) -> None:
    given = lt.sample_relu(
        d=D, k=K, true_rank=TRUE_RANK, samples=N, relative_shift=0.1, seeds=SEEDS
    )
    steps = 5  # past which the smallest changes of Adam's signs and of masks would count
    found, expected = both(given, method(name), steps=steps, record=("loss", "risk"))
    # Roundings, or as many errors of an integrator.
    integrator = method(name).hyper["rule"].get("rtol", 0.0)
    allowed = max(
        tolerance.rounding(N, operations=8 * steps, condition=1e3), 10 * steps * integrator
    )
    for ours, theirs in zip(found.final, expected.final, strict=True):
        tolerance.close(ours, theirs, allowed)
    tolerance.roots(found["loss"], expected["loss"], allowed)


@pytest.mark.parametrize(
    "options",
    [
        {"init_std": [0.1, 0.3], "learning_rate": [0.02, 0.05]},
        {"learning_rate": lt.schedules.cosine(ETA, steps=STEPS)},
        {"learning_rate": [ETA, lt.schedules.linear(ETA, steps=STEPS)]},
        {"every": 7},
        {"record": ("risk", "nuclear_norm"), "keep_factors": 20},
        {"record": ()},
        {"rank": TRUE_RANK},
        {"rank": 2, "record": ("loss", "left_alignment")},
        {"until": lt.Until("loss", 0.5, relative=True)},
    ],
    ids=["sweep", "schedule", "schedules", "every", "others", "nothing", "exact", "short", "until"],
)
def test_every_option_of_simulate_is_kept(options: dict[str, Any]) -> None:
    found, expected = both(problem(), lt.methods.lora(init_std=0.2), **options)
    assert_same(found, expected)
    assert found.steps.tolist() == expected.steps.tolist()
    for ours, theirs in zip(found.factors or (), expected.factors or (), strict=True):
        tolerance.close(ours, theirs, CLOSE)


def test_the_risk_of_anisotropic_inputs_is_that_of_torch() -> None:
    law = torch.diag(torch.arange(1.0, D + 1, dtype=torch.float64) / D)
    given = lt.LinearProblem.population(shift=problem().shift, covariance=law)
    assert_same(*both(given, method("lora")))


def test_divergence_is_dated_as_by_torch_and_leaves_the_others_alone() -> None:
    found, expected = both(
        problem(), method("lora-one"), learning_rate=[ETA, 30.0], record=RECORDED[:4], steps=300
    )
    assert found.status[1, 0].outcome is Outcome.DIVERGED
    assert [s.step for s in found.status.flat] == [s.step for s in expected.status.flat]
    assert torch.equal(found["loss"].isnan(), expected["loss"].isnan())
    # 300 steps of two products; the loss falls to rounding of its start.
    tolerance.roots(found["loss"][:, 0], expected["loss"][:, 0], 5 * CLOSE)


def test_a_run_goes_on_and_is_run_again_bit_for_bit() -> None:
    options = {"rank": RANK, "learning_rate": ETA, "record": RECORDED[:4], "engine": "numba"}
    given = problem()
    whole = lt.simulate(given, method("lora"), steps=50, **options)
    parts = lt.simulate(given, method("lora"), steps=20, **options).extend(30)
    again = lt.rerun(whole.config, problem=given)
    for other in (parts, again):
        for name in RECORDED[:4]:
            assert torch.equal(whole[name], other[name]), name
        assert all(torch.equal(a, b) for a, b in zip(whole.final, other.final, strict=True))


def test_runs_do_not_depend_on_threads_or_on_their_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"rank": RANK, "learning_rate": ETA, "steps": 2 * compiled.SHARED}
    options |= {"record": RECORDED[:4], "engine": "numba"}
    alone = lt.simulate(problem(), method("lora"), **options)
    single = lt.simulate(problem(seeds=(1,)), method("lora"), seeds=[1], **options)
    parts: list[slice] = []
    angles = compiled.Descending._angles
    monkeypatch.setattr(
        compiled.Descending,
        "_angles",
        lambda run, rows, part: (parts.append(part), angles(run, rows, part)),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        shared = lt.simulate(problem(), method("lora"), **options)
    finally:
        torch.set_num_threads(before)
    assert slice(0, 1) in parts
    assert slice(1, 3) in parts
    for name in RECORDED[:4]:
        assert torch.equal(shared[name], alone[name])
        # The reduction of one instance rounds otherwise than that of three.
        tolerance.roots(single[name][:, 0], alone[name][:, 1], 10 * CLOSE)


# --- which engine ------------------------------------------------------------------------------


def test_the_engine_is_in_the_record_and_the_usual_one_is_torch() -> None:
    options = {"rank": RANK, "learning_rate": ETA, "steps": 3}
    usual = lt.simulate(problem(), "lora", **options)
    other = lt.simulate(problem(), "lora", **options, engine="numba")
    assert usual.config["engine"] == "torch"
    assert "numba" not in usual.config["versions"]
    assert other.config["engine"] == "numba"
    assert other.config["versions"]["numba"][0].isdigit()
    former = {name: value for name, value in usual.config.items() if name != "engine"}
    assert torch.equal(lt.rerun(former)["loss"], usual["loss"])


def rows_of() -> lt.LinearProblem:
    return problem(keep_inputs=True)


@pytest.mark.parametrize(
    ("given", "name", "options", "reason"),
    [
        (problem, "p-lora", {}, "method 'p-lora'"),
        (problem, "lora-adamw", {}, "method 'lora-adamw'"),
        (problem, "full", {}, "method 'full'"),
        (rows_of, "lora", {"batch_size": 4}, "batch_size, some rows a step"),
        (problem, "lora", {"reduce": "never"}, "a dense covariance and reduce='never'"),
        (lambda: problem(noise_std=0.1), "lora", {}, "label noise"),
        (
            lambda: lt.sample_linear_matrix_free(d=D, k=K, true_rank=2, samples=N),
            "lora",
            {},
            "a tridiagonal covariance",
        ),
        (
            lambda: lt.sample_sensing(d=D, k=K, true_rank=2, measurements=300, ensemble="rank-one"),
            "lora",
            {},
            "a SensingProblem",
        ),
    ],
    ids=["p-lora", "adamw", "full", "rows", "never", "noise", "tridiagonal", "sensing"],
)
def test_what_has_no_loop_is_refused(
    given: Any, name: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^engine='numba' must be .*; got {reason}; leave engine"):
        lt.simulate(given(), name, rank=2, learning_rate=ETA, steps=2, **options, engine="numba")


def test_other_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="engine must be one of torch, numba; got 'jax'"):
        lt.simulate(problem(), "lora", rank=2, learning_rate=ETA, steps=2, engine="jax")
    assert engine.ENGINES == ("torch", "numba")


@pytest.mark.parametrize("place", ["A", "B", "large"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_factors_are_looked_at_through_the_residual(place: str, value: float) -> None:
    """Wherever one entry is not finite, where the other factor is zero too; large ones are."""
    given = problem()
    plan = execution.prepare(
        given,
        "lora",
        settings.check(
            given, "lora", rank=RANK, learning_rate=ETA, steps=2, engine="numba", init_std=0.1
        ),
    )
    stepper = compiled.make(plan)
    assert stepper.finite()
    (A, B), state = stepper.saved()
    if place == "large":  # the sum over F overflows, no entry of the factors does
        A, B = A.new_full(A.shape, 1e160), B.new_full(B.shape, 1e160)
    else:
        {"A": A, "B": B}[place][1, -1, -1] = value
    stepper.load((A, B), state)
    assert stepper.finite() == (place == "large")
