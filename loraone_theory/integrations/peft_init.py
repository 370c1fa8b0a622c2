"""LoRA-One for PEFT: write lora_A and lora_B from the one-step gradient, never the base weight."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from loraone_theory.core import linalg, randomness, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import SVDOptions
from loraone_theory.integrations import distributed
from loraone_theory.integrations.peft_gradients import check
from loraone_theory.integrations.peft_layers import Pair, lora_pairs, refuse
from loraone_theory.methods import inits
from loraone_theory.problems.linear.problem import LinearProblem

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


def initialize_lora_one_weights(
    peft_model: nn.Module,
    gradients: Mapping[str, Tensor],
    config: LoRAOneConfig = DEFAULT,
    adapter_name: str = "default",
) -> dict[str, ModuleReport]:
    """Write A₀ and B₀ of one adapter from the gradients; W_eff = W + sA₀B₀ is one gradient step.

    Only lora_A and lora_B of that adapter are written, after everything has been computed, so an
    error leaves the model as it was. Rank and scale are read from each module. With
    torch.distributed the first process computes and all of them get its values.

    Args:
        peft_model: the model with the adapter, any dtype and device.
        gradients: ∇_W L by module name in the base model, as `get_lora_one_gradients` gives them:
            each of the shape of the base weight before any quantisation.
        config: which initialisation.
        adapter_name: which adapter.

    Returns:
        Module name -> report.

    Raises:
        ValueError: an unknown, merged or DoRA adapter; a gradient that is missing, zero, not finite
            or of another shape.

    Reference: Algorithm 1 ("released"); Spectral-init of the analysis ("spectral").
    """
    pairs = lora_pairs(peft_model, adapter_name)
    with distributed.together():
        refuse(
            "the adapter must not be merged into the base weights",
            [pair.name for pair in pairs if pair.layer.merged],
            "call unmerge_adapter() first",
        )
        check(dict(gradients), {pair.name: pair.base_shape for pair in pairs})
    if config.svd == "lowrank":
        _warn_of_clamping(pairs, config.q)
    made: dict[str, Factors] = {}
    reports: dict[str, ModuleReport] = {}
    with distributed.together():
        for pair in pairs if distributed.leads() else ():
            made[pair.name], reports[pair.name] = _initialise(pair, gradients[pair.name], config)
    for pair in pairs:
        if pair.name in made:
            with torch.no_grad():
                pair.down.copy_(made[pair.name].A.mT)
                pair.up.copy_(made[pair.name].B.mT)
        distributed.broadcast_(pair.down)
        distributed.broadcast_(pair.up)
    return distributed.broadcast_object(reports)


def _warn_of_clamping(pairs: list[Pair], q: int) -> None:
    narrow = [pair for pair in pairs if q > min(pair.base_shape)]
    if narrow:
        least = min(min(pair.base_shape) for pair in narrow)
        warnings.warn(
            f"q must satisfy q <= min(d, k); got q={q} with min(d, k) down to {least}; it was "
            f"clamped in {len(narrow)} of {len(pairs)} modules, where svd='exact' costs the same",
            stacklevel=3,
        )


def _initialise(
    pair: Pair, gradient: Tensor, config: LoRAOneConfig
) -> tuple[Factors, ModuleReport]:
    device = pair.down.device if pair.down.is_cuda else torch.device("cpu")
    dtype = torch.float64 if config.svd == "exact" else torch.float32
    G = -pair.as_ours(gradient).to(device=device, dtype=dtype)
    d, k = G.shape
    rank = pair.down.shape[0]
    options = SVDOptions(config.svd, config.q, config.niter, config.seed)
    U, S, V = linalg.truncated_svd(G, rank, options)
    tolerance = config.rel_tol
    if tolerance is None:
        tolerance = max(d, k) * torch.finfo(torch.float32).eps
    kept = int((S > tolerance * S[0]).sum())
    best = Factors(U[:, :kept] * S[:kept], V[:, :kept].mT)
    # In the linear model with isotropic inputs the one-step gradient is the shift itself.
    problem = LinearProblem.population(shift=best)
    make = (
        inits.released(config.factor)
        if config.init == "released"
        else inits.spectral(config.factor, pair.scale)
    )
    A, B = make(problem, rank, (config.seed,)).trainable
    if kept < rank:
        A = torch.cat([A[:, :kept], _kaiming(pair.name, config.seed, d, rank - kept, A)], dim=1)
    written = Factors(A.to(pair.down.dtype).to(dtype), B.to(pair.up.dtype).to(dtype))
    sigma = float(S[0])
    rate = pair.scale / (config.factor * sigma) if config.init == "released" else config.factor
    report = ModuleReport(
        sigma,
        kept,
        float((S[:kept] ** 2).sum() / G.square().sum()),
        pair.scale * float(torch.linalg.matrix_norm(written.dense())),
        rate,
    )
    return Factors(A, B), report


def _kaiming(name: str, seed: int, d: int, columns: int, like: Tensor) -> Tensor:
    """U(±1/√d), as a fresh LoRA layer has."""
    bound = 1 / math.sqrt(d)
    draws = randomness.per_seed(
        lambda rng: rng.uniform(-bound, bound, (d, columns)), (seed,), f"lora-one {name}", like
    )
    return draws[0]
