"""5.2: how far 2J is from E, and the risk between a quarter and a half of ‖E‖²."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.problems.relu import closed_forms as relu_math

EPS = np.finfo(np.float64).eps
D, COLUMNS = 8, 1000
# Between these ‖E‖/‖w'‖ lies.
SMALLEST, LARGEST = 1e-5, 1e3


def _uniform(normals: np.ndarray) -> np.ndarray:
    return torch.special.ndtr(torch.from_numpy(normals)).numpy()


def _columns(draws: Draws) -> tuple[Tensor, Tensor]:
    """E and w', (trials, D, COLUMNS), ‖E‖/‖w'‖ from 1e-5 to 1e3, every fifth E orthogonal to w'."""
    weight, E = (draws.normals(D, COLUMNS, block=name) for name in ("weight", "E"))
    # Every fifth column orthogonal, every fifth close to −2w', where the constants are attained.
    part = weight[..., ::5]
    E[..., ::5] -= part * ((part * E[..., ::5]).sum(1) / (part * part).sum(1))[:, None]
    size = np.linalg.norm(weight, axis=1, keepdims=True)
    E *= size * SMALLEST * (LARGEST / SMALLEST) ** _uniform(draws.normals(1, COLUMNS))
    E /= np.linalg.norm(E, axis=1, keepdims=True)
    tilt = 10.0 ** (-6 * _uniform(draws.normals(1, part.shape[2], block="tilt")))
    near = draws.normals(*part.shape[1:], block="near")
    E[..., 1::5] = weight[..., 1::5] * -2 + tilt * near
    return torch.from_numpy(E), torch.from_numpy(weight)


def _first(draws: Draws, *, constant: float) -> Evidence:
    """Largest ‖2J_m − E_m‖ π‖w'_m‖/‖E_m‖² over the columns of each draw."""
    E, weight = _columns(draws)
    size, shift = weight.norm(dim=1), E.norm(dim=1)
    gap = (2 * relu_math.negative_gradient(E, weight) - E).norm(dim=1)
    ratio = gap * math.pi * size / shift**2
    # 2J is known to a few eps‖E‖, and is subtracted from E itself.
    excess = ratio - constant - 8 * D * EPS * (1 + math.pi * size / shift)
    return Evidence(
        lhs=excess.amax(-1).numpy(),
        rhs=0.0,
        numbers={
            "largest ‖2J_m − E_m‖ π‖w'_m‖/‖E_m‖²": float(ratio.max()),
            "median of the same": float(ratio.median()),
            "columns": float(ratio.numel()),
        },
    )


def _second(draws: Draws, *, upper: float) -> Evidence:
    """Largest excess of E‖y − ŷ‖²/‖E‖² over `upper`, or shortfall below ¼, over each draw."""
    E, weight = _columns(draws)
    square = (E * E).sum(1)
    # squared_error sums over columns, so each column becomes a problem of its own.
    risk = relu_math.squared_error(E.mT[..., None], weight.mT[..., None])
    ratio = risk / square
    excess = torch.maximum(ratio - upper, 0.25 - ratio)
    return Evidence(
        lhs=excess.amax(-1).numpy(),
        rhs=0.0,
        # A sum of D squares less a term that is at most half of it.
        tolerance=8 * D * EPS,
        numbers={
            "largest risk/‖E‖²": float(ratio.max()),
            "smallest risk/‖E‖²": float(ratio.min()),
            "columns": float(ratio.numel()),
        },
    )


HYPOTHESES = ("Gaussian inputs", "every w'_m ≠ 0, every E_m ≠ 0")
HOW = (
    f"{COLUMNS} random columns in {D} dimensions a draw, ‖E_m‖/‖w'_m‖ from {SMALLEST:g} to "
    f"{LARGEST:g}, a fifth of them with E_m ⊥ w'_m and a fifth with w̃_m near −w'_m, where "
    "the "
    "constants are attained."
)
CLAIMS = (
    Claim(
        id="lora-one/relu/lemma-a",
        aliases=("5.2",),
        title="The gradient is half the residual, up to its square",
        reference="derivations 5.2, Lemma A",
        statement="‖2J_m − E_m‖ ≤ ‖E_m‖²/(π‖w'_m‖), for every E_m and every w'_m ≠ 0.",
        hypotheses=HYPOTHESES,
        how=HOW,
        kind="bound",
        measure=lambda draws: _first(draws, constant=1.0),
        mutant_statement="the constant 1 % smaller",
        mutant=lambda draws: _first(draws, constant=0.99),
        trials=300,
        smoke_trials=20,
        explanation="The constant 1/π is attained for E_m ⊥ w'_m, E_m → 0.",
        derivation="5.2",
        uses=("lora-one/relu/closed-forms",),
    ),
    Claim(
        id="lora-one/relu/lemma-b",
        aliases=("5.2/B",),
        title="The risk lies between ¼‖E‖² and ½‖E‖²",
        reference="derivations 5.2, Lemma B",
        statement="¼‖AB − Δ‖_F² ≤ E‖y − ŷ‖² ≤ ½‖AB − Δ‖_F².",
        hypotheses=HYPOTHESES,
        how=HOW,
        kind="bound",
        measure=lambda draws: _second(draws, upper=0.5),
        mutant_statement="½ replaced by 0.495",
        mutant=lambda draws: _second(draws, upper=0.495),
        trials=300,
        smoke_trials=20,
        explanation=(
            "The paper's bound E‖y − ŷ‖² ≤ ‖E‖_F² is loose by a factor 2. ½ is attained as "
            "E_m → 0, ¼ at w̃ = −w'."
        ),
        derivation="5.2",
        uses=("lora-one/relu/closed-forms",),
    ),
)
