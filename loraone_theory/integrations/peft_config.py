"""How LoRA-One is to be initialised, and what is reported of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from loraone_theory.core import validate

DEFAULT_GAMMA = {"released": 128.0, "spectral": 1.0}


@dataclass(frozen=True)
class LoRAOneConfig:
    """How to initialise; with −∇_W L = U S Vᵀ and the module's own rank r and scale s.

    Args:
        init: "released": A₀ = γ^{−1/2} U_r (S_r/σ₁)^{1/2}, B₀ likewise with V_r: the function moves
            by one best-rank-r gradient step of learning rate s/(γσ₁), another in every module.
            "spectral": A₀ = √(γ/s) U_r S_r^{1/2}: a step of learning rate γ in all modules.
        gamma: γ > 0; 128 for "released" and 1 for "spectral" where None. It divides in the first
            and multiplies in the second.
        svd: "exact", LAPACK's in float64; "lowrank", randomised in float32.
        q: probe directions of the randomised SVD, clamped to min(d, k).
        niter: its power iterations.
        seed: of all random draws; the global random state is not touched.
        rel_tol: directions with σ_i <= rel_tol·σ₁ are left out and start as in LoRA, A random and
            B = 0; None: max(d, k) times the rounding unit of float32, what a gradient is known to.
    """

    init: Literal["released", "spectral"] = "released"
    gamma: float | None = None
    svd: Literal["exact", "lowrank"] = "exact"
    q: int = 512
    niter: int = 16
    seed: int = 0
    rel_tol: float | None = None

    def __post_init__(self) -> None:
        validate.choice("init", self.init, DEFAULT_GAMMA)
        validate.choice("svd", self.svd, ("exact", "lowrank"))
        if self.gamma is not None:
            validate.number("gamma", self.gamma, positive=True)
        for name, least in (("q", 1), ("niter", 0), ("seed", 0)):
            validate.integer(name, getattr(self, name), least=least)
        if self.rel_tol is not None:
            validate.below_one("rel_tol", self.rel_tol)

    @property
    def factor(self) -> float:
        """γ, with the default filled in."""
        return DEFAULT_GAMMA[self.init] if self.gamma is None else float(self.gamma)


DEFAULT = LoRAOneConfig()


class ModuleReport(NamedTuple):
    """What was done to one module.

    Args:
        sigma_1: largest singular value of the gradient.
        kept_rank: how many directions were taken from it, at most r.
        energy: their share of its squared Frobenius norm.
        step_norm: ‖sA₀B₀‖_F, how far the effective weight moved.
        learning_rate: of the rank-r gradient step that it moved by.
    """

    sigma_1: float
    kept_rank: int
    energy: float
    step_norm: float
    learning_rate: float


class Reports(dict[str, ModuleReport]):
    """Module name -> report.

    Attributes:
        skipped: modules that keep their default initialisation, with the reason.
    """

    def __init__(
        self, reports: Mapping[str, ModuleReport] = {}, skipped: Mapping[str, str] = {}
    ) -> None:
        super().__init__(reports)
        self.skipped = dict(skipped)
