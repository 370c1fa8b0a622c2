"""What is timed on a card: the work of ours, and the same as a user would write it in torch."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loraone_theory.bench import baselines
from loraone_theory.bench.base import Setting
from loraone_theory.bench.gpu_loops import FORMS, Run, runs
from loraone_theory.core.extras import MissingExtra, extra
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear, sample_linear_matrix_free
from loraone_theory.problems.relu.sampling import sample_relu
from loraone_theory.problems.sensing.operators import Dense
from loraone_theory.problems.sensing.sampling import sample_sensing

RANK, TRUE_RANK = 8, 4
ETA = 1 / 64


@dataclass(frozen=True)
class Case:
    """Ours and what it stands beside.

    Args:
        name: of its rows.
        like: a tensor of its dtype.
        ours: what is timed, by the words that it adds to the name.
        baselines: what it is timed against, by form.
        said: form -> what the row says of that baseline.
        steps: that all of them make, which the seconds of ours are divided by.
        their_scale: what the baseline's seconds are multiplied by.
        work: "bytes" that a step must move and "operations" that it must do.
        notes: of its rows.
    """

    name: str
    like: Tensor
    ours: dict[str, Run]
    baselines: dict[str, Run]
    said: dict[str, str]
    steps: int
    their_scale: float
    work: dict[str, float]
    notes: dict[str, Any] = field(default_factory=dict)


def _case(
    name: str, like: Tensor, forms: dict[str, Run], text: str, steps: int, **more: Any
) -> Case:
    said = {form: f"{text}: {FORMS[form]}" for form in forms}
    return Case(name, like, baselines=forms, said=said, steps=steps, their_scale=1 / steps, **more)


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ours(
    problem: Problem, steps: int, *, rate: float = ETA, reduce: str = "auto", **more: Any
) -> Trajectory:
    return simulate(
        problem, "lora", rank=RANK, learning_rate=rate, steps=steps, reduce=reduce, **more
    )


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
    d, samples, steps = (20, 160, 5) if setting.tiny else (100, 1600, 300)
    stds = [1.0, 0.3, 0.1, 0.03, 0.01]
    for dtype in (torch.float64, torch.float32):
        instance = baselines.sample(d, d, TRUE_RANK, samples, dtype)
        X, target = instance.X.to(device), instance.target.to(device)
        A = torch.stack([baselines.start(instance, RANK, std)[0] for std in stds]).to(device)
        S = X.T @ X / samples
        outside = torch.linalg.svd(S @ target).U[:, TRUE_RANK:]
        descent = _descent(S, target)

        def step(
            A: Tensor, B: Tensor, *, descent: Any = descent, outside: Tensor = outside,
            target: Tensor = target,
        ) -> tuple[Tensor, ...]:  # fmt: skip
            leading = torch.linalg.svd(A, full_matrices=False).U[..., :TRUE_RANK]
            sine = torch.linalg.matrix_norm(outside.mT @ leading, 2)
            risk = 0.5 * (A @ B - target).square().sum((-2, -1))
            *after, loss = descent(A, B)
            return *after, torch.stack((loss, risk, sine))

        problem = LinearProblem.from_data(X, shift=target)
        record = ("loss", "risk", "left_alignment")
        start = A, A.new_zeros(len(stds), RANK, d)
        ours = partial(_ours, problem, steps, init_std=stds, record=record)
        yield _case(
            f"notebook, {_kind(dtype)}", X, runs(step, start, steps, compiles=False),
            "Σ̂ formed once, singular value decompositions", steps,
            ours={"": ours}, work={}, notes={"d": d, "N": samples, "r": RANK, "runs": len(stds)},
        )  # fmt: skip


def single(setting: Setting, device: torch.device) -> Iterator[Case]:
    """One run of the reference experiment with the loss of every step."""
    d, samples, steps = (20, 160, 20) if setting.tiny else (100, 1600, 1500)
    for dtype in (torch.float64, torch.float32):
        instance = baselines.sample(d, d, TRUE_RANK, samples, dtype)
        X, target = instance.X.to(device), instance.target.to(device)
        A, B = (tensor.to(device) for tensor in baselines.start(instance, RANK, 1e-2))
        problem = LinearProblem.from_data(X, shift=target)
        forms = runs(_descent(X.T @ X / samples, target), (A, B), steps, compiles=not setting.tiny)
        yield _case(
            f"one run, {_kind(dtype)}", X, forms, "products with Σ̂, formed once", steps,
            ours={"": partial(_ours, problem, steps, record=("loss",), initial=Factors(A, B))},
            work=_reduced_work(d, X.element_size()), notes={"d": d, "N": samples, "r": RANK},
        )  # fmt: skip


def _reduced_work(d: int, size: int, count: int = 1) -> dict[str, float]:
    """Of a step of so many reduced runs: A read and written, the target and Σ̂'s values read."""
    moved = count * size * d * (2 * RANK + TRUE_RANK + 1)
    return {"bytes": moved, "operations": count * 6 * d * RANK * TRUE_RANK}


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
        whole = partial(_ours, problem, record=("loss",), initial=Factors(*start))
        ours: dict[str, Run] = {
            "": partial(whole(steps=1).extend, steps),
            ", reduction included": partial(whole, steps=steps),
            ", unreduced": partial(whole, steps=steps, reduce="never"),
        }
        yield _case(
            f"batch of {count}, float32", A, forms, "batched products with Σ̂", steps,
            ours=ours, work=_reduced_work(d, 4, count), notes={"d": d, "r": RANK},
        )  # fmt: skip


