"""LoRA-One for PEFT: write lora_A and lora_B from the one-step gradient, never the base weight."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from loraone_theory.core import randomness, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import SVD
from loraone_theory.integrations import distributed, given, guards, sharded
from loraone_theory.integrations.given import Given, Triplets
from loraone_theory.integrations.peft_check import checked
from loraone_theory.integrations.peft_config import DEFAULT, LoRAOneConfig, ModuleReport, Reports
from loraone_theory.integrations.peft_find import aligned, refuse
from loraone_theory.integrations.peft_gradients import Missing
from loraone_theory.integrations.peft_layers import Pair, lora_pairs, survey
from loraone_theory.methods.inits.base import signed
from loraone_theory.methods.inits.released import factors as released_factors
from loraone_theory.methods.inits.spectral import factors as spectral_factors

# What rounding to the adapter's dtype may change of the length of a step.
ROUNDED = 0.1


def initialize_lora_one_weights(
    peft_model: nn.Module,
    gradients: Mapping[str, Given],
    config: LoRAOneConfig = DEFAULT,
    adapter_name: str = "default",
    *,
    missing: Missing = "error",
    overwrite: bool = False,
    check: Callable[[], object] | None = None,
) -> Reports:
    """Write A₀ and B₀ of one adapter from the gradients; W_eff = W + sA₀B₀ is one gradient step.

    Only lora_A and lora_B of that adapter are written, after everything has been computed, so an
    error leaves the model as it was. Rank and scale are read from each module. With
    torch.distributed the first process computes and all of them get its values.

    Args:
        peft_model: the model with the adapter, any dtype and device.
        gradients: ∇_W L by module name in the base model, as `get_lora_one_gradients` gives them:
            each of the shape of the base weight before any quantisation, or its leading
            `Triplets`. A mapping that loads each when it is asked for, such as `SavedGradients`,
            keeps no more than one in memory.
        config: which initialisation.
        adapter_name: which adapter.
        missing: "lora" leaves modules of unsupported type, and those without a gradient or with a
            zero one, as they are and names them in the report; "error" refuses them.
        overwrite: also where the adapter is not fresh, AB ≠ 0.
        check: a training step as for the gradients that returns its loss, always on the same batch.
            It is run before and after the step; the report's `check` compares the change of the
            loss with the predicted one, and a warning names adapters without effect, or a better γ
            where the loss rose.

    Returns:
        Module name -> report, one for each expert where there are several; its `skipped` names
        the modules left as they are.

    Raises:
        ValueError: an unknown, merged or DoRA adapter; one whose own initialisation changed the
            base weights, such as PiSSA; one that has been trained; one whose weights are not
            loaded; a gradient that is missing, zero, not finite or of another shape.

    Reference: Algorithm 1 ("released"); Spectral-init of the analysis ("spectral").
    """
    validate.choice("missing", missing, ("error", "lora"))
    validate.instance("config", config, LoRAOneConfig)
    validate.flag("overwrite", overwrite)
    if check is not None:
        validate.function("check", check)
    with distributed.together():
        pairs, skipped = _pairs(peft_model, gradients, adapter_name, missing)
        gradients = aligned(gradients, [pair.source for pair in pairs])
        guards.untouched(peft_model, pairs, overwrite)
        given.check(gradients, _shapes(pairs), lenient=missing == "lora")
        _enough(pairs, gradients)
    _warn_of_clamping(pairs, config)
    made: dict[str, Factors] = {}
    reports: dict[str, ModuleReport] = {}
    with distributed.together():
        for pair in pairs if distributed.leads() else ():
            made[pair.name], reports[pair.name] = _initialise(pair, gradients, config)
    pairs = guards.materialised(pairs, adapter_name)
    for pair in pairs:
        values = [
            torch.empty(p.shape, dtype=p.dtype, device=p.device) for p in (pair.down, pair.up)
        ]
        for value, M in zip(values, made.get(pair.name, ()), strict=False):
            value.copy_(M.mT)
        for value in values:
            distributed.broadcast_(value)
        sharded.write_([pair.down, pair.up], values)
    found = Reports(distributed.broadcast_object(reports), skipped)
    if check is not None:
        found.check = checked(peft_model, pairs, adapter_name, found, config, check)
    return found


def _shapes(pairs: list[Pair]) -> dict[str, tuple[int, ...]]:
    """Of the gradients, by name."""
    return {
        pair.source: pair.base_shape if pair.expert is None else (pair.experts, *pair.base_shape)
        for pair in pairs
    }


def _pairs(
    model: nn.Module, gradients: Mapping[str, Given], adapter_name: str, missing: Missing
) -> tuple[list[Pair], dict[str, str]]:
    """The pairs to write, and the modules to leave as they are, with the reason."""
    if missing == "error":
        return lora_pairs(model, adapter_name), {}
    pairs, skipped = survey(model, adapter_name)
    named = aligned(gradients, [pair.source for pair in pairs])
    for pair in pairs:
        if pair.source not in named:
            skipped[pair.name] = "no gradient"
            continue
        own = named[pair.source]
        # One that is unfit is refused by name with the others.
        if not given.unfit(own) and not given.usable(own)[pair.expert or 0]:
            skipped[pair.name] = "its gradient is zero"
    kept = [pair for pair in pairs if pair.name not in skipped]
    if not kept:
        raise ValueError(
            f"some module must have a gradient; got none for the {len(pairs)} pairs of adapter "
            f"{adapter_name!r}; estimate them with get_lora_one_gradients and the same config"
        )
    return kept, skipped


def _enough(pairs: list[Pair], gradients: Mapping[str, Given]) -> None:
    few = []
    for pair in pairs:
        own = gradients[pair.source]
        rank = min(pair.rank, *pair.base_shape)
        if isinstance(own, Triplets) and own.S.shape[-1] < rank:
            few.append(f"{own.S.shape[-1]} for {pair.name} of rank {rank}")
    refuse(
        "as many triplets of a gradient are needed as the adapter's rank",
        few,
        "estimate the gradients with a larger keep=",
    )


def _warn_of_clamping(pairs: list[Pair], config: LoRAOneConfig) -> None:
    q = config.stated_q
    narrow = [pair for pair in pairs if q is not None and q > min(pair.base_shape)]
    if narrow and config.svd != "exact":
        least = min(min(pair.base_shape) for pair in narrow)
        warnings.warn(
            f"q must satisfy q <= min(d, k); got q={q} with min(d, k) down to {least}; it was "
            f"clamped in {len(narrow)} of {len(pairs)} modules, where svd='exact' costs the same",
            stacklevel=3,
        )


def _initialise(
    pair: Pair, gradients: Mapping[str, Given], config: LoRAOneConfig
) -> tuple[Factors, ModuleReport]:
    rank = pair.rank
    (U, S, V), norm = given.leading(
        gradients[pair.source],
        rank,
        config.options(rank, pair.base_shape),
        transposed=pair.transposed,
        expert=pair.expert,
        device=pair.down.device if pair.down.is_cuda else torch.device("cpu"),
    )
    d, k = len(U), len(V)
    tolerance = config.rel_tol
    if tolerance is None:
        tolerance = max(d, k) * torch.finfo(torch.float32).eps
    kept = int((S > tolerance * S[0]).sum())
    best = signed(SVD(-U[:, :kept], S[:kept], V[:, :kept]))  # of the negative gradient
    if config.init == "released":
        A, B = released_factors(best, config.factor)
    else:
        A, B = spectral_factors(best, config.factor, pair.scale)
    if kept < rank:
        A = torch.cat([A, _kaiming(pair.name, config.seed, d, rank - kept, A)], dim=1)
        B = torch.cat([B, B.new_zeros(rank - kept, k)])
    written = Factors(A.to(pair.down.dtype).to(S), B.to(pair.up.dtype).to(S))
    sigma = float(S[0])
    rate = pair.scale / (config.factor * sigma) if config.init == "released" else config.factor
    step = pair.scale * _norm(written)
    length = rate * float(torch.linalg.vector_norm(S[:kept].double()))
    if not abs(step - length) <= ROUNDED * length:
        raise ValueError(
            f"the adapter's dtype must hold the factors; got {pair.down.dtype} for {pair.name}, in "
            f"which a step of length {length:.3g} becomes {step:.3g}; make the adapter in float32 "
            "(autocast_adapter_dtype=True), or change gamma"
        )
    report = ModuleReport(
        sigma,
        kept,
        float((S[:kept].double() ** 2).sum()) / norm**2,
        step,
        rate,
    )
    return Factors(A, B), report


def _norm(product: Factors) -> float:
    """‖AB‖_F, whose square is ⟨AᵀA, BBᵀ⟩; both have orthogonal columns up to rounding."""
    A, B = (M.double() for M in product)
    return float(((A.mT @ A) * (B @ B.mT)).sum().clamp_min(0).sqrt())


def _kaiming(name: str, seed: int, d: int, columns: int, like: Tensor) -> Tensor:
    """U(±1/√d), as a fresh LoRA layer has."""
    bound = 1 / math.sqrt(d)
    draws = randomness.per_seed(
        lambda rng: rng.uniform(-bound, bound, (d, columns)), (seed,), f"lora-one {name}", like
    )
    return draws[0]
