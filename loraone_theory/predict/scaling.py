"""By how much the one-step gradient is best multiplied where inputs are not isotropic."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import EXACT
from loraone_theory.methods.inits.base import gradient_svd
from loraone_theory.predict import checks
from loraone_theory.problems.base import needed
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.problem import SensingProblem

Measured = LinearProblem | SensingProblem
Of = Literal["risk", "error"]


def best_gamma(
    problem: Measured,
    *,
    rank: int | None = None,
    of: Literal["risk", "error"] = "risk",
) -> Tensor:
    """γ of Spectral-init at which its start γG_r is nearest to Δ.

    ⟨G_r, MΔ⟩/⟨G_r, MG_r⟩ with G_r the best rank-r part of G, M = Σ for the risk and M = I for ‖E‖.
    In the population G = ΣΔ: tr(ΔᵀΣ²Δ)/tr(ΔᵀΣ³Δ) and ⟨ΣΔ, Δ⟩/‖ΣΔ‖², both 1 for Σ = I.

    Args:
        problem: batch (...), with a known Δ.
        rank: r; r* by default.
        of: "risk" for the least ½tr(EᵀΣE), "error" for the least ‖E‖_F.

    Returns:
        (...).

    Raises:
        ValueError: a Δ that is not known; a G that is zero; a rank that does not fit.

    Reference: derivations of sensing, section 2.

    >>> import torch
    >>> steep = LinearProblem.population(shift=torch.ones(2, 1), covariance=torch.tensor([2.0, 1]))
    >>> [round(float(best_gamma(steep, of=which)), 4) for which in ("risk", "error")]
    [0.5556, 0.6]
    """
    checks.measured(problem)
    shift: Factors = needed(problem, "shift", "the best γ")
    validate.choice("of", of, ("risk", "error"))
    r = shift.rank if rank is None else validate.rank(rank, d=problem.d, k=problem.k)
    U, S, V = gradient_svd(problem, r, EXACT)
    top = U * S[..., None, :]  # ⟨G_r, MG_r⟩ = tr((US)ᵀM(US)), as V is orthonormal
    seen = top
    law = problem.population_covariance if isinstance(problem, LinearProblem) else None
    if of == "risk" and law is not None:
        seen = law.apply(top)
    along = ((seen.mT @ shift.A) * (shift.B @ V).mT).sum((-2, -1))
    return along / (seen * top).sum((-2, -1))
