"""Exact moments of stochastic gradients over fresh Gaussian batches, and where descent settles.

ĝ is the gradient with respect to W on b fresh measurements, E = AB − Δ; label noise has standard
deviation σ. Isotropic Gaussian inputs throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, checked

ENSEMBLES = ("multi-response", "dense", "rank-one")


def gradient_covariance(E: Tensor, *, batch: int, noise_std: float = 0.0) -> Tensor:
    """Cov(ĝ_ia, ĝ_jc) = [δ_ij((EᵀE)_ac + σ²δ_ac) + E_ja E_ic]/b, shape (..., d, k, d, k).

    The linear model, ĝ = X_bᵀ(X_bE − Z_b)/b, of mean E.

    >>> float(gradient_covariance(torch.ones(1, 1), batch=2)[0, 0, 0, 0])
    1.0
    """
    batch, sigma = _arguments(batch, noise_std)
    E = validate.tensor("E", E)
    d, k = E.shape[-2:]
    inner = E.mT @ E + sigma**2 * torch.eye(k).to(E)
    same = torch.einsum("ij,...ac->...iajc", torch.eye(d).to(E), inner)
    return (same + torch.einsum("...ja,...ic->...iajc", E, E)) / batch


def gradient_variance(
    error: float | Tensor, *, d: int, k: int, batch: int, noise_std: float = 0.0,
    ensemble: str = "multi-response",
) -> float | Tensor:  # fmt: skip
    """E‖ĝ − E‖_F² at ‖E‖_F = `error`.

    ((d + 1)‖E‖² + σ²dk)/b in the linear model, with b rows; with b scalars dk + 1 in place of
    d + 1 for dense measurements and (d + 2)(k + 2) − 1 for rank-one ones.

    Raises:
        ValueError: an unknown ensemble, sizes or a noise out of range.

    >>> gradient_variance(1.0, d=4, k=3, batch=5)
    1.0
    """
    batch, sigma = _arguments(batch, noise_std)
    validate.choice("ensemble", ensemble, ENSEMBLES)
    error = validate.number_or_tensor("error", error)
    d, k = validate.integer("d", d, least=1), validate.integer("k", k, least=1)
    of_error = {
        "multi-response": d + 1,
        "dense": d * k + 1,
        "rank-one": (d + 2) * (k + 2) - 1,
    }[ensemble]
    return (of_error * error**2 + sigma**2 * d * k) / batch


def mean_next_error(
    at: Factors, E: Tensor, *, learning_rate: float, batch: int, noise_std: float = 0.0
) -> Tensor:
    """E[E⁺] after one step of A ← A − ηĝBᵀ, B ← B − ηAᵀĝ on a fresh batch, (..., d, k).

    E − η(EBᵀB + AAᵀE) + η²{E(AB)ᵀE + [AB(EᵀE + σ²I) + tr((AB)ᵀE)E]/b}.
    """
    batch, sigma = _arguments(batch, noise_std)
    learning_rate = validate.number("learning_rate", learning_rate, positive=True)
    E = validate.tensor("E", E)
    A, B = checked("at", at, d=E.shape[-2], k=E.shape[-1], like=E, batch=E.shape[:-2])
    AB = A @ B
    trace = (AB * E).sum((-2, -1))[..., None, None]
    spread = AB @ (E.mT @ E) + sigma**2 * AB + trace * E
    first = E @ B.mT @ B + A @ (A.mT @ E)
    return E - learning_rate * first + learning_rate**2 * (E @ AB.mT @ E + spread / batch)


def largest_stable_rate(*, d: int, batch: int) -> float:
    """2/(1 + (d + 1)/b): above, E‖E‖² of full fine-tuning on fresh batches grows without end.

    >>> largest_stable_rate(d=3, batch=4)
    1.0
    """
    batch, _ = _arguments(batch, 0.0)
    return 2 / (1 + (validate.integer("d", d, least=1) + 1) / batch)


def stationary_error(
    *, d: int, k: int, batch: int, learning_rate: float, noise_std: float
) -> float:
    """E‖E‖_F² where full fine-tuning on fresh batches settles: ησ²dk/b / (2 − η(1 + (d + 1)/b)).

    A step multiplies E‖E‖² by 1 − 2η + η²(1 + (d + 1)/b) and adds η²σ²dk/b.

    Raises:
        ValueError: a learning rate at or above `largest_stable_rate`.

    >>> round(stationary_error(d=30, k=20, batch=5, learning_rate=0.1, noise_std=0.3), 4)
    0.8438
    """
    batch, sigma = _arguments(batch, noise_std)
    k = validate.integer("k", k, least=1)
    rate = validate.number("learning_rate", learning_rate, positive=True)
    edge = largest_stable_rate(d=d, batch=batch)
    if rate >= edge:
        raise ValueError(
            f"learning_rate must be below 2/(1 + (d + 1)/b) = {edge:.6g} for a stationary state; "
            f"got {rate:g}; lower it or raise batch"
        )
    return rate * sigma**2 * d * k / batch / (2 - rate * (1 + (d + 1) / batch))


def _arguments(batch: int, noise_std: float) -> tuple[int, float]:
    return validate.integer("batch", batch, least=1), validate.number("noise_std", noise_std)
