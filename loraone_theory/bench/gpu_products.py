"""ReLU, sensing and PEFT's estimation on a card: each is made of large products."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from loraone_theory.bench import baselines
from loraone_theory.bench.base import Setting
from loraone_theory.bench.gpu_case import RANK, TRUE_RANK, Case, case_of, ours_of
from loraone_theory.bench.gpu_loops import FORMS, runs
from loraone_theory.bench.sensing import forget_gram
from loraone_theory.core.extras import MissingExtra, extra
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.problems.relu.sampling import sample_relu
from loraone_theory.problems.sensing.operators import Dense
from loraone_theory.problems.sensing.sampling import sample_sensing


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
            Z = torch.addmm(XW, XA, B)
            E = torch.relu(Z) - Y
            M, rate = torch.where(Z > 0, E, 0.0), 0.1 / len(X)
            after = A - rate * (X.T @ (M @ B.T)), B - rate * (XA.T @ M)
            return *after, 0.5 * E.square().sum() / len(X)

        autograd = partial(baselines.relu_autograd_loop, X, W, Y, A, B, 0.1, steps, XW=XW)
        forms = {"autograd": autograd} | runs(step, (A, B), steps, compiles=not setting.tiny)
        text = "XW + (XA)B with XW at hand, gradients written out"
        said = {form: f"{text}: {words}" for form, words in FORMS.items()}
        said["autograd"] = "autograd of relu(XW + (XA)B) with XW at hand, and SGD"
        ours = partial(ours_of, problem, steps, rate=0.1, record=("loss",), initial=Factors(A, B))
        yield Case(
            f"relu, d = {d}, N = {samples}, float32", X, {"": ours}, forms, said, steps, 1 / steps,
            {"bytes": 4 * samples * 3 * d, "operations": 10 * samples * d * RANK},
            notes={"d": d, "N": samples, "r": RANK},
        )  # fmt: skip


def sensing(setting: Setting, device: torch.device) -> Iterator[Case]:
    """A step of dense sensing against products with the m matrices."""
    d, m, steps = (8, 200, 10) if setting.tiny else (64, 20_000, 1000)
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

    assert problem.lighter(steps).gram is not None

    def ours() -> Trajectory:
        forget_gram(problem)
        return ours_of(problem, steps, rate=rate, record=("loss",), initial=Factors(A, B))

    yield case_of(
        f"dense sensing, d = {d}, m = {m}, float32", flat,
        runs(step, (A, B), steps, compiles=not setting.tiny),
        "products with the m matrices", steps,
        ours={"": ours}, work={"bytes": 4 * d**4, "operations": 2 * d**4},
        notes={"d": d, "m": m, "r": RANK, "work_is_of": "K = 𝒜*𝒜/m, made once in each run"},
    )  # fmt: skip


def estimation(setting: Setting, device: torch.device) -> Iterator[Case]:
    """The gradients that LoRA-One starts from, of a transformer, against a plain backward pass."""
    width, layers, tokens = (32, 1, 8) if setting.tiny else (2048, 4, 1024)
    try:
        with extra("peft"):
            route = importlib.import_module("loraone_theory.integrations.peft_bench")
    except MissingExtra as error:
        warnings.warn(str(error), stacklevel=2)
        return
    model, other = (route.transformer(width, layers).to(device) for _ in range(2))
    forms = {
        "eager": route.plain_backward(other, tokens),
        "copied": route.plain_backward(other, tokens, kept=True),
    }
    weights = sum(module.weight.numel() for module in route.targeted(model))
    yield Case(
        f"PEFT estimation, width {width}", next(model.parameters()),
        {"": lambda: route.ours(model, tokens)},
        forms,
        {
            "eager": "a plain backward pass",
            "copied": "a plain backward pass, its gradients copied to the host",
        },
        1, 1.0,
        # Two sequences; a product forward and two backward for each weight.
        {"operations": 6.0 * weights * 2 * tokens},
        notes={"width": width, "layers": layers, "tokens": 2 * tokens},
    )  # fmt: skip
