"""5.1: the closed forms of the population gradient and risk, against quadrature over the angle."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.special import ndtr

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.problems.relu import closed_forms as relu_math

EPS = np.finfo(np.float64).eps
D = 6
# Between these ‖E‖/‖w'‖ lies.
SMALLEST, LARGEST = 1e-8, 10.0
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def _pairs(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """E (D, n) and w' (D, n), with ‖E‖/‖w'‖ from 1e-8 to 10, and with special directions."""
    weight, E = draws.normals(D, block="weight").T, draws.normals(D, block="E").T
    one, two = ndtr(torch.from_numpy(draws.normals(2))).numpy().T  # uniform
    weight = weight * 10.0 ** (6 * one - 3)
    size = np.linalg.norm(weight, axis=0)
    E = E * size * SMALLEST * (LARGEST / SMALLEST) ** two / np.linalg.norm(E, axis=0)
    E[:, 0::10] = weight[:, 0::10] * -2.0  # target opposite
    E[:, 1::10] = -weight[:, 1::10]  # target zero
    E[:, 2::10] = weight[:, 2::10] * 0.5  # the same direction
    return E, weight


def _quadrature(E: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """J and E(y − ŷ)² of one column from their definitions, by Gauss–Legendre over the angle.

    Both integrands are homogeneous of degree 2 in x and depend on its projection on the plane of
    w' and w̃ only, so with x = ρu(φ) and E ρ² = 2 they are means over φ of products of a few
    sines. The kinks are the ends of the half-circles on which w'·u and w̃·u are positive.
    """
    size = np.linalg.norm(weight)
    first = weight / size
    along = E @ first
    across_vector = E - along * first
    across_vector -= (across_vector @ first) * first
    across = np.linalg.norm(across_vector)
    second = across_vector / across if across > 0 else np.zeros(D)
    theta = math.atan2(across, size + along)
    quarter = math.pi / 2
    # Both positive; only w' positive, with ψ the distance from where w'·u = 0; only w̃ positive.
    both = _nodes(theta - quarter, quarter)
    sliver = _nodes(0.0, theta)
    J, error = np.zeros(D), 0.0
    phi, w = both
    gap = along * np.cos(phi) + across * np.sin(phi)
    J += 2 * ((w * gap * np.cos(phi)).sum() * first + (w * gap * np.sin(phi)).sum() * second)
    error += 2 * (w * gap**2).sum()
    psi, w = sliver
    # There u = (sin ψ, −cos ψ), and y − ŷ = −‖w'‖ sin ψ.
    own = size * np.sin(psi)
    J += 2 * ((w * -own * np.sin(psi)).sum() * first + (w * own * np.cos(psi)).sum() * second)
    error += 2 * (w * own**2).sum()
    error += 2 * (w * (math.hypot(across, size + along) * np.sin(psi)) ** 2).sum()
    return J, error


def _nodes(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    half = (high - low) / 2
    return (low + high) / 2 + half * NODES, half * WEIGHTS / (2 * math.pi)


def _measure(draws: Draws, *, broken: bool = False) -> Evidence:
    """Relative errors of J and of the risk, the larger of the two per draw."""
    E, weight = _pairs(draws)
    E_t, weight_t = torch.from_numpy(E), torch.from_numpy(weight)
    of = relu_math.columns(E_t, weight_t)
    J = relu_math.negative_gradient(E_t, weight_t)
    if broken:
        # θ taken away once more from the orthogonal part: (θ/π) E_⊥ in place of (θ/2π) E_⊥.
        along = of.along / of.size
        J = J - of.angle / (2 * math.pi) * (E_t - weight_t * along)
    gradients, risks = [], []
    for m in range(E.shape[1]):
        promised, error = _quadrature(E[:, m], weight[:, m])
        gap = np.linalg.norm(J[:, m].numpy() - promised)
        scale = np.linalg.norm(E[:, m])
        gradients.append(gap / scale)
        found = float(relu_math.squared_error(E_t[:, m : m + 1], weight_t[:, m : m + 1]))
        risks.append(abs(found - error) / scale**2)
    worst = np.maximum(gradients, risks)
    arccos = _arc_cosine(E, weight)
    return Evidence(
        lhs=worst,
        rhs=0.0,
        # Both sides are sums of a dozen terms of size up to ‖E‖ (‖E‖²), each from D products.
        tolerance=16 * D * EPS,
        numbers={
            "largest error of J, relative to ‖E‖": float(np.max(gradients)),
            "largest error of the risk, relative to ‖E‖²": float(np.max(risks)),
            "the same of the risk with an arc cosine at ‖E‖ < 1e-6 ‖w'‖": arccos,
        },
    )


def _arc_cosine(E: np.ndarray, weight: np.ndarray) -> float:
    """Largest relative error of the textbook form of the risk where the shift is tiny."""
    size = np.linalg.norm(weight, axis=0)
    tiny = np.linalg.norm(E, axis=0) < 1e-6 * size
    E, weight, size = E[:, tiny], weight[:, tiny], size[tiny]
    if E.shape[1] == 0:
        return math.nan
    target = weight + E
    other = np.linalg.norm(target, axis=0)
    cosine = np.clip((target * weight).sum(0) / (size * other), -1, 1)
    theta = np.arccos(cosine)
    kernel = size * other / math.pi * (np.sin(theta) + (math.pi - theta) * cosine)
    naive = 0.5 * size**2 + 0.5 * other**2 - kernel
    scale = (E * E).sum(0)
    return float((np.abs(naive - 0.5 * scale) / scale).max())


CLAIMS = (
    Claim(
        id="lora-one/relu/closed-forms",
        aliases=("5.1",),
        title="Closed forms of the population gradient and risk",
        reference="derivations 5.1",
        statement=(
            "x ~ N(0, I): J_m = ½E_m − (θ/2π)E_⊥ + (‖w̃‖/2π) g(θ) ŵ' and "
            "E(y − ŷ)² = ½‖E_m‖² − (‖w̃‖‖w'‖/π) g(θ), with E_m = w̃ − w' and "
            "g(θ) = sin θ − θ cos θ."
        ),
        hypotheses=("Gaussian inputs", "w' ≠ 0"),
        how=(
            f"Random columns in {D} dimensions with ‖E_m‖/‖w'‖ from {SMALLEST:g} to "
            f"{LARGEST:g}, a tenth each of them opposite, with w̃ zero and parallel, "
            "against Gauss–Legendre quadrature of the "
            "definitions over the angle of x in the plane of w' and w̃."
        ),
        kind="identity",
        measure=_measure,
        mutant_statement="θ/π in place of θ/2π",
        mutant=lambda draws: _measure(draws, broken=True),
        trials=4000,
        smoke_trials=200,
        derivation="5.1",
    ),
)
