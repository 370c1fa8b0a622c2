"""Benchmarks on a CUDA card, each against torch on the same card; no rows where there is none.

At tiny size they run on the CPU too, to see that they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from loraone_theory.bench import baselines
from loraone_theory.bench.base import Row, Setting, benchmark, in_pairs
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free
from loraone_theory.problems.relu.sampling import sample_relu

RANK, TRUE_RANK = 8, 4
ETA = 1 / 64


def _device(setting: Setting) -> torch.device | None:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu") if setting.tiny else None


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "none, on the CPU"


@benchmark("gpu")
def gpu(setting: Setting) -> Iterator[Row]:
    """The linear and the ReLU model on a CUDA card, against torch on the same card."""
    device = _device(setting)
    if device is None:
        return
    yield from _single(setting, device)
    yield from _batches(setting, device)
    yield from _widest(setting, device)
    yield from _relu(setting, device)


def _single(setting: Setting, device: torch.device) -> Iterator[Row]:
    """One run of the reference experiment with the loss of every step, against eager and compiled.

    The compiled loop holds Σ̂, formed once, as a careful user would.
    """
    d, samples, steps = (20, 160, 20) if setting.tiny else (100, 1600, 1500)
    for dtype in (torch.float64, torch.float32):
        instance = baselines.sample(d, d, TRUE_RANK, samples, dtype)
        X, target = instance.X.to(device), instance.target.to(device)
        A, B = (t.to(device) for t in baselines.start(instance, RANK, 1e-2))
        S = X.T @ X / samples

        def over_X(A: Tensor, B: Tensor, X: Tensor = X, target: Tensor = target) -> tuple:
            misfit = X @ (A @ B - target)
            gradient = X.T @ misfit / len(X)
            loss = 0.5 * misfit.square().sum() / len(X)
            return A - ETA * gradient @ B.T, B - ETA * A.T @ gradient, loss

        def over_S(A: Tensor, B: Tensor, S: Tensor = S, target: Tensor = target) -> tuple:
            E = A @ B - target
            gradient = S @ E
            return A - ETA * gradient @ B.T, B - ETA * A.T @ gradient, 0.5 * (E * gradient).sum()

        problem = LinearProblem.from_data(X, shift=target)

        def ours(problem: LinearProblem = problem) -> None:
            simulate(problem, "lora", rank=RANK, learning_rate=ETA, steps=steps, record=("loss",))

        forms: list[tuple[str, str, Callable]] = [("eager", "eager loop over X", over_X)]
        if not setting.tiny:
            forms.append(("compiled", "torch.compile of a step with Σ̂", torch.compile(over_S)))
        for form, text, step in forms:

            def theirs(step: Callable = step, A: Tensor = A, B: Tensor = B) -> None:
                losses = []
                for _ in range(steps):
                    A, B, loss = step(A, B)
                    losses.append(loss)
                torch.stack(losses).cpu()

            theirs()
            yield in_pairs(
                f"gpu/one run, {form}, {str(dtype).removeprefix('torch.')}",
                text, theirs, ours, pairs=setting.pairs,
                card=_card(device), d=d, N=samples, r=RANK, steps=steps,
            )  # fmt: skip


def _batches(setting: Setting, device: torch.device) -> Iterator[Row]:
    """Many instances at once, loss of every step, against batched eager products with Σ̂.

    A whole run of ours; one that multiplies by Σ̂ as the baseline does; and the steps alone, going
    on from a run whose reduction and start are made, as the baseline's start and Σ̂ are.
    """
    d, steps = (12, 10) if setting.tiny else (100, 300)
    for runs in (4,) if setting.tiny else (512, 4096):
        problem = sample_linear(
            d=d, k=d, true_rank=TRUE_RANK, samples=16 * d, seeds=range(runs), device=device,
            dtype="float32",
        )  # fmt: skip
        S, target = problem.covariance.apply(torch.eye(d).to(problem.like)), problem.shift.dense()
        g = torch.Generator().manual_seed(1)
        start = (1e-2 * torch.randn(runs, d, RANK, generator=g)).to(problem.like)

        def theirs(S: Tensor = S, target: Tensor = target, A: Tensor = start) -> None:
            B, losses = A.new_zeros(len(A), RANK, d), []
            for _ in range(steps):
                E = A @ B - target
                gradient = S @ E
                losses.append(0.5 * (E * gradient).sum((-2, -1)))
                A, B = A - ETA * gradient @ B.mT, B - ETA * A.mT @ gradient
            torch.stack(losses).cpu()

        def ours(
            problem: LinearProblem = problem, reduce: str = "auto", steps: int = steps
        ) -> Trajectory:
            return simulate(
                problem, "lora", rank=RANK, learning_rate=ETA, steps=steps, record=("loss",),
                reduce=reduce,
            )  # fmt: skip

        forms: dict[str, Callable[[], object]] = {
            "": ours,
            ", unreduced": partial(ours, reduce="never"),
            ", steps alone": partial(ours(steps=1).extend, steps),
        }
        theirs()
        for words, form in forms.items():
            yield in_pairs(
                f"gpu/batch of {runs}, float32{words}", "batched eager products with Σ̂",
                theirs, form, pairs=setting.pairs, card=_card(device), d=d, r=RANK, steps=steps,
            )  # fmt: skip


def _widest(setting: Setting, device: torch.device) -> Iterator[Row]:
    """A step at d = 10⁶ against the bytes it must move over the card's copy bandwidth."""
    d, steps = (1000, 20) if setting.tiny else (1_000_000, 400)
    problem = sample_linear_matrix_free(
        d=d, k=d, true_rank=TRUE_RANK, samples=16 * d, device=device
    )
    # A read and written, the target and Σ̂'s two diagonals read.
    moved = 8 * d * (2 * RANK + TRUE_RANK + 2)
    source = torch.empty(max(moved // 16, 1 << 20), dtype=torch.float64, device=device).zero_()
    sink = torch.empty_like(source)

    def copied() -> None:
        for _ in range(steps):
            sink.copy_(source)

    def ours() -> None:
        simulate(problem, "lora", rank=RANK, learning_rate=ETA, steps=steps, record=())

    copied()
    share = moved / (2 * 8 * source.numel())
    yield in_pairs(
        f"gpu/step at d = {d}", "bytes a step must move / copy bandwidth of the card",
        copied, ours, pairs=setting.pairs, scale=(share / steps, 1 / steps),
        card=_card(device), d=d, r=RANK, steps=steps,
        set_up_included="reduction and initialisation, spread over the steps",
    )  # fmt: skip


def _relu(setting: Setting, device: torch.device) -> Iterator[Row]:
    """A step of the empirical ReLU model against autograd and SGD."""
    cases = ((20, 80, 5),) if setting.tiny else ((512, 8192, 200), (4096, 65536, 20))
    for d, samples, steps in cases:
        problem = sample_relu(
            d=d, k=d, true_rank=TRUE_RANK, samples=samples, relative_shift=0.1,
            dtype=torch.float32, device=device,
        )  # fmt: skip
        X, W, Y = problem.inputs[0], problem.pretrained[0], problem.labels[0]
        g = torch.Generator().manual_seed(1)
        A = (1e-2 * torch.randn(d, RANK, generator=g)).to(X)
        B = torch.zeros(RANK, d).to(X)

        theirs = partial(baselines.relu_autograd_loop, X, W, Y, A, B, 0.1, steps, tuned=True)
        ours = partial(
            simulate, problem, "lora", rank=RANK, learning_rate=0.1, steps=steps, record=()
        )
        theirs()
        yield in_pairs(
            f"gpu/relu, d = {d}, N = {samples}, float32",
            "autograd of relu(XW + (XA)B) with XW made once, and SGD",
            theirs, ours, pairs=setting.pairs, scale=(1 / steps, 1 / steps),
            card=_card(device), d=d, N=samples, r=RANK, steps=steps,
        )  # fmt: skip
