"""The good calls of the hostile table, and their values written out in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import tolerance
import torch
from test_hostile import TARGETS, needed, tensors_in, use

import loraone_theory as lt

Given = dict[str, Any]


def array(value: Any) -> np.ndarray:
    return np.asarray(value.double()) if isinstance(value, torch.Tensor) else np.asarray(value)


def sigma(g: Given) -> np.ndarray:
    """Σ̂ (n, d, d)."""
    problem = g["problem"]
    return array(problem.covariance.apply(torch.eye(problem.d, dtype=problem.like.dtype)))


def target(g: Given) -> np.ndarray:
    """Δ (n, d, k)."""
    return array(g["problem"].shift.A) @ array(g["problem"].shift.B)


def root(S: np.ndarray) -> np.ndarray:
    values, Q = np.linalg.eigh(S)
    return (Q * np.sqrt(values)) @ Q.T


def frames(M: np.ndarray, rank: int) -> np.ndarray:
    return np.linalg.svd(M)[0][:, :rank]


def angles(g: Given) -> np.ndarray:
    P, Q = frames(g["M1"], g["rank"]), frames(g["M2"], g["rank"])
    return np.arccos(np.clip(np.linalg.svd(P.T @ Q, compute_uv=False), 0, 1))[::-1]


def floors(g: Given) -> np.ndarray:
    """Eckart and Young on Σ̂^{1/2}Δ."""
    left = [
        np.linalg.svd(root(S) @ T, compute_uv=False)[g["rank"] :]
        for S, T in zip(sigma(g), target(g), strict=True)
    ]
    return np.array([0.5 * np.sum(s**2) for s in left])


def best_fit(g: Given) -> np.ndarray:
    """Σ̂^{-1/2}[Σ̂^{1/2}Δ]_r."""
    found = []
    for S, T in zip(sigma(g), target(g), strict=True):
        U, s, V = np.linalg.svd(root(S) @ T, full_matrices=False)
        r = g["rank"]
        found.append(np.linalg.solve(root(S), U[:, :r] * s[:r] @ V[:r]))
    return np.array(found)


def plateau(g: Given) -> np.ndarray:
    """sin of the largest angle between U(Δ) and Σ̂U(Δ)."""
    found = []
    for S, T in zip(sigma(g), target(g), strict=True):
        U = frames(T, g["problem"].true_rank)
        Q = np.linalg.qr(S @ U)[0]
        found.append(np.linalg.norm(Q - U @ (U.T @ Q), 2))
    return np.array(found)


def linearised(g: Given) -> np.ndarray:
    """[A; Bᵀ]_t = (I + η[[0, G], [Gᵀ, 0]])^t [A; Bᵀ]_0, by t products; the A of it."""
    found = []
    for t in g["steps"]:
        for S, T in zip(sigma(g), target(g), strict=True):
            G, A, B = S @ T, array(g["initial"].A), array(g["initial"].B)
            for _ in range(t):
                A, B = A + g["learning_rate"] * G @ B.T, B + g["learning_rate"] * A.T @ G
            found.append(A)
    return np.array(found).reshape(len(g["steps"]), -1, *A.shape)


def noise_floor(g: Given) -> np.ndarray:
    """½σ²tr((PKP)⁻¹)/N over an orthonormal basis of the tangent space, K = Σ̂ ⊗ I."""
    found = []
    for S, T in zip(sigma(g), target(g), strict=True):
        d, k = T.shape
        r = g["problem"].true_rank
        U, V = frames(T, r), frames(T.T, r)
        columns = [np.outer(u, e).ravel() for u in U.T for e in np.eye(k)]
        columns += [np.outer(e, v).ravel() for e in np.eye(d) for v in V.T]
        P, s, _ = np.linalg.svd(np.array(columns).T, full_matrices=False)
        P = P[:, s > 1e-8 * s[0]]
        K = np.kron(S, np.eye(k))
        trace = np.trace(np.linalg.inv(P.T @ K @ P))
        found.append(0.5 * g["noise_std"] ** 2 * trace / g["problem"].samples)
    return np.array(found)


def balanced(g: Given) -> np.ndarray:
    """σ' = 2σ(λ − σ) by a Runge–Kutta of high order."""
    lam, rho = array(g["spectrum"]), float(g["start"])
    run = scipy.integrate.solve_ivp(
        lambda t, s: 2 * s * (lam - s),
        (0, max(g["times"])),
        rho * lam,
        method="DOP853",
        t_eval=g["times"],
        rtol=tolerance.rounding(100),
        atol=tolerance.rounding(1),
    )
    return 1 - run.y.T / lam


