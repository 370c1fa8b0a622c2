"""LoRA-One for PEFT: write lora_A and lora_B from the one-step gradient, never the base weight."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from loraone_theory.core import linalg, randomness, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import SVDOptions
from loraone_theory.integrations import distributed
from loraone_theory.integrations.peft_config import (
    DEFAULT,
    LoRAOneConfig,
    ModuleReport,
    Reports,
)
from loraone_theory.integrations.peft_gradients import Missing, check
from loraone_theory.integrations.peft_layers import (
    LoraConfig,
    Pair,
    adapter_config,
    aligned,
    is_meta,
    lora_pairs,
    refuse,
    survey,
)
from loraone_theory.methods import inits
from loraone_theory.problems.linear.problem import LinearProblem


def initialize_lora_one_weights(
    peft_model: nn.Module,
    gradients: Mapping[str, Tensor],
    config: LoRAOneConfig = DEFAULT,
    adapter_name: str = "default",
    *,
    missing: Missing = "error",
    overwrite: bool = False,
) -> Reports:
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
        missing: "lora" leaves modules of unsupported type, and those without a gradient or with a
            zero one, as they are and names them in the report; "error" refuses them.
        overwrite: also where the adapter is not fresh, AB ≠ 0.

    Returns:
        Module name -> report; its `skipped` names the modules left as they are.

    Raises:
        ValueError: an unknown, merged or DoRA adapter; one whose own initialisation changed the
            base weights, such as PiSSA; one that has been trained; one whose weights are not
            loaded; a gradient that is missing, zero, not finite or of another shape.

    Reference: Algorithm 1 ("released"); Spectral-init of the analysis ("spectral").
    """
    validate.choice("missing", missing, ("error", "lora"))
    with distributed.together():
        pairs, skipped = _pairs(peft_model, gradients, adapter_name, missing)
        gradients = aligned(gradients, [pair.name for pair in pairs])
        _untouched(adapter_config(peft_model, adapter_name), pairs, overwrite)
        check(gradients, {pair.name: pair.base_shape for pair in pairs})
    if config.svd == "lowrank":
        _warn_of_clamping(pairs, config.q)
    made: dict[str, Factors] = {}
    reports: dict[str, ModuleReport] = {}
    with distributed.together():
        for pair in pairs if distributed.leads() else ():
            made[pair.name], reports[pair.name] = _initialise(pair, gradients[pair.name], config)
    for pair in pairs:
        pair = _materialised(pair, adapter_name)
        if pair.name in made:
            with torch.no_grad():
                pair.down.copy_(made[pair.name].A.mT)
                pair.up.copy_(made[pair.name].B.mT)
        distributed.broadcast_(pair.down)
        distributed.broadcast_(pair.up)
    return distributed.broadcast_object(Reports(reports, skipped))


def _pairs(
    model: nn.Module, gradients: Mapping[str, Tensor], adapter_name: str, missing: Missing
) -> tuple[list[Pair], dict[str, str]]:
    """The pairs to write, and the modules to leave as they are, with the reason."""
    if missing == "error":
        return lora_pairs(model, adapter_name), {}
    pairs, skipped = survey(model, adapter_name)
    named = aligned(gradients, [pair.name for pair in pairs])
    for pair in pairs:
        if pair.name not in named:
            skipped[pair.name] = "no gradient"
        elif not bool(named[pair.name].any()):
            skipped[pair.name] = "its gradient is zero"
    kept = [pair for pair in pairs if pair.name not in skipped]
    if not kept:
        raise ValueError(
            f"some module must have a gradient; got none for the {len(pairs)} pairs of adapter "
            f"{adapter_name!r}; estimate them with get_lora_one_gradients and the same config"
        )
    return kept, skipped


# What init_lora_weights may be: the settings under which PEFT leaves the base weights alone.
LEAVES_BASE = ("true", "false", "gaussian", "eva", "orthogonal", "mica")


def _untouched(config: LoraConfig | None, pairs: list[Pair], overwrite: bool) -> None:
    """The adapter can be overwritten without changing more than it adds itself.

    Raises:
        ValueError: it cannot.
    """
    setting = "true" if config is None else str(config.init_lora_weights).lower()
    if setting not in LEAVES_BASE:
        raise ValueError(
            "the adapter must be made without changing the base weights, since LoRA-One has no "
            f"offset; got init_lora_weights={setting!r}, which changes them; load the model anew "
            "and make the adapter with init_lora_weights=True"
        )
    refuse(
        "the adapter must not be merged into the base weights",
        [pair.name for pair in pairs if pair.layer.merged],
        "call unmerge_adapter() first",
    )
    refuse(
        "an adapter needs real tensors, or a base weight that is loaded to put them beside",
        [
            f"{pair.name} on the meta device"
            for pair in pairs
            if is_meta(pair.down) and is_meta(_base_weight(pair))
        ],
        "load the model without offloading to disk or CPU",
    )
    if not overwrite:
        refuse(
            "the adapter must be fresh, with AB = 0",
            [p.name for p in pairs if not is_meta(p.up) and bool(p.up.any() and p.down.any())],
            "it has been trained or initialised before; pass overwrite=True to replace it",
        )


def _base_weight(pair: Pair) -> Tensor:
    return cast(Tensor, pair.layer.get_base_layer().weight)


def _materialised(pair: Pair, adapter_name: str) -> Pair:
    """The pair with tensors beside the base weight, where PEFT left it without values."""
    if not is_meta(pair.down):
        return pair
    device = _base_weight(pair).device
    down, up = (
        nn.Parameter(torch.empty_like(p, device=device), p.requires_grad)
        for p in (pair.down, pair.up)
    )
    pair.layer.lora_A[adapter_name].weight = down
    pair.layer.lora_B[adapter_name].weight = up
    bias = cast(nn.Linear, pair.layer.lora_B[adapter_name]).bias
    if isinstance(bias, Tensor):
        zero = torch.zeros_like(bias, device=device)
        pair.layer.lora_B[adapter_name].bias = nn.Parameter(zero, bias.requires_grad)
    return pair._replace(down=down, up=up)


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
