"""Benchmarks of the ReLU model: a step on N samples, and one at N = ∞."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import torch

from loraone_theory.bench import baselines
from loraone_theory.bench.base import Row, Setting, benchmark, in_pairs
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.base import Problem
from loraone_theory.problems.relu.population import ReLUPopulation
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population

RANK, TRUE_RANK = 8, 4
ETA = 0.1


def _start(problem: Problem) -> Factors:
    """Factors of the size of W's entries, so that the masks change along the way."""
    g = torch.Generator().manual_seed(1)
    A, B = (
        torch.randn(*shape, generator=g, dtype=torch.float64) / problem.d**0.5
        for shape in ((problem.d, RANK), (RANK, problem.k))
    )
    return Factors(A.to(problem.like), B.to(problem.like))


def _steps(problem: Problem, start: Factors, count: int, engine: str = "torch") -> None:
    simulate(
        problem, "lora", rank=RANK, learning_rate=ETA, steps=count, initial=start, record=(),
        engine=engine,
    )  # fmt: skip


@benchmark("relu")
def relu(setting: Setting) -> Iterator[Row]:
    """Seconds per step on N samples against torch autograd and SGD, on one thread; set-up is in."""
    cases = ((20, 80, 5),) if setting.tiny else ((100, 1600, 200), (512, 8192, 20))
    tuned_words = "autograd of relu(XW + (XA)B) with XW at hand, and SGD"
    forms = [
        ("autograd", "autograd of relu(X(W + AB)) and SGD", False, "torch"),
        ("tuned", tuned_words, True, "torch"),
    ]
    if find_spec("numba"):  # of the extra "fast"
        forms.append(("tuned, compiled", tuned_words, True, "numba"))
    for d, samples, steps in cases:
        for dtype in (torch.float32, torch.float64):
            problem = sample_relu(
                d=d, k=d, true_rank=TRUE_RANK, samples=samples, relative_shift=0.1, dtype=dtype
            )
            start = _start(problem)
            X, W, Y = problem.inputs[0], problem.pretrained[0], problem.labels[0]
            XW = X @ W
            for form, text, tuned, engine in forms:
                ours = partial(_steps, problem, start, steps, engine)
                theirs = partial(
                    baselines.relu_autograd_loop, X, W, Y, *start, ETA, steps,
                    XW=XW if tuned else None,
                )  # fmt: skip
                theirs()
                yield in_pairs(
                    f"relu/{form}, d = {d}, N = {samples}, {str(dtype).removeprefix('torch.')}",
                    text,
                    theirs,
                    ours,
                    pairs=setting.pairs,
                    threads=1,
                    scale=(1 / steps, 1 / steps),
                    d=d, N=samples, r=RANK, steps=steps, threads_of_both=1,
                )  # fmt: skip


@benchmark("relu-population")
def population(setting: Setting) -> Iterator[Row]:
    """Seconds per step at N = ∞ against a step on N samples, and against two products with W."""
    d, steps = (20, 5) if setting.tiny else (100, 50)
    sizes = {"true_rank": TRUE_RANK, "relative_shift": 0.1, "dtype": torch.float32}
    for ratio in (4, 16) if setting.tiny else (4, 16, 64, 256):
        finite = sample_relu(d=d, k=d, samples=ratio * d, **sizes)  # type: ignore[arg-type]
        start = _start(finite)
        count = max(2, steps * 4 // ratio)
        theirs = partial(_steps, finite, start, count)
        theirs()
        yield in_pairs(
            f"relu-population/N = {ratio * d}",
            "a step on N samples",
            theirs,
            partial(_steps, finite.population, start, steps),
            pairs=setting.pairs,
            threads=1,
            scale=(1 / count, 1 / steps),
            d=d, N=ratio * d, r=RANK, threads_of_both=1,
        )  # fmt: skip
    yield _roofline(setting, 64 if setting.tiny else 2048, sizes)


def _roofline(setting: Setting, d: int, sizes: dict) -> Row:
    """The gradients alone against WBᵀ and AᵀW, which they cannot do without."""
    problem: ReLUPopulation = sample_relu_population(d=d, k=d, **sizes)
    A, B = _start(problem)
    W, shift = problem.pretrained[0], Factors(A[None], B[None])
    times = 20

    def theirs() -> None:
        for _ in range(times):
            torch.matmul(W, B.mT), torch.matmul(A.mT, W)

    def ours() -> None:
        for _ in range(times):
            problem.gradients(shift)

    theirs()
    return in_pairs(
        f"relu-population/two products, d = {d}",
        "two products of W with thin factors",
        theirs,
        ours,
        pairs=setting.pairs,
        threads=1,
        scale=(1 / times, 1 / times),
        d=d, r=RANK, true_rank=TRUE_RANK, threads_of_both=1,
    )  # fmt: skip