def widest(setting: Setting, device: torch.device) -> Iterator[Case]:
    """A step at d = 10⁶ against a copy of the bytes that it must move."""
    d, steps = (1000, 20) if setting.tiny else (1_000_000, 400)
    problem = sample_linear_matrix_free(
        d=d, k=d, true_rank=TRUE_RANK, samples=16 * d, device=device
    )
    # Σ̂'s second diagonal, which `_reduced_work` does not know.
    work = {"bytes": _reduced_work(d, 8)["bytes"] + 8 * d}
    source = torch.zeros(max(int(work["bytes"]) // 16, 1 << 20), dtype=torch.float64, device=device)
    sink = torch.empty_like(source)

    def copied() -> None:
        for _ in range(steps):
            sink.copy_(source)

    yield Case(
        f"step at d = {d}", source, {"": partial(_ours, problem, steps, record=())},
        {"eager": copied}, {"eager": "bytes a step must move / copy bandwidth of the card"},
        steps, work["bytes"] / (16 * source.numel()) / steps, work,
        notes={"d": d, "r": RANK, "set_up_included": "reduction and initialisation"},
    )  # fmt: skip


def relu(setting: Setting, device: torch.device) -> Iterator[Case]:
    """A step of the empirical ReLU model: autograd and SGD, and the gradients written out."""
    cases = ((20, 80, 5),) if setting.tiny else ((512, 8192, 200), (4096, 65536, 20))
    for d, samples, steps in cases:
        problem = sample_relu(
            d=d, k=d, true_rank=TRUE_RANK, samples=samples, relative_shift=0.1,
            dtype=torch.float32, device=device,
        )  # fmt: skip
        X, W, Y = problem.inputs[0], problem.pretrained[0], problem.labels[0]
        XW = X @ W
        g = torch.Generator().manual_seed(1)
        A = (1e-2 * torch.randn(d, RANK, generator=g)).to(X)
        B = torch.zeros(RANK, d).to(X)

        def step(
            A: Tensor, B: Tensor, *, X: Tensor = X, XW: Tensor = XW, Y: Tensor = Y
        ) -> tuple[Tensor, ...]:
            XA = X @ A
            Z = XW + XA @ B
            E = torch.relu(Z) - Y
            M = torch.where(Z > 0, E, 0.0) / len(X)
            after = A - 0.1 * (X.T @ (M @ B.T)), B - 0.1 * (XA.T @ M)
            return *after, 0.5 * E.square().sum() / len(X)

        autograd = partial(baselines.relu_autograd_loop, X, W, Y, A, B, 0.1, steps, tuned=True)
        forms = {"autograd": autograd} | runs(step, (A, B), steps, compiles=not setting.tiny)
        text = "XW + (XA)B with XW made once, gradients written out"
        said = {form: f"{text}: {words}" for form, words in FORMS.items()}
        said["autograd"] = "autograd of relu(XW + (XA)B) with XW made once, and SGD"
        yield Case(
            f"relu, d = {d}, N = {samples}, float32", X,
            {"": partial(_ours, problem, steps, rate=0.1, record=("loss",), initial=Factors(A, B))},
            forms, said, steps, 1 / steps,
            {"bytes": 4 * samples * 3 * d, "operations": 10 * samples * d * RANK},
            notes={"d": d, "N": samples, "r": RANK},
        )  # fmt: skip


def sensing(setting: Setting, device: torch.device) -> Iterator[Case]:
    """A step of dense sensing against products with the m matrices."""
    d, m, steps = (8, 100, 3) if setting.tiny else (64, 20_000, 200)
    rate = 0.01
    problem = sample_sensing(
        ensemble="dense", d=d, k=d, true_rank=2, measurements=m, dtype="float32", device=device
    )
    operator = problem.operator
    assert isinstance(operator, Dense)
    flat, y = operator.matrices[0].flatten(1), problem.labels[0]
    g = torch.Generator().manual_seed(0)
    A = (1e-2 * torch.randn(d, RANK, generator=g)).to(flat)
    B = torch.zeros(RANK, d).to(flat)

    def step(A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        miss = flat @ (A @ B).flatten() - y
        R = (flat.T @ miss).view(d, d) / m
        return A - rate * R @ B.T, B - rate * A.T @ R, miss.square().sum() / (2 * m)

    ours = partial(_ours, problem, steps, rate=rate, record=("loss",), initial=Factors(A, B))
    yield _case(
        f"dense sensing, d = {d}, m = {m}, float32", flat,
        runs(step, (A, B), steps, compiles=not setting.tiny),
        "products with the m matrices", steps,
        ours={"": ours}, work={"bytes": 4 * d**4, "operations": 2 * d**4},
        notes={"d": d, "m": m, "r": RANK, "work_is_of": "K = 𝒜*𝒜/m, made once in each run"},
    )  # fmt: skip


def estimation(setting: Setting, device: torch.device) -> Iterator[Case]:
    """The gradients that LoRA-One starts from, of a transformer, against a plain backward pass."""
    width, layers, tokens = (32, 1, 8) if setting.tiny else (2048, 8, 1024)
    try:
        with extra("peft"):
            route = importlib.import_module("loraone_theory.integrations.peft_bench")
    except MissingExtra as error:
        warnings.warn(str(error), stacklevel=2)
        return
    model, other = (route.transformer(width, layers).to(device) for _ in range(2))
    plain = route.plain_backward(other, tokens)
    weights = sum(module.weight.numel() for module in route.targeted(model))
    yield Case(
        f"PEFT estimation, width {width}", next(model.parameters()),
        {"": lambda: route.ours(model, tokens)},
        {"eager": plain}, {"eager": "a plain backward pass"}, 1, 1.0,
        # Two sequences; a product forward and two backward for each weight.
        {"operations": 6.0 * weights * 2 * tokens},
        notes={"width": width, "layers": layers, "tokens": 2 * tokens},
    )  # fmt: skip


# Whether they are made of products that are large enough for TF32 to matter.
CASES = {
    notebook: False,
    single: False,
    batches: False,
    widest: False,
    relu: True,
    sensing: True,
    estimation: True,
}