def descent(g: Given) -> np.ndarray:
    """σ⁺ = σ(1 + h(1 − σ))² at λ = 1, with ε = 1 − σ."""
    s = [1 - g["start"]]
    for _ in range(g["steps"]):
        s.append(s[-1] * (1 + g["rate"] * (1 - s[-1])) ** 2)
    return 1 - np.array(s)


def preconditioned(g: Given) -> np.ndarray:
    u = [g["start"]]
    for _ in range(g["steps"]):
        u.append((u[-1] + g["rate"] * (1 - u[-1])) ** 2 / u[-1])
    return np.array(u)


def fourth_moments(d: int) -> np.ndarray:
    """E[x_i x_j x_k x_l] of x ~ N(0, I)."""
    eye = np.eye(d)
    pairings = ("ij,kl->ijkl", "ik,jl->ijkl", "il,jk->ijkl")
    return np.sum([np.einsum(pairing, eye, eye) for pairing in pairings], axis=0)


def next_error(g: Given) -> np.ndarray:
    """E[(A − ηĝBᵀ)(B − ηAᵀĝ)] − T with E[xxᵀNxxᵀ] from the fourth moments, entry by entry."""
    A, B, E = array(g["at"].A), array(g["at"].B), array(g["E"])
    eta, b, M = g["learning_rate"], g["batch"], B.T @ A.T
    once = np.einsum("ijkl,jk->il", fourth_moments(len(E)), E @ M) @ E
    quadratic = (1 - 1 / b) * E @ M @ E + once / b
    return E - eta * (E @ B.T @ B + A @ A.T @ E) + eta**2 * quadratic


def covariance_of_gradient(g: Given) -> np.ndarray:
    """Cov(ĝ_ia, ĝ_jb) of ĝ = xxᵀE over a batch, by the fourth moments of a Gaussian."""
    E = array(g["E"])
    both = np.einsum("ipjq,pa,qb->iajb", fourth_moments(len(E)), E, E)
    return (both - np.einsum("ia,jb->iajb", E, E)) / g["batch"]


def quotient(g: Given) -> np.ndarray:
    """‖𝒜(M)‖²/m‖M‖² over the matrices of the operator."""
    a, M = array(g["operator"].matrices), array(g["M"].A) @ array(g["M"].B)
    values = np.einsum("nmij,ij->nm", a, M)
    return np.mean(values**2, -1) / np.sum(M**2)


def incoherence(g: Given) -> np.ndarray:
    M = array(g["shift"].A) @ array(g["shift"].B)
    (d, k), r = M.shape, g["shift"].A.shape[-1]
    U, V = frames(M, r), frames(M.T, r)
    rows = (np.max(np.sum(F**2, -1)) * n / r for F, n in ((U, d), (V, k)))
    return np.array(max(rows))


def slopes(g: Given) -> np.ndarray:
    return np.array([np.polyfit(g["x"], column, 1)[0] for column in np.atleast_2d(g["y"].T)])


