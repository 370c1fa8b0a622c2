"""Benchmarks of the linear experiment at the sizes one meets."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import torch

from loraone_theory.bench import baselines
from loraone_theory.bench.base import Row, Setting, alone, benchmark, in_pairs, seconds
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free

ALPHA2 = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
RECORDED = ("loss", "risk", "left_alignment")


# Engine -> what its rows are called besides; numba comes with the extra "fast".
ENGINES = {"torch": ""} | ({"numba": ", compiled"} if find_spec("numba") else {})


@benchmark("notebook")
def notebook(setting: Setting) -> Iterator[Row]:
    """The reference experiment, five init sizes, everything recorded at every step."""
    steps, samples, d = (20, 160, 20) if setting.tiny else (1500, 1600, 100)
    stds = [math.sqrt(a) for a in ALPHA2]
    for dtype in (torch.float64, torch.float32):
        instance = baselines.sample(d, d, 4, samples, dtype)
        starts = [baselines.start(instance, 8, std) for std in stds]
        baselines.plain_loop(instance, *starts[0], 1 / 64, 2, recorded=True)

        def theirs(instance: baselines.Instance = instance, starts: Sequence = starts) -> None:
            for A, B in starts:
                baselines.plain_loop(instance, A, B, 1 / 64, steps, recorded=True)

        def ours(engine: str, instance: baselines.Instance = instance) -> None:
            problem = LinearProblem.from_data(instance.X, shift=instance.target)
            simulate(
                problem, "lora", rank=8, learning_rate=1 / 64, steps=steps,
                init_std=stds, record=RECORDED, engine=engine,
            )  # fmt: skip

        for engine, words in ENGINES.items():
            ours(engine)  # compiled by then
            yield in_pairs(
                f"notebook/{str(dtype).removeprefix('torch.')}{words}",
                "plain loop over X with full SVDs",
                theirs,
                functools.partial(ours, engine),
                pairs=1 if setting.tiny else 3,
                d=d, N=samples, r=8, true_rank=4, steps=steps, runs=len(stds),
            )  # fmt: skip


@benchmark("autograd")
def autograd(setting: Setting) -> Iterator[Row]:
    """One run of the reference experiment against torch autograd and torch.optim.SGD."""
    steps, samples, d = (20, 160, 20) if setting.tiny else (1500, 1600, 100)
    instance = baselines.sample(d, d, 4, samples, torch.float64)
    A, B = baselines.start(instance, 8, 1e-2)
    baselines.autograd_loop(instance, A, B, 1 / 64, 2)

    def ours() -> None:
        problem = LinearProblem.from_data(instance.X, shift=instance.target)
        simulate(problem, "lora", rank=8, learning_rate=1 / 64, steps=steps, record=("loss",))

    yield in_pairs(
        "autograd/float64",
        "torch autograd and SGD, loss at every step",
        lambda: baselines.autograd_loop(instance, A, B, 1 / 64, steps),
        ours,
        pairs=setting.pairs,
        d=d, N=samples, r=8, steps=steps,
    )  # fmt: skip


@benchmark("wide")
def wide(setting: Setting) -> Iterator[Row]:
    """Cost per step at d = k = 1000, N = 16,000, set-up of ours apart."""
    d, steps = (100, 50) if setting.tiny else (1000, 2000)
    instance = baselines.sample(d, d, 4, 16 * d, torch.float64)
    A, B = baselines.start(instance, 8, 1e-2)
    problem = LinearProblem.from_data(instance.X, shift=instance.target)

    def ours(count: int) -> None:
        simulate(problem, "lora", rank=8, learning_rate=1 / 64, steps=count, record=())

    baselines.plain_loop(instance, A, B, 1 / 64, 1, recorded=False)
    set_up = alone("", lambda: ours(1), repeats=3).ours_s
    row = in_pairs(
        "wide/per step",
        "plain loop over X, nothing recorded",
        lambda: baselines.plain_loop(instance, A, B, 1 / 64, 2, recorded=False),
        lambda: ours(steps),
        pairs=setting.pairs,
        scale=(1 / 2, 1 / steps),
        d=d, N=16 * d, r=8, steps=steps, our_one_off_set_up_s=set_up,
    )  # fmt: skip
    yield row


@benchmark("batch")
def batch(setting: Setting) -> Iterator[Row]:
    """Cost per run as the batch grows, d = k = 100, N = 1600, against one run at a time."""
    d, steps = (20, 20) if setting.tiny else (100, 500)
    problem = sample_linear(d=d, k=d, true_rank=4, samples=16 * d)

    def work(count: int) -> None:
        simulate(
            problem, "lora", rank=8, learning_rate=1 / 64, steps=steps,
            seeds=range(count), record=(),
        )  # fmt: skip

    work(1)
    for count in (1, 8, 64, 512):
        yield in_pairs(
            f"batch/{count} runs",
            "one run (seconds per run)",
            lambda: work(1),
            lambda count=count: work(count),  # type: ignore[misc]
            pairs=setting.pairs,
            scale=(1.0, 1 / count),
            d=d, r=8, steps=steps,
        )  # fmt: skip


@benchmark("scaling-d")
def scaling(setting: Setting) -> Iterator[Row]:
    """Seconds per step against d, with the memory roofline measured in the same run."""
    widths = (50, 100) if setting.tiny else (100, 1000, 10_000, 100_000, 1_000_000)
    found = []
    for d in widths:
        problem = sample_linear_matrix_free(d=d, k=d, true_rank=4, samples=16 * d)
        few, many = (10, 90) if d >= 10**6 else (50, 250)
        row = _step_row(problem, few, many, setting)
        if 32 * d * d * d < 10**11:  # the plain loop's multiplications in one step: seconds
            row.notes["plain_loop_s"] = _plain_step(d)
        found.append((d, row.ours_s))
        yield row
    # Below 10,000 a step costs its dispatch, so the exponent is that of the wide end.
    wide = [(math.log(d), math.log(s)) for d, s in found[-3:]]
    slope = (wide[-1][1] - wide[0][1]) / (wide[-1][0] - wide[0][0])
    notes = {"exponent": slope, "from_d": found[-3:][0][0], "to_d": found[-1][0]}
    yield Row("scaling-d/exponent", "none", None, found[-1][1], notes=notes)


def _plain_step(d: int) -> float:
    instance = baselines.sample(d, d, 4, 16 * d, torch.float64)
    A, B = baselines.start(instance, 8, 1e-2)
    work = lambda: baselines.plain_loop(instance, A, B, 0.01, 2, recorded=False)  # noqa: E731
    work()
    return alone("", work, repeats=3).ours_s / 2


def _step_row(problem: LinearProblem, few: int, many: int, setting: Setting) -> Row:
    """Per-step seconds by the difference of two run lengths, against a copy of the same bytes.

    The least of two runs of each length: what is subtracted is set-up, which is long at large d. A
    difference that is not positive shows that something else ran meanwhile, and is taken again.
    """
    d, r, m, size = problem.d, 8, problem.true_rank, problem.like.element_size()
    # A step must read A, the target and the two diagonals, and write A.
    moved = d * size * (2 * r + m + 2)
    # Copying n bytes moves 2n; arrays as large as these, but at least twice a 32 MiB cache.
    source = torch.ones(max(moved // 2, 64 << 20) // 8, dtype=torch.float64)
    sink = torch.empty_like(source)

    def work(count: int) -> None:
        simulate(problem, "lora", rank=r, learning_rate=0.01, steps=count, record=())

    work(few)
    times: list[tuple[float, float]] = []
    for _ in range(10 * setting.pairs):
        bandwidth = 2 * source.numel() * 8 / alone("", lambda: sink.copy_(source), repeats=3).ours_s
        short, long = (
            min(seconds(functools.partial(work, count)) for _ in range(2)) for count in (few, many)
        )
        if long > short:
            times.append((moved / bandwidth, (long - short) / (many - few)))
        if len(times) == setting.pairs:
            break
    else:
        raise RuntimeError(f"runs of {many} steps take no longer than of {few}: too busy to time")
    ratios = sorted(roof / ours for roof, ours in times)
    middle = len(ratios) // 2
    return Row(
        f"scaling-d/d = {d}",
        "memory roofline: bytes a step must move / copy bandwidth",
        sorted(roof for roof, _ in times)[middle],
        sorted(ours for _, ours in times)[middle],
        ratios[middle],
        (ratios[0], ratios[-1]),
        {"d": d, "r": r, "true_rank": m, "bytes": moved, "pairs": setting.pairs},
    )
