"""The linear model on a card, beside products with Σ̂ and with X."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from loraone_theory.bench import baselines
from loraone_theory.bench.base import Setting
from loraone_theory.bench.gpu_case import ETA, RANK, TRUE_RANK, Case, case_of, ours_of
from loraone_theory.bench.gpu_loops import Run, Step, runs
from loraone_theory.core.factors import Factors
from loraone_theory.core.plain import plain
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free


def _descent(S: Tensor, target: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """Eq. 4 with Σ̂ formed once, and the loss before the step."""

    def step(A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        E = A @ B - target
        gradient = S @ E
        loss = 0.5 * (E * gradient).sum((-2, -1))
        return A - ETA * gradient @ B.mT, B - ETA * A.mT @ gradient, loss

    return step


def notebook(setting: Setting, device: torch.device) -> Iterator[Case]:
    """The reference experiment, five init sizes; loss, risk and alignment before every step."""
    d, samples, steps = (20, 160, 5) if setting.tiny else (100, 1600, 100)
    stds = [1.0, 0.3, 0.1, 0.03, 0.01]
    for dtype in (torch.float64, torch.float32):
        instance = baselines.sample(d, d, TRUE_RANK, samples, dtype)
        X, target = instance.X.to(device), instance.target.to(device)
        A = torch.stack([baselines.start(instance, RANK, std)[0] for std in stds]).to(device)
        S = X.T @ X / samples
        outside = torch.linalg.svd(S @ target).U[:, TRUE_RANK:]
        descent, start = _descent(S, target), (A, A.new_zeros(len(stds), RANK, d))
        forms = {
            form: runs(_watched(descent, leading, outside, target), start, steps, compiles=False)
            for form, leading in (("SVDs", _by_svd), ("Gram matrices", _by_gram))
        }
        problem = LinearProblem.from_data(X, shift=target)
        record = ("loss", "risk", "left_alignment")
        ours = partial(ours_of, problem, steps, init_std=stds, record=record)
        yield Case(
            f"notebook, {plain(dtype)}", X, {"": ours},
            {form: made["eager"] for form, made in forms.items()},
            {form: f"Σ̂ formed once, angles by {form}: eager" for form in forms},
            steps, 1 / steps, {}, notes={"d": d, "N": samples, "r": RANK, "runs": len(stds)},
        )  # fmt: skip


def _by_svd(A: Tensor) -> Tensor:
    """U_{r*}(A)."""
    return torch.linalg.svd(A, full_matrices=False).U[..., :TRUE_RANK]


def _by_gram(A: Tensor) -> Tensor:
    """U_{r*}(A) from the eigenpairs of AᵀA."""
    squares, V = torch.linalg.eigh(A.mT @ A)
    return A @ (V[..., -TRUE_RANK:] / squares[..., None, -TRUE_RANK:].sqrt())


def _watched(descent: Step, leading: Callable, outside: Tensor, target: Tensor) -> Step:
    """The step that logs loss, risk and alignment."""

    def step(A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        sine = torch.linalg.matrix_norm(outside.mT @ leading(A), 2)
        risk = 0.5 * (A @ B - target).square().sum((-2, -1))
        *after, loss = descent(A, B)
        return *after, torch.stack((loss, risk, sine))

    return step


def single(setting: Setting, device: torch.device) -> Iterator[Case]:
    """One run of the reference experiment with the loss of every step."""
    d, samples, steps = (20, 160, 20) if setting.tiny else (100, 1600, 1500)
    for dtype in (torch.float64, torch.float32):
        instance = baselines.sample(d, d, TRUE_RANK, samples, dtype)
        X, target = instance.X.to(device), instance.target.to(device)
        A, B = (tensor.to(device) for tensor in baselines.start(instance, RANK, 1e-2))
        problem = LinearProblem.from_data(X, shift=target)
        forms = runs(_descent(X.T @ X / samples, target), (A, B), steps, compiles=not setting.tiny)
        yield case_of(
            f"one run, {plain(dtype)}", X, forms, "products with Σ̂, formed once", steps,
            ours={"": partial(ours_of, problem, steps, record=("loss",), initial=Factors(A, B))},
            work={"operations": _reduced_operations(d)}, notes={"d": d, "N": samples, "r": RANK},
        )  # fmt: skip


def _reduced_operations(d: int) -> float:
    """Of a step of one reduced run."""
    return 6 * d * RANK * TRUE_RANK


def batches(setting: Setting, device: torch.device) -> Iterator[Case]:
    """Many instances at once with the loss of every step.

    The steps alone of ours, going on from a run whose reduction is made, as the baseline's Σ̂ is; a
    whole run; and one that multiplies by Σ̂ as the baseline does.
    """
    d, steps = (12, 10) if setting.tiny else (100, 300)
    for count in (4,) if setting.tiny else (512, 4096):
        problem = sample_linear(
            d=d, k=d, true_rank=TRUE_RANK, samples=16 * d, seeds=range(count), device=device,
            dtype="float32",
        )  # fmt: skip
        S, target = problem.covariance.apply(torch.eye(d).to(problem.like)), problem.shift.dense()
        g = torch.Generator().manual_seed(1)
        A = (1e-2 * torch.randn(count, d, RANK, generator=g)).to(problem.like)
        start = A, A.new_zeros(count, RANK, d)
        forms = runs(_descent(S, target), start, steps, compiles=not setting.tiny)
        whole = partial(ours_of, problem, record=("loss",), initial=Factors(*start))
        ours: dict[str, Run] = {
            "": partial(whole(steps=1).extend, steps),
        }
        if count <= 512:
            ours[", reduction included"] = partial(whole, steps=steps)
            ours[", unreduced"] = partial(whole, steps=steps, reduce="never")
        yield case_of(
            f"batch of {count}, float32", A, forms, "batched products with Σ̂", steps,
            ours=ours, work={"operations": count * _reduced_operations(d)},
            notes={"d": d, "r": RANK},
        )  # fmt: skip


def widest(setting: Setting, device: torch.device) -> Iterator[Case]:
    """A step at d = 10⁶ against a copy of the bytes that it must move."""
    d, steps = (1000, 20) if setting.tiny else (1_000_000, 400)
    problem = sample_linear_matrix_free(
        d=d, k=d, true_rank=TRUE_RANK, samples=16 * d, device=device
    )
    # A read and written, the target and Σ̂'s two diagonals read.
    work = {"bytes": 8.0 * d * (2 * RANK + TRUE_RANK + 2)}
    source = torch.zeros(max(int(work["bytes"]) // 16, 1 << 20), dtype=torch.float64, device=device)
    sink = torch.empty_like(source)

    def copied() -> None:
        for _ in range(steps):
            sink.copy_(source)

    ours: dict[str, Run] = {
        "": partial(ours_of(problem, 1, record=()).extend, steps),
        ", set-up included": partial(ours_of, problem, steps, record=()),
    }
    yield Case(
        f"step at d = {d}", source, ours,
        {"eager": copied}, {"eager": "bytes a step must move / copy bandwidth of the card"},
        steps, work["bytes"] / (16 * source.numel()) / steps, work,
        notes={"d": d, "r": RANK},
    )  # fmt: skip