# Name of a callable -> the value at the good arguments, and products in a row that its digits pass
# through (2e3 for integrals to 100 eps a step).
ORACLES: dict[str, tuple[Callable[[Given], Any], float]] = {
    "lt.metrics.principal_angles": (angles, 10),
    "lt.metrics.subspace_sine": (lambda g: np.sin(angles(g)[0]), 10),
    "lt.predict.pair_floor": (floors, 20),
    "lt.predict.floor": (floors, 20),
    "lt.predict.pair_solution": (best_fit, 20),
    "lt.predict.plateau": (plateau, 20),
    "lt.predict.linearised": (linearised, 10),
    "lt.predict.noise_floor": (noise_floor, 20),
    "lt.predict.alignment_time": (
        lambda g: (
            math.log(math.sqrt(g["d"]) / g["theta"])
            / math.log(1 + g["learning_rate"] * g["singular_value"])
        ),
        10,
    ),
    "lt.predict.mean_full_floor": (
        lambda g: g["noise_std"] ** 2 * g["k"] * g["d"] / (g["samples"] - g["d"] - 1) / 2,
        10,
    ),
    "lt.predict.flow.balanced": (balanced, 2e3),
    "lt.predict.flow.balanced_descent": (descent, 20),
    "lt.predict.flow.preconditioned_descent": (preconditioned, 20),
    "lt.predict.stochastic.mean_next_error": (next_error, 10),
    "lt.predict.stochastic.gradient_covariance": (covariance_of_gradient, 10),
    "lt.predict.stochastic.gradient_variance": (
        lambda g: (g["d"] + 1) * g["error"] ** 2 / g["batch"],
        10,
    ),
    # The root η > 0 of (1 + (d + 1)/b)η² − 2η = 0.
    "lt.predict.stochastic.largest_stable_rate": (
        lambda g: max(np.roots([1 + (g["d"] + 1) / g["batch"], -2, 0])),
        10,
    ),
    "lt.predict.relu.envelope": (lambda g: 1 - g["learning_rate"] / 4, 10),
    "lt.predict.relu.population_rate": (
        lambda g: max(abs(1 - g["learning_rate"] / 2), abs(1 - g["learning_rate"])),
        10,
    ),
    "lt.predict.relu.gd_rate": (
        lambda g: 1 - g["learning_rate"] / (2 * g["condition_number"]),
        10,
    ),
    "lt.rip.quotient": (quotient, 10),
    "lt.rip.incoherence": (incoherence, 20),
    "stats.slopes": (slopes, 20),
}


# A rank at which the values say something.
BELOW: Given = {"rank": 1}
CHANGED: dict[str, Given] = {
    "lt.predict.pair_floor": BELOW,
    "lt.predict.floor": BELOW,
    "lt.predict.pair_solution": BELOW,
}


@pytest.mark.parametrize("name", ORACLES)
def test_value_written_out(name: str) -> None:
    compute, operations = ORACLES[name]
    given = needed(name) | CHANGED.get(name, {})
    found = use(name, dict(given))
    if name == "lt.predict.pair_solution":
        found = found.A @ found.B
    if name == "lt.predict.linearised":
        found = found.A
    for tensor in tensors_in(found):
        assert tensor.device.type == "cpu"
    expected, found = np.asarray(compute(given)), array(found)
    assert found.shape == expected.shape
    # Sides of at most 60 numbers; Σ̂ and the solves with it have condition numbers below 1e2.
    allowed = tolerance.rounding(60, operations=operations, condition=1e2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed * np.abs(expected).max())


def test_every_oracle_has_its_callable() -> None:
    assert set(ORACLES) <= set(TARGETS)


def test_random_problems_have_their_moments() -> None:
    """Of 2000 instances: E Σ̂ = I, E‖Σ̂ − I‖_F² = d(d + 1)/N, and the spectrum that was asked for."""
    d, N, draws = 4, 10, 2000
    problem = lt.sample_linear(
        d=d, k=3, true_rank=2, samples=N, condition_number=5.0, seeds=range(draws)
    )
    S = sigma({"problem": problem})
    # Entries of XᵀX/N have variances (1 + δ_ij)/N.
    off = np.abs(S.mean(0) - np.eye(d)) / np.sqrt((1 + np.eye(d)) / N / draws)
    assert off.max() < tolerance.deviates(d * (d + 1) // 2)
    squares = np.sum((S - np.eye(d)) ** 2, (-2, -1))
    error = squares.std() / np.sqrt(draws)
    assert abs(squares.mean() - d * (d + 1) / N) < tolerance.deviates() * error
    values = np.linalg.svd(target({"problem": problem}), compute_uv=False)[:, :2]
    np.testing.assert_allclose(
        values, np.tile([1.0, 0.2], (draws, 1)), **tolerance.near(d, operations=20, scale=1.0)
    )
