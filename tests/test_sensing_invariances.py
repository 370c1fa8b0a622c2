"""What each ensemble's runs do not change under: the gauge, one instance's rotations, the law's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from tolerance import close, rounding

import loraone_theory as lt
from loraone_theory.problems.sensing.operators import OPERATORS, Completion, MultiResponse
from loraone_theory.problems.sensing.problem import SensingProblem

D, K, RANK, STEPS = 6, 4, 2, 12
# All two-sample tests of a test function together raise a false alarm once in 10^6.
FALSE_ALARM = 1e-6


def draw(ensemble: str, seeds: range, m: int = 40) -> SensingProblem:
    size = (D, D) if ensemble == "symmetric" else (D, K)
    return lt.sample_sensing(
        ensemble=ensemble, d=size[0], k=size[1], true_rank=RANK, measurements=m, seeds=seeds
    )


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def final(problem: SensingProblem, start: lt.Factors) -> lt.Factors:
    run = lt.simulate(problem, "lora", rank=RANK, learning_rate=0.05, steps=STEPS, initial=start)
    return run.final


@pytest.mark.parametrize("ensemble", OPERATORS)
def test_gauge(ensemble: str) -> None:
    operator = draw(ensemble, range(2)).operator
    A, B, Q = (gaussian(i, *s) for i, s in enumerate([(D, RANK), (RANK, operator.k), (RANK, RANK)]))
    moved = lt.Factors(A @ Q, torch.linalg.solve(Q, B))
    # Sums over dk entries; Q's condition enters AQ·Q⁻¹B.
    wrong = rounding(D * D, operations=4, condition=float(torch.linalg.cond(Q)) ** 2)
    found, expected = (operator.forward(F)[..., None] for F in (moved, lt.Factors(A, B)))
    close(found, expected, wrong)


def test_multi_response_turns_with_the_outputs() -> None:
    """𝒜(MO) = 𝒜(M) with its rows times O: runs from (A₀, B₀O) end at (A, BO)."""
    problem = draw("multi-response", range(2))
    assert isinstance(problem.operator, MultiResponse)
    O = torch.linalg.qr(gaussian(5, K, K)).Q
    labels = (problem.labels.unflatten(-1, (-1, K)) @ O).flatten(-2)
    turned = SensingProblem.from_data(problem.operator, labels)
    start = lt.Factors(gaussian(1, 2, D, RANK), gaussian(2, 2, RANK, K))
    here = final(problem, start)
    there = final(turned, lt.Factors(start.A, start.B @ O))
    # Steps of products of length d, N and k, of factors near one.
    wrong = rounding(D + K + 10, operations=8 * STEPS, condition=10)
    close(there.A, here.A, wrong)
    close(there.B, here.B @ O, wrong)


def test_completion_turns_with_permutations_and_signs() -> None:
    problem = draw("completion", range(1))
    operator = problem.operator
    assert isinstance(operator, Completion)
    rng = np.random.default_rng(3)
    rows, columns = (torch.from_numpy(rng.permutation(n)) for n in (D, K))
    left, right = (torch.from_numpy(rng.choice([-1.0, 1.0], n)) for n in (D, K))
    labels = problem.labels * left[operator.rows] * right[operator.columns]
    moved = Completion(
        rows[operator.rows], columns[operator.columns], D, K, operator.like, repeated=True
    )
    P, Q = (torch.zeros(n, n).double() for n in (D, K))
    P[rows, torch.arange(D)] = left
    Q[columns, torch.arange(K)] = right
    start = lt.Factors(gaussian(1, 1, D, RANK), gaussian(2, 1, RANK, K))
    here = final(problem, start)
    there = final(SensingProblem.from_data(moved, labels), lt.Factors(P @ start.A, start.B @ Q.mT))
    wrong = rounding(D + K + 10, operations=8 * STEPS, condition=10)
    close(there.A, P @ here.A, wrong)
    close(there.B, here.B @ Q.mT, wrong)


def ends(ensemble: str, seeds: range, axes: tuple[bool, bool]) -> list[np.ndarray]:
    """‖G − Δ‖_op and the risk of some steps, of Δ with Haar frames or, on a side, along axes."""
    drawn = draw(ensemble, seeds)
    assert drawn.shift is not None
    n, d, k = len(seeds), drawn.d, drawn.k
    U, V = drawn.shift.A, drawn.shift.B.mT  # λ* = 1: the factors are the frames
    U, V = (
        torch.eye(size, RANK).double().expand(n, size, RANK) if fixed else frame
        for frame, size, fixed in ((U, d, axes[0]), (V, k, axes[1]))
    )
    shift = lt.Factors(U, V.mT)
    labels = drawn.operator.forward(shift)
    problem = SensingProblem.from_data(drawn.operator, labels, shift=shift)
    run = lt.simulate(
        problem, "lora", rank=RANK, learning_rate=0.05, steps=STEPS, every=STEPS, init_std=0.3,
        record=("risk",), seeds=range(n),
    )  # fmt: skip
    miss = drawn.operator.adjoint(labels) / drawn.measurements - shift.dense()
    return [torch.linalg.matrix_norm(miss, ord=2).numpy(), run["risk"][-1].numpy()]


@pytest.mark.parametrize(
    ("ensemble", "axes", "same"),
    [
        ("dense", (True, True), True),
        ("symmetric", (True, True), True),
        ("rank-one", (True, True), True),
        ("multi-response", (True, True), True),
        ("single-response", (True, False), True),
        ("completion", (True, True), False),
    ],
)
def test_rotations_of_the_law(ensemble: str, axes: tuple[bool, bool], same: bool) -> None:
    """Along the axes as along any directions, where the law is one of rotations of that side."""
    count = 400
    first = ends(ensemble, range(count), (False, False))
    second = ends(ensemble, range(10**6, 10**6 + count), axes)
    p = [ks_2samp(*pair).pvalue for pair in zip(first, second, strict=True)]
    assert (min(p) > FALSE_ALARM / len(p)) == same
