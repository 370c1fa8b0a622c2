"""The methods by name.

`METHODS` maps each name to the factory that makes it; the factory's arguments are the method's
hyper-parameters and the first line of its docstring describes it. Any of them runs under another
rule by `Method.trained_by`, and takes `Alpha` for a scale that depends on the rank.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from loraone_theory.core import validate
from loraone_theory.core.names import MethodName
from loraone_theory.methods.base import Alpha, Method, RuleFactory, Scale
from loraone_theory.methods.gradient import (
    lora_ga,
    lora_one,
    lora_one_adamw,
    lora_one_early,
    lora_one_preconditioned,
    lora_one_released,
    lora_one_scaled_adamw,
    lora_one_whitened,
    lora_sb,
)
from loraone_theory.methods.lora import (
    adalora,
    flow,
    full,
    full_adamw,
    full_flow,
    lora,
    lora_adamw,
    lora_momentum,
    lora_muon,
    lora_plus,
    lora_plus_adamw,
    lora_pro,
    lora_pro_adamw,
    lora_rite,
    lora_spectral_scaled,
    muon,
    nystrom,
    p_lora,
    p_lora_adamw,
    p_lora_alternating,
    rslora,
)
from loraone_theory.methods.rebuilding import rebuild
from loraone_theory.methods.symmetric import symmetric, symmetric_preconditioned
from loraone_theory.methods.weight import lora_xs, milora, olora, pissa
from loraone_theory.methods.whitened import whitened_preconditioned

# Name -> the factory that makes the method; its arguments are the hyper-parameters.
METHODS: dict[str, Callable[..., Method]] = {
    "full": full,
    "full-adamw": full_adamw,
    "full-flow": full_flow,
    "lora": lora,
    "flow": flow,
    "lora-momentum": lora_momentum,
    "lora-adamw": lora_adamw,
    "rslora": rslora,
    "lora+": lora_plus,
    "lora+-adamw": lora_plus_adamw,
    "p-lora": p_lora,
    "p-lora-adamw": p_lora_adamw,
    "p-lora-alternating": p_lora_alternating,
    "lora-spectral-scaled": lora_spectral_scaled,
    "muon": muon,
    "lora-muon": lora_muon,
    "lora-rite": lora_rite,
    "nystrom": nystrom,
    "lora-pro": lora_pro,
    "lora-pro-adamw": lora_pro_adamw,
    "adalora": adalora,
    "pissa": pissa,
    "milora": milora,
    "olora": olora,
    "lora-xs": lora_xs,
    "lora-ga": lora_ga,
    "lora-sb": lora_sb,
    "lora-one": lora_one,
    "lora-one-preconditioned": lora_one_preconditioned,
    "lora-one-adamw": lora_one_adamw,
    "lora-one-scaled-adamw": lora_one_scaled_adamw,
    "lora-one-whitened": lora_one_whitened,
    "lora-one-released": lora_one_released,
    "lora-one-early": lora_one_early,
}


def stepping() -> tuple[str, ...]:
    """The methods that make steps of a size of their own, all but the flows."""
    return tuple(name for name, factory in METHODS.items() if not factory().facts.flow)


@functools.cache
def _usual(factory: Callable[..., Method]) -> Method:
    return factory()


def get(method: MethodName | str | Method, rank: int | None = None) -> Method:
    """A Method from its name in `METHODS`, with default hyper-parameters, or the one given.

    A scale that depends on the rank (`Alpha`, rsLoRA) is resolved where the rank is given.

    >>> get("rslora", rank=4).scale
    0.5
    """
    if not isinstance(method, Method):
        method = _usual(METHODS[validate.choice("method", method, METHODS)])
    if rank is None:
        return method
    return method.at(validate.integer("rank", rank, least=1))


__all__ = [
    "METHODS",
    "Alpha",
    "Method",
    "RuleFactory",
    "Scale",
    "adalora",
    "flow",
    "full",
    "full_adamw",
    "full_flow",
    "get",
    "lora",
    "lora_adamw",
    "lora_ga",
    "lora_momentum",
    "lora_muon",
    "lora_one",
    "lora_one_adamw",
    "lora_one_early",
    "lora_one_preconditioned",
    "lora_one_released",
    "lora_one_scaled_adamw",
    "lora_one_whitened",
    "lora_plus",
    "lora_plus_adamw",
    "lora_pro",
    "lora_pro_adamw",
    "lora_rite",
    "lora_sb",
    "lora_spectral_scaled",
    "lora_xs",
    "milora",
    "muon",
    "nystrom",
    "olora",
    "p_lora",
    "p_lora_adamw",
    "p_lora_alternating",
    "pissa",
    "rebuild",
    "rslora",
    "stepping",
    "symmetric",
    "symmetric_preconditioned",
    "whitened_preconditioned",
]
