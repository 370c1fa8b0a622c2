"""How LoRA-One is to be initialised, and what is reported of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from loraone_theory.core import validate
from loraone_theory.core.linalg import SVDOptions

RELEASED = SVDOptions("lowrank", 512, 16)
# Below this an exact decomposition takes less than the backward pass.
EXACT_UP_TO = 256
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
        svd: "exact": LAPACK's, in float64 where the device is good at that. "lowrank": randomised,
            in float32. "released": that with the released code's q = 512 and niter = 16. "auto":
            exact up to min(d, k) = 256, lowrank above.
        q: probe directions of the randomised SVD, clamped to min(d, k); None: 4r, at least 32.
        niter: its power iterations; None: 4.
        seed: of all random draws; the global random state is not touched.
        rel_tol: directions with σ_i <= rel_tol·σ₁ are left out and start as in LoRA, A random and
            B = 0; None: max(d, k) times the rounding unit of float32, what a gradient is known to.
    """

    init: Literal["released", "spectral"] = "released"
    gamma: float | None = None
    svd: Literal["auto", "exact", "lowrank", "released"] = "auto"
    q: int | None = None
    niter: int | None = None
    seed: int = 0
    rel_tol: float | None = None

    def __post_init__(self) -> None:
        validate.choice("init", self.init, DEFAULT_GAMMA)
        validate.choice("svd", self.svd, ("auto", "exact", "lowrank", "released"))
        if self.gamma is not None:
            validate.number("gamma", self.gamma, positive=True)
        validate.integer("seed", self.seed, least=0)
        for name, given, least in (("q", self.q, 1), ("niter", self.niter, 0)):
            if given is not None:
                validate.integer(name, given, least=least)
        if self.rel_tol is not None:
            validate.below_one("rel_tol", self.rel_tol)

    @property
    def factor(self) -> float:
        """γ, with the default filled in."""
        return DEFAULT_GAMMA[self.init] if self.gamma is None else float(self.gamma)

    @property
    def stated_q(self) -> int | None:
        """The number of probes, where it is stated."""
        return RELEASED.q if self.svd == "released" and self.q is None else self.q

    def options(self, rank: int, shape: tuple[int, int]) -> SVDOptions:
        """How a gradient of this shape is decomposed for this rank."""
        if self.svd == "exact" or (self.svd == "auto" and min(shape) <= EXACT_UP_TO):
            return SVDOptions("exact")
        usual = RELEASED if self.svd == "released" else SVDOptions("lowrank", max(32, 4 * rank), 4)
        return SVDOptions(
            "lowrank",
            usual.q if self.q is None else self.q,
            usual.niter if self.niter is None else self.niter,
            self.seed,
        )


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


class Check(NamedTuple):
    """What the first forward passes say of the step.

    Args:
        before: the loss at W.
        after: the loss at W + sA₀B₀.
        predicted: the change to first order, Σ⟨∇_W L, sA₀B₀⟩ over the modules, of the gradients
            that were given; negative.
        first_order: the same as the adapters see it on the batch of the check, Σ⟨∂L/∂B, B₀⟩ at
            B = 0.
        inert: modules whose adapter gets no gradient, so that the forward pass goes around it.
        other: modules in which that is not what their weight's own gradient on this batch gives.
        gamma: where the loss rose, the γ that is best for the parabola through the three numbers.
    """

    before: float
    after: float
    predicted: float
    first_order: float
    inert: tuple[str, ...]
    other: tuple[str, ...]
    gamma: float | None


class Reports(dict[str, ModuleReport]):
    """Module name -> report.

    Attributes:
        skipped: modules that keep their default initialisation, with the reason.
        check: what the forward check found, where one was asked for.
    """

    def __init__(
        self, reports: Mapping[str, ModuleReport] = {}, skipped: Mapping[str, str] = {}
    ) -> None:
        super().__init__(reports)
        self.skipped = dict(skipped)
        self.check: Check | None = None
