"""Sides of 1, every rank up to min(d, k), N from 1 to d + 1: what comes out against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerance
import torch

import loraone_theory as lt
from loraone_theory.predict.compare import compare
from loraone_theory.problems.sensing.operators import OPERATORS

SEEDS = (0, 1)
STEPS, RATE = 2, 0.02
RECORDS = ("loss", "risk", "error", "nuclear_norm", "left_alignment", "right_angles")
SHAPES = [
    (d, k, N, rank)
    for d, k in ((1, 1), (1, 3), (3, 1), (2, 3))
    for N in range(1, d + 2)
    for rank in range(1, min(d, k) + 1)
]
DTYPES = ("float64", "float32")
# A step, the change of coordinates and back, and a record: products of factors, each of sums over
# at most d + k + N terms.
OPERATIONS = 20


def allowed(d: int, k: int, N: int, dtype: str) -> float:
    """Relative to the sum of the absolute values of all terms."""
    return tolerance.rounding(d + k + N, operations=OPERATIONS, dtype=np.dtype(dtype))


def numpy_of(M: torch.Tensor) -> np.ndarray:
    return np.asarray(M.double())


def learned(run: lt.Trajectory, d: int, k: int) -> np.ndarray:
    """What each run has added to W, (n, d, k)."""
    return numpy_of(run.learned_shift().dense()).reshape(-1, d, k)


def check(run: lt.Trajectory, last: dict[str, float], i: int, wrong: float) -> None:
    for name, value in last.items():
        assert float(run[name][-1, i]) == pytest.approx(value, rel=0, abs=wrong), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", lt.METHODS)
def test_records_of_every_method(name: str, dtype: str) -> None:
    for d, k, N, rank in SHAPES:
        sizes: dict[str, Any] = {"d": d, "k": k, "true_rank": min(d, k), "samples": N}
        problem = lt.sample_linear(**sizes, seeds=SEEDS, keep_inputs=True, dtype=dtype)
        options: dict[str, Any] = {"rank": rank, "learning_rate": RATE, "steps": STEPS}
        if name == "lora-ga" and 2 * rank > min(d, k):
            with pytest.raises(ValueError, match=r"2 \* rank <= min\(d, k\); got rank="):
                lt.simulate(problem, name, **options)
            continue
        run = lt.simulate(problem, name, **options, record=RECORDS)
        assert run["right_angles"].shape == (STEPS + 1, len(SEEDS), min(d, k))
        X, W, T = map(numpy_of, (problem.inputs, problem.pretrained, problem.shift.dense()))
        for i, L in enumerate(learned(run, d, k)):
            E = L - T[i]
            # Methods with an offset subtract matrices of the size of W.
            size = sum(np.linalg.norm(M) for M in (L, T[i], W[i]))
            wrong = allowed(d, k, N, dtype) * (1 + np.sum(X[i] ** 2) / N)
            squared = {
                "loss": 0.5 * np.sum((X[i] @ E) ** 2) / N,
                "risk": 0.5 * np.sum(E**2),
            }
            check(run, squared, i, wrong * size**2)
            plain = {"error": np.linalg.norm(E), "nuclear_norm": np.linalg.norm(L, "nuc")}
            check(run, plain, i, wrong * size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduce", ["auto", "never"])
def test_descent_step_by_step(reduce: str, dtype: str) -> None:
    """A ← A − ηFBᵀ, B ← B − ηAᵀF with F = Xᵀ X(AB − Δ)/N, from the same start."""
    for d, k, N, rank in SHAPES:
        sizes: dict[str, Any] = {"d": d, "k": k, "true_rank": 1, "samples": N}
        problem = lt.sample_linear(**sizes, seeds=SEEDS, keep_inputs=True, dtype=dtype)
        for name in ("lora", "lora-one"):
            run = lt.simulate(
                problem, name, rank=rank, learning_rate=RATE, steps=STEPS, reduce=reduce
            )
            for i in range(len(SEEDS)):
                X, T = numpy_of(problem.inputs[i]), numpy_of(problem.shift.dense()[i])
                A, B = (numpy_of(M[i]) for M in run.initial)
                wrong = allowed(d, k, N, dtype) * (1 + np.sum(X**2) / N)
                for _ in range(STEPS):
                    F = X.T @ (X @ (A @ B - T)) / N
                    A, B = A - RATE * F @ B.T, B - RATE * A.T @ F
                size = 1 + np.linalg.norm(A) + np.linalg.norm(B)
                for found, expected in zip(run.final, (A, B), strict=True):
                    np.testing.assert_allclose(
                        numpy_of(found[i]), expected, rtol=0, atol=wrong * size
                    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ensemble", OPERATORS)
def test_sensing_of_every_ensemble(ensemble: str, dtype: str) -> None:
    """L = ‖M vec(AB − Δ)‖²/2m, with M read off entry by entry."""
    for d, k, N, rank in SHAPES:
        sizes: dict[str, Any] = {"d": d, "k": k, "true_rank": min(d, k)}
        for m in sorted({1, N * k}):
            options: dict[str, Any] = {**sizes, "measurements": m, "seeds": SEEDS, "dtype": dtype}
            if ensemble == "symmetric" and d != k:
                with pytest.raises(ValueError, match=r"d must equal k; got d="):
                    lt.sample_sensing(ensemble=ensemble, **options)
                continue
            if ensemble == "multi-response" and m % k:
                with pytest.raises(ValueError, match=r"measurements must be a multiple of k"):
                    lt.sample_sensing(ensemble=ensemble, **options)
                continue
            problem = lt.sample_sensing(ensemble=ensemble, **options)
            M = matrix(problem, d, k)
            run = lt.simulate(
                problem, "lora", rank=rank, learning_rate=RATE, steps=STEPS,
                record=("loss", "risk", "error"),
            )  # fmt: skip
            T = numpy_of(problem.shift.dense())
            for i, L in enumerate(learned(run, d, k)):
                E, size = L - T[i], np.linalg.norm(L) + np.linalg.norm(T[i])
                wrong = allowed(d, k, m, dtype) * (1 + np.sum(M[i] ** 2)) * size
                last = {
                    "loss": np.sum((M[i] @ E.ravel()) ** 2) / (2 * m),
                    "risk": 0.5 * np.sum(E**2),
                }
                check(run, last, i, wrong * size)
                check(run, {"error": np.linalg.norm(E)}, i, wrong)


def matrix(problem: lt.SensingProblem, d: int, k: int) -> np.ndarray:
    """𝒜 as a matrix (n, m, dk): its values on the unit matrices."""
    eye = torch.eye(d * k, dtype=problem.like.dtype).reshape(d * k, d, k)
    columns = [
        problem.operator.forward(lt.Factors(e, torch.eye(k, dtype=e.dtype))).expand(
            len(SEEDS), problem.measurements
        )
        for e in eye
    ]
    return numpy_of(torch.stack(columns, dim=-1))


# A ReLU that is dead on every row has no gradient to start from.
DEAD = r"one-step gradient must be finite and non-zero \(sigma_1 > 0\)"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["lora", "lora-one", "full", "pissa", "lora-xs", "adalora"])
def test_relu(name: str, dtype: str) -> None:
    for d, k, N, rank in SHAPES:
        problem = lt.sample_relu(
            d=d, k=k, true_rank=min(d, k), samples=N, relative_shift=0.1, seeds=SEEDS, dtype=dtype
        )
        X, W, T = map(numpy_of, (problem.inputs, problem.pretrained, problem.shift.dense()))
        steps = [((x @ (w + t) > 0) | (x @ w > 0)) for x, w, t in zip(X, W, T, strict=True)]
        options: dict[str, Any] = {"rank": rank, "learning_rate": RATE, "steps": STEPS}
        if name == "lora-one" and not all(step.any() for step in steps):
            with pytest.raises(ValueError, match=DEAD):
                lt.simulate(problem, name, **options)
            continue
        run = lt.simulate(problem, name, **options, record=("loss", "error"))
        for i, L in enumerate(learned(run, d, k)):
            out, want = (np.maximum(X[i] @ (W[i] + M), 0) for M in (L, T[i]))
            size = np.linalg.norm(W[i]) + np.linalg.norm(L) + np.linalg.norm(T[i])
            wrong = allowed(d, k, N, dtype) * (1 + np.sum(X[i] ** 2) / N) * size
            check(run, {"loss": 0.5 * np.sum((out - want) ** 2) / N}, i, wrong * size)
            check(run, {"error": np.linalg.norm(L - T[i])}, i, wrong)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["lora", "lora-one", "lora-one-preconditioned", "full"])
def test_matrix_free(name: str, dtype: str) -> None:
    """L = ½ tr(Eᵀ Σ̂ E), with Σ̂ of rank min(N, d)."""
    for d, k, N, rank in SHAPES:
        problem = lt.sample_linear_matrix_free(
            d=d, k=k, true_rank=min(d, k), samples=N, seeds=SEEDS, dtype=dtype
        )
        S = numpy_of(problem.covariance.apply(torch.eye(d, dtype=problem.like.dtype)))
        T = numpy_of(problem.shift.dense())
        run = lt.simulate(
            problem, name, rank=rank, learning_rate=RATE, steps=STEPS, record=("loss", "risk")
        )
        for i, L in enumerate(learned(run, d, k)):
            E, size = L - T[i], np.linalg.norm(L) + np.linalg.norm(T[i])
            wrong = allowed(d, k, N, dtype) * (1 + np.linalg.norm(S[i])) * size**2
            last = {"loss": 0.5 * np.sum(E * (S[i] @ E)), "risk": 0.5 * np.sum(E**2)}
            check(run, last, i, wrong)
            values = np.linalg.eigvalsh(S[i])
            assert np.sum(values > allowed(d, k, N, dtype) * values[-1]) == min(N, d)


@pytest.mark.parametrize("name", ["lora", "lora-one", "full", "pissa", "lora-xs", "muon"])
def test_a_loss_of_ones_own(name: str) -> None:
    for d, k, N, rank in SHAPES:
        X = np.random.default_rng([d, k, N]).standard_normal((N, d))
        x, T, W = torch.from_numpy(X), torch.ones(d, k).double(), np.full((d, k), 0.5)
        target = x @ (torch.from_numpy(W) + T)
        problem = lt.from_loss(
            lambda M, x=x, target=target, N=N: ((x @ M - target) ** 2).sum((-2, -1)) / (2 * N),
            d=d, k=k, pretrained=W, shift=np.ones((d, k)),
        )  # fmt: skip
        run = lt.simulate(
            problem, name, rank=rank, learning_rate=RATE, steps=STEPS, record=("loss", "error")
        )
        (L,) = learned(run, d, k)
        E = L - 1
        size = np.linalg.norm(L) + np.linalg.norm(W) + np.sqrt(d * k)
        wrong = allowed(d, k, N, "float64") * (1 + np.sum(X**2) / N) * size
        loss = 0.5 * np.sum((X @ E) ** 2) / N
        assert float(run["loss"][-1].squeeze()) == pytest.approx(loss, rel=0, abs=wrong * size)
        error = float(np.linalg.norm(E))
        assert float(run["error"][-1].squeeze()) == pytest.approx(error, rel=0, abs=wrong)


def test_predictions_and_comparisons() -> None:
    """Floors by Eckart–Young on Σ̂^{1/2}Δ, the plateau, tuned steps; rows of a comparison."""
    for d, k, N, rank in SHAPES:
        problem = lt.sample_linear(
            d=d, k=k, true_rank=min(d, k), samples=N, seeds=SEEDS, keep_inputs=True
        )
        X, T = map(numpy_of, (problem.inputs, problem.shift.dense()))
        floor, at = (
            lt.predict.pair_floor(problem, rank=rank),
            lt.predict.pair_solution(problem, rank=rank),
        )
        for i in range(len(SEEDS)):
            S = np.linalg.svd(X[i] @ T[i] / np.sqrt(N), compute_uv=False)
            wrong = allowed(d, k, N, "float64") * S[0] ** 2
            expected = 0.5 * np.sum(S[rank:] ** 2)
            assert float(floor[i]) == pytest.approx(expected, rel=0, abs=wrong)
            E = numpy_of(at.dense()[i]) - T[i]
            # A pseudo-inverse of X is in between.
            kappa = np.linalg.cond(X[i]) ** 2
            loss = 0.5 * np.sum((X[i] @ E) ** 2) / N
            assert loss == pytest.approx(expected, rel=0, abs=wrong * kappa)
        tuned = lt.tune_step(problem, "lora", rank=rank, steps=3, grid=(0.01, 0.02))
        assert tuned.learning_rate in (0.01, 0.02)
        best = lt.simulate(problem, "lora", rank=rank, learning_rate=tuned.learning_rate, steps=3)
        torch.testing.assert_close(
            tuned.run["loss"][:, tuned.index],
            best["loss"],
            **tolerance.near(d + k + N, operations=OPERATIONS, scale=float(best["loss"].max())),
        )
        found = compare(problem, rank=rank, steps=2, names=["lora-one", "full"])
        assert len(found.rows) == 2
