"""Benchmarks of matrix sensing: each ensemble against the loop that one would write for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from loraone_theory.bench.base import Row, Setting, alone, benchmark, in_pairs
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.online import simulate_online
from loraone_theory.problems.sensing.lazy import sample_dense_lazy
from loraone_theory.problems.sensing.operators import Completion, Dense, RankOne
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

RANK, RATE = 4, 0.01
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _loop(step: Step, d: int, k: int, steps: int) -> None:
    g = torch.Generator().manual_seed(0)
    A = 0.01 * torch.randn(d, RANK, generator=g, dtype=torch.float64)
    B = torch.zeros(RANK, k, dtype=torch.float64)
    for _ in range(steps):
        grad_A, grad_B = step(A, B)
        A, B = A - RATE * grad_A, B - RATE * grad_B


def forget_gram(problem: SensingProblem) -> None:
    """K = 𝒜*𝒜/m, which an operator keeps, is to be made in every run that is timed."""
    vars(problem.operator).pop("gram", None)


def _ours(problem: SensingProblem, steps: int) -> None:
    forget_gram(problem)
    simulate(problem, "lora", rank=RANK, learning_rate=RATE, steps=steps, record=(), every=steps)


def _row(
    name: str, baseline: str, step: Step, problem: SensingProblem, steps: int, s: Setting
) -> Row:
    d, k = problem.d, problem.k
    _loop(step, d, k, 1)
    return in_pairs(
        f"sensing/{name}",
        baseline,
        lambda: _loop(step, d, k, steps),
        lambda: _ours(problem, steps),
        pairs=s.pairs,
        threads=1,
        scale=(1 / steps, 1 / steps),
        d=d, k=k, m=problem.measurements, r=RANK, steps=steps,
    )  # fmt: skip


@benchmark("sensing")
def sensing(setting: Setting) -> Iterator[Row]:
    """Seconds per step of rank-one, completion and dense sensing, each against a plain loop."""
    tiny = setting.tiny
    yield _rank_one(*((20, 100, 2) if tiny else (500, 10_000, 20)), setting)
    yield _completion(*((30, 200, 2) if tiny else (20_000, 4_000_000, 8)), setting)
    yield from _dense(*((8, 100, 3) if tiny else (40, 3200, 400)), setting)


def _rank_one(d: int, m: int, steps: int, setting: Setting) -> Row:
    problem = sample_sensing(ensemble="rank-one", d=d, k=d, true_rank=2, measurements=m)
    operator = problem.operator
    assert isinstance(operator, RankOne)
    X, Z, y = operator.X[0], operator.Z[0], problem.labels[0]

    def step(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        XA, ZB = X @ A, Z @ B.T
        miss = ((XA * ZB).sum(1) - y)[:, None] / m
        return X.T @ (miss * ZB), (miss * XA).T @ Z

    return _row("rank-one", "plain loop over X and Z", step, problem, steps, setting)


def _completion(d: int, m: int, steps: int, setting: Setting) -> Row:
    problem = sample_sensing(ensemble="completion", d=d, k=d, true_rank=2, measurements=m)
    operator = problem.operator
    assert isinstance(operator, Completion)
    i, j, y, scale = operator.rows[0], operator.columns[0], problem.labels[0], operator.scale

    def step(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        left, right = A[i], B.T[j]
        miss = (scale * (left * right).sum(1) - y)[:, None] * (scale / m)
        grad_A = torch.zeros_like(A).index_add_(0, i, miss * right)
        return grad_A, torch.zeros_like(B.T).index_add_(0, j, miss * left).T

    baseline = "plain loop, gathers and index_add_"
    return _row("completion", baseline, step, problem, steps, setting)


def _dense(d: int, m: int, steps: int, setting: Setting) -> Iterator[Row]:
    problem = sample_sensing(ensemble="dense", d=d, k=d, true_rank=2, measurements=m)
    operator = problem.operator
    assert isinstance(operator, Dense)
    a, y = operator.matrices[0], problem.labels[0]
    flat = a.flatten(1)

    def step(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        R = (flat.T @ (flat @ (A @ B).flatten() - y)).view(d, d) / m
        return R @ B.T, A.T @ R

    def by_autograd(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        A, B = A.requires_grad_(), B.requires_grad_()
        miss = torch.einsum("mpq,pr,rq->m", a, A, B) - y
        grads = torch.autograd.grad(miss.square().sum() / (2 * m), (A, B))
        A.detach_(), B.detach_()
        return grads[0], grads[1]

    yield _row("dense", "plain loop over the m matrices", step, problem, steps, setting)
    few = max(1, steps // 20)
    yield _row("dense, autograd", "einsum and autograd", by_autograd, problem, few, setting)


@benchmark("lazy")
def lazy(setting: Setting) -> Iterator[Row]:
    """Whole runs drawn as they go: dense sensing without the operator, online descent of any d."""
    d, m, steps = (10, 200, 5) if setting.tiny else (200, 7920, 40)
    held = 0

    def whole() -> None:
        nonlocal held
        problem = sample_dense_lazy(d=d, k=d, true_rank=RANK, measurements=m, steps=steps)
        simulate(problem, "lora-one-preconditioned", rank=RANK, learning_rate=0.5, steps=steps)
        rows = problem.rows
        held = 8 * (rows.matrices.numel() + rows.directions.numel())

    whole()
    row = alone("lazy/dense", whole, repeats=3, d=d, k=d, m=m, r=RANK, steps=steps)
    row.notes.update(held_bytes=held, operator_bytes=8 * m * d * d)
    yield row
    yield _online(setting)


def _online(setting: Setting) -> Row:
    """Fresh rows at d = k = 10⁹, beside a plain loop over fresh rows at d = k = 10,000."""
    b, d, steps = (4, 50, 5) if setting.tiny else (64, 10_000, 200)
    wide = 10**9

    def ours() -> None:
        simulate_online(
            d=wide, k=wide, rank=RANK, true_rank=2, batch=b, learning_rate=1e-9, steps=steps,
            init_std=1e-9, every=steps,
        )  # fmt: skip

    g = torch.Generator().manual_seed(1)
    U, V = (torch.eye(d, 2, dtype=torch.float64) for _ in range(2))

    def step(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        X = torch.randn(b, d, generator=g, dtype=torch.float64)
        XA = X @ A
        miss = (XA @ B - (X @ U) @ V.T) / b
        return X.T @ (miss @ B.T), XA.T @ miss

    _loop(step, d, d, 1)
    return in_pairs(
        f"lazy/online, d = {wide}, per step",
        f"plain loop over fresh rows at d = {d}",
        lambda: _loop(step, d, d, steps),
        ours,
        pairs=setting.pairs,
        threads=1,
        scale=(1 / steps, 1 / steps),
        d=wide, b=b, r=RANK, steps=steps,
    )  # fmt: skip
