"""The reference experiment as one would write it with JAX, torch.compile or numba.

Each form is made once from the matrices, and then goes from them to the records, with all that it
prepares on the way; what it compiles is kept for the next call.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.extras import extra
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem


class Experiment(NamedTuple):
    """Eq. 4 with W = 0, from so many starts at B = 0."""

    X: np.ndarray  # (N, d)
    shift: np.ndarray  # Δ (d, k)
    starts: np.ndarray  # A₀ (runs, d, r)
    true_rank: int
    learning_rate: float
    steps: int
    angles: bool  # whether the alignment is recorded beside loss and risk


# From an experiment to what gives its records before each step, (records, steps, runs).
Form = Callable[[Experiment], Callable[[], np.ndarray]]


def by_jax(given: Experiment, *, once: bool, gram: bool) -> Callable[[], np.ndarray]:
    """JAX: jit of vmap over the runs of a scan over the steps.

    Args:
        given: the experiment.
        once: Σ̂ is formed once; otherwise each step goes through X.
        gram: angles by Gram matrices; otherwise by singular value decompositions.

    Raises:
        MissingExtra: JAX is not installed.
    """
    with extra("bench"):
        jax = importlib.import_module("jax")
    np_, p, eta = jax.numpy, given.true_rank, given.learning_rate

    def experiment(X: Any, shift: Any, start: Any) -> Any:
        N, Y = len(X), X @ shift
        S = X.T @ X / N
        left = np_.linalg.svd(X.T @ Y / N)[0]
        inside, outside = left[:, :p], left[:, p:]

        def sine(A: Any) -> Any:
            if not gram:
                Q = np_.linalg.svd(A, full_matrices=False)[0][:, :p]
                return np_.linalg.norm(outside.T @ Q, 2)
            squares, V = np_.linalg.eigh(A.T @ A)
            Q = A @ (V[:, -p:] / np_.sqrt(squares[-p:]))
            C = Q - inside @ (inside.T @ Q)
            return np_.sqrt(np_.linalg.eigvalsh(C.T @ C)[-1])

        def step(pair: Any, _: Any) -> Any:
            A, B = pair
            E = A @ B - shift
            if once:
                gradient = S @ E
                loss = 0.5 * (E * gradient).sum()
            else:
                misfit = X @ (A @ B) - Y
                gradient = X.T @ misfit / N
                loss = 0.5 * (misfit**2).sum() / N
            found = (loss, 0.5 * (E**2).sum(), *((sine(A),) if given.angles else ()))
            return (A - eta * gradient @ B.T, B - eta * A.T @ gradient), np_.stack(found)

        B = np_.zeros((start.shape[1], shift.shape[1]), start.dtype)
        return jax.lax.scan(step, (start, B), length=given.steps)[1]

    whole = jax.jit(jax.vmap(experiment, in_axes=(None, None, 0)))

    def run() -> np.ndarray:
        return np.asarray(whole(given.X, given.shift, given.starts)).transpose(2, 1, 0)

    return run


def by_compile(given: Experiment) -> Callable[[], np.ndarray]:
    """torch.compile of a step of the plain loop over X, all runs at once, called from Python."""
    X, shift, start = (torch.from_numpy(M) for M in (given.X, given.shift, given.starts))
    eta, p, N = given.learning_rate, given.true_rank, len(X)

    def step(A: Tensor, B: Tensor, Y: Tensor, outside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        misfit = X @ (A @ B) - Y
        gradient = X.mT @ misfit / N
        loss = 0.5 * misfit.square().sum((-2, -1)) / N
        risk = 0.5 * (A @ B - shift).square().sum((-2, -1))
        found = [loss, risk]
        if given.angles:
            leading = torch.linalg.svd(A).U[..., :p]
            found.append(torch.linalg.matrix_norm(outside.mT @ leading, 2))
        after = A - eta * gradient @ B.mT, B - eta * A.mT @ gradient
        return *after, torch.stack(found)

    step = torch.compile(step)

    def run() -> np.ndarray:
        Y = X @ shift
        outside = torch.linalg.svd(X.mT @ Y / N).U[:, p:].contiguous()
        A, B, log = start, start.new_zeros(*start.shape[:-2], start.shape[-1], shift.shape[-1]), []
        for _ in range(given.steps):
            A, B, found = step(A, B, Y, outside)
            log.append(found)
        return torch.stack(log, 1).numpy()

    return run


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler: CXX, or g++."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def by_numba(given: Experiment) -> Callable[[], np.ndarray]:
    """numba: a loop over the reduced coordinates, a run after the other, on one thread.

    Raises:
        MissingExtra: numba is not installed.
    """
    with extra("bench"):
        numba = importlib.import_module("numba")
    loop = numba.njit(fastmath=True)(_loop)

    def run() -> np.ndarray:
        X, p = given.X, given.true_rank
        values, axes = np.linalg.eigh(X.T @ X / len(X))
        right = np.linalg.svd(given.shift)[2][:p]
        target = np.ascontiguousarray((axes.T @ (given.shift @ right.T)).T)
        frame = np.linalg.svd(target * values, full_matrices=False)[2]
        found = np.empty((2 + given.angles, given.steps, len(given.starts)))
        for i, start in enumerate(given.starts):
            A, B = np.ascontiguousarray((axes.T @ start).T), np.zeros((start.shape[1], p))
            loop(values, target, frame, A, B, given.learning_rate, found[:, :, i])
        return found

    return run


def _loop(
    values: Any, target: Any, frame: Any, A: Any, B: Any, eta: float, found: np.ndarray
) -> None:
    """Steps and records, with A (r, d), the target and its frame (p, d) transposed."""
    (r, d), p = A.shape, len(target)
    E, M, inner = np.empty((p, d)), np.empty((p, d)), np.empty((r, p))
    for t in range(found.shape[1]):
        loss, risk = 0.0, 0.0
        for c in range(p):
            for j in range(d):
                E[c, j] = -target[c, j]
            for q in range(r):
                for j in range(d):
                    E[c, j] += B[q, c] * A[q, j]
            for j in range(d):
                M[c, j] = values[j] * E[c, j]
                loss += E[c, j] * M[c, j]
                risk += E[c, j] * E[c, j]
        found[0, t], found[1, t] = loss / 2, risk / 2
        if len(found) > 2:
            squares, V = np.linalg.eigh(A @ A.T)
            Q = np.ascontiguousarray((V[:, r - p :] / np.sqrt(squares[r - p :])).T) @ A
            C = Q - (Q @ frame.T) @ frame
            found[2, t] = np.sqrt(np.linalg.eigvalsh(C @ C.T)[p - 1])
        for q in range(r):
            for c in range(p):
                inner[q, c] = 0.0
                for j in range(d):
                    inner[q, c] += A[q, j] * M[c, j]
            for c in range(p):
                for j in range(d):
                    A[q, j] -= eta * B[q, c] * M[c, j]
        for q in range(r):
            for c in range(p):
                B[q, c] -= eta * inner[q, c]


def ours(given: Experiment, engine: str) -> Callable[[], np.ndarray]:
    """`simulate` from the same matrices."""
    start = torch.from_numpy(given.starts)
    empty = start.new_zeros(len(start), start.shape[-1], given.shift.shape[-1])
    record = ("loss", "risk", *(("left_alignment",) if given.angles else ()))

    def run() -> np.ndarray:
        found = simulate(
            LinearProblem.from_data(torch.from_numpy(given.X), shift=torch.from_numpy(given.shift)),
            "lora",
            rank=start.shape[-1],
            learning_rate=given.learning_rate,
            steps=given.steps,
            seeds=range(len(start)),
            initial=Factors(start, empty),
            record=record,
            engine=engine,
        )
        return np.stack([found[name].numpy()[:-1] for name in record])

    return run


class Peer(NamedTuple):
    """A form beside ours.

    Args:
        words: what it is.
        form: from an experiment to what runs it.
        share: one in so many steps is timed; the rest takes as long.
        package: that it needs besides torch; "" for a C++ compiler.
        bare: whether it differs from the others where no angles are recorded.
    """

    words: str
    form: Form
    share: int
    package: str
    bare: bool = True


PEERS = {
    "jax over X": Peer(
        "JAX: jit, vmap, scan over X, SVDs", partial(by_jax, once=False, gram=False), 50, "jax"
    ),
    "jax": Peer("JAX with Σ̂ formed once, SVDs", partial(by_jax, once=True, gram=False), 1, "jax"),
    "jax by Gram matrices": Peer(
        "JAX with Σ̂ formed once, angles by Gram matrices",
        partial(by_jax, once=True, gram=True), 1, "jax", bare=False,
    ),
    "torch.compile": Peer("torch.compile of the plain loop over X, SVDs", by_compile, 25, ""),
    "numba loop": Peer("a numba loop over the reduced coordinates", by_numba, 1, "numba"),
}  # fmt: skip
