"""What samplers take by default, how far their arguments go, and how much memory they foresee."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core import memory
from loraone_theory.dynamics.provenance import described
from loraone_theory.problems.base import Facts, facts

SAMPLERS: dict[str, Callable[..., Any]] = {
    name: getattr(lt, name) for name in dir(lt) if name.startswith("sample_")
}
# Arguments without a default. Small, of a different size each, but enough rows and few steps.
NEEDED = {
    "d": 12, "k": 9, "true_rank": 2, "samples": 20, "measurements": 36, "relative_shift": 0.1,
    "noise_std": 0.1, "steps": 2, "rank": 2, "ensemble": "dense",
}  # fmt: skip
USUAL = {
    "condition_number": 1.0, "spectrum": None, "noise_std": 0.0, "seeds": (0,),
    "dtype": torch.float64, "device": "cpu", "columns": "gaussian", "activation": "gelu",
    "inputs": "gaussian", "freedom": 5.0, "covariance": None, "keep_inputs": False,
    "spikes": None, "replace": True,
}  # fmt: skip


def parameters(make: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(make).parameters.items()}


def made(name: str, **changed: Any) -> Any:
    asked = parameters(SAMPLERS[name])
    needed = {
        each: NEEDED[each] for each, default in asked.items() if default is inspect.Parameter.empty
    }
    return SAMPLERS[name](**needed | changed)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_usual_values(name: str) -> None:
    made(name)
    found = {
        each: default
        for each, default in parameters(SAMPLERS[name]).items()
        if default is not inspect.Parameter.empty
    }
    assert found == {each: USUAL[each] for each in found}


# --- edges -----------------------------------------------------------------------------------

LEAST = math.ulp(0.0)
BELOW_ONE = math.nextafter(1.0, 0.0)
# Name -> what lies just inside with what has to go with it, and what just outside.
EDGES: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "d": ([{"d": 1, "true_rank": 1, "rank": 1}], [0]),
    "k": ([{"k": 1, "true_rank": 1}], [0]),
    "true_rank": ([{"true_rank": 1}, {"true_rank": 9}], [0, 10]),
    "samples": ([{"samples": 1}], [0]),
    "measurements": ([{"measurements": 1}], [0]),
    "noise_std": ([{"noise_std": 0.0}, {"noise_std": np.finfo(float).tiny}], [-LEAST]),
    "condition_number": ([{"condition_number": 1.0}], [BELOW_ONE]),
    "relative_shift": ([{"relative_shift": 1e-6}], [0.0, -LEAST]),
    "steps": ([{"steps": 1}], [0]),
    "rank": ([{"rank": 1}], [0]),
    "spectrum": (
        [{"spectrum": (1.0, 1.0)}, {"spectrum": (2.0, 1.0)}],
        [(1.0, 2.0), (1.0, 0.0), (1.0, -LEAST), (1.0,), (2.0, 1.0, 1.0), (math.inf, 1.0)],
    ),
}
# Noise and rows that are drawn as a run goes serve 2rT < k and T + 2 < m.
OWN_EDGES: dict[tuple[str, str], tuple[list[dict[str, Any]], list[Any]]] = {
    ("sample_linear_lazy", "k"): ([{"k": 9}], [8]),
    ("sample_linear_lazy", "noise_std"): ([{"noise_std": np.finfo(float).tiny}], [0.0, -LEAST]),
    ("sample_dense_lazy", "measurements"): ([{"measurements": 5}], [4]),
}
REACHED = [
    (name, each) for name in SAMPLERS for each in parameters(SAMPLERS[name]) if each in EDGES
]


@pytest.mark.parametrize(("name", "parameter"), REACHED)
def test_what_is_just_inside_is_taken_and_what_is_just_outside_refused(
    name: str, parameter: str
) -> None:
    inside, outside = OWN_EDGES.get((name, parameter), EDGES[parameter])
    for values in inside:
        known = {each: x for each, x in values.items() if each in parameters(SAMPLERS[name])}
        problem = made(name, **known)
        assert torch.isfinite(problem.loss(problem.shift)).all()
    for value in outside:
        with pytest.raises(ValueError, match=parameter):
            made(name, **{parameter: value})


# --- memory ----------------------------------------------------------------------------------

D, K, R, N, M = (NEEDED[each] for each in ("d", "k", "true_rank", "samples", "measurements"))
SEEDS = (3, 4, 5)
# Sampler and what it is asked -> the largest sum of float64 entries that it says it needs.
ENTRIES: list[tuple[str, dict[str, Any], int]] = [
    ("sample_relu_population", {}, 3 * (D * K + R * D + R * K)),  # W, U and B
    ("sample_relu", {"samples": 200}, 3 * 200 * D),  # X
    ("sample_activation", {"samples": 200}, 3 * 200 * D),
    ("sample_linear", {}, N * D + 3 * (D * D + D * K)),  # one X at a time, Σ̂, W
    ("sample_linear", {"noise_std": 0.1}, 3 * (N * D + D * D + D * K)),
    ("sample_linear", {"keep_inputs": True}, 3 * (N * D + D * D + D * K)),
    ("sample_linear_matrix_free", {}, (3 * D + K) * (R + 2)),  # two diagonals and U; V is shared
    ("sample_linear_matrix_free", {"noise_std": 0.1, "k": 90, "true_rank": 1}, 3 * D * 90),
    # r(T + 2) + r* directions of either side, and what the noise is along them
    ("sample_linear_lazy", {}, 3 * 2 * (2 * (2 + 2) + R) * (D + K)),
    # the T + 2 directions that a run asks along, and its rows of the operator
    ("sample_dense_lazy", {}, 3 * 2 * (2 + 2) * D * K),
    ("sample_sensing", {}, 3 * 3 * M * D * K),  # as drawn, and two copies on the way
    ("sample_sensing", {"ensemble": "symmetric", "k": D}, 3 * 3 * M * D * D),
]


@pytest.mark.parametrize(("name", "changed", "entries"), ENTRIES)
def test_what_does_not_fit_is_refused_to_the_byte(
    monkeypatch: pytest.MonkeyPatch, name: str, changed: dict[str, Any], entries: int
) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 8 * entries)
    made(name, seeds=SEEDS, **changed)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 8 * entries - 1)
    with pytest.raises(ValueError, match=f"take {memory.in_words(8 * entries)} of memory"):
        made(name, seeds=SEEDS, **changed)


# --- facts -----------------------------------------------------------------------------------

# What each problem states of itself, of `problems.base.Facts`; all else is False.
STATED = {
    "sample_activation": {"has_rows", "one_by_one"},
    "sample_dense_lazy": {"has_rows", "reveals"},
    "sample_linear": {"takes_residual", "replays"},  # rows are kept where they are asked for
    "sample_linear_lazy": {"matrix_free", "has_rows", "one_by_one", "reveals"},
    "sample_linear_matrix_free": {"matrix_free", "takes_residual", "replays"},
    "sample_relu": {"takes_residual", "has_rows", "replays"},
    "sample_relu_population": {"takes_residual", "has_rows", "replays"},
    "sample_sensing": {"has_rows", "one_by_one", "replays"},
}
FLAGS = ("matrix_free", "takes_residual", "has_rows", "one_by_one", "replays", "reveals")


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_a_problem_states_of_itself(name: str) -> None:
    problem = made(name)
    for _ in range(2):  # before it is used and after
        known = facts(problem)
        assert {flag for flag in FLAGS if getattr(known, flag)} == STATED[name]
        problem.loss(problem.shift)


def test_what_a_problem_is_taken_for_that_states_nothing() -> None:
    known = facts(object())
    assert {flag for flag in FLAGS if getattr(known, flag)} == {"has_rows"}
    assert (known.spectral_gamma, known.work) == (1.0, 0)
    others = set(Facts._fields) - {*FLAGS, "spectral_gamma", "work"}
    assert {name for name in others if getattr(known, name) is not None} == set()


@pytest.mark.parametrize("name", [name for name in STATED if "reveals" in STATED[name]])
def test_what_is_revealed_by_a_run_makes_no_other_problem(name: str) -> None:
    problem = made(name)
    before = described(problem)["fingerprint"]
    loss = problem.loss(problem.shift)
    assert described(problem)["fingerprint"] == before
    # Nor another function: the same value in the same bits from then on.
    assert torch.equal(problem.loss(problem.shift), loss)


# --- spectra ---------------------------------------------------------------------------------

ENSEMBLES = ("symmetric", "rank-one", "single-response", "multi-response", "completion")
DRAWN = [(name, {}) for name in SAMPLERS] + [
    ("sample_sensing", {"ensemble": ensemble, "k": D if ensemble == "symmetric" else K})
    for ensemble in ENSEMBLES
]


@pytest.mark.parametrize(("name", "changed"), DRAWN)
def test_the_shift_has_the_spectrum_that_was_asked_for(name: str, changed: dict[str, Any]) -> None:
    """Geometric from 1 to 1/κ, or as given; of ReLU problems up to a factor."""
    wanted = [({"condition_number": 4.0}, [1.0, 0.25])]
    scaled = "spectrum" in parameters(SAMPLERS[name])
    if scaled:
        wanted.append(({"spectrum": (3.0, 0.5)}, [3.0, 0.5]))
    for asked, expected in wanted:
        Delta = made(name, **changed, **asked).shift.dense()
        S = torch.linalg.svdvals(Delta)[0]
        unit = 1.0 if scaled else float(S[0])
        allowed = rounding(D, operations=8) * max(expected)
        found = (S / unit).tolist()
        assert found == pytest.approx(expected + [0.0] * (len(found) - R), rel=0, abs=allowed)
        if changed.get("ensemble") == "symmetric":
            assert torch.linalg.eigvalsh(Delta)[0].min() > -allowed
