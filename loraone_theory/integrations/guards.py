"""What has to hold of an adapter before it is written to, and tensors for one that has none."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from loraone_theory.integrations.peft_find import LoraConfig, adapter_configs, is_meta, refuse
from loraone_theory.integrations.peft_layers import Pair, weights
from loraone_theory.integrations.sharded import is_sharded

# What init_lora_weights may be: the settings under which PEFT leaves the base weights alone.
LEAVES_BASE = ("true", "false", "gaussian", "eva", "orthogonal", "mica")


def untouched(model: nn.Module, pairs: list[Pair], overwrite: bool) -> None:
    """The adapter can be overwritten without changing more than it adds itself.

    Raises:
        ValueError: it cannot.
    """
    for name, config in adapter_configs(model).items():
        setting = str(config.init_lora_weights).lower() if isinstance(config, LoraConfig) else ""
        if setting and setting not in LEAVES_BASE:
            raise ValueError(
                "adapters must be made without changing the base weights, since LoRA-One has no "
                f"offset; got init_lora_weights={setting!r} for {name!r}, which changes them; load "
                "the model anew and make the adapter with init_lora_weights=True"
            )
    refuse(
        "an adapter's scale must be positive and finite",
        [f"{p.scale:g} for {p.name}" for p in pairs if not 0 < p.scale < math.inf],
        "set lora_alpha",
    )
    _its_own(model, pairs)
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
    refuse(
        "the factors of experts must be whole",
        [
            pair.name
            for pair in pairs
            if pair.expert is not None and is_sharded(weights(pair.layer, pair.adapter)[0])
        ],
        "initialise before fully_shard",
    )
    if not overwrite:
        refuse(
            "the adapter must be fresh, with AB = 0",
            [p.name for p in pairs if not is_meta(p.up) and all(bool(M.any()) for M in p.factors)],
            "it has been trained or initialised before; pass overwrite=True to replace it",
        )
        refuse(
            "an active adapter must be trainable, since its start is a step of the training",
            [f"frozen factors for {p.name}" for p in pairs if _is_frozen(p)],
            "make it with inference_mode=False, or pass overwrite=True",
        )


def _is_frozen(pair: Pair) -> bool:
    factors = weights(pair.layer, pair.adapter)
    return pair.adapter in pair.layer.active_adapters and not any(p.requires_grad for p in factors)


def _its_own(model: nn.Module, pairs: list[Pair]) -> None:
    """No other parameter has the memory of the factors, as those of tied adapters have."""
    owners: dict[int, list[nn.Parameter]] = {}
    for p in model.parameters():
        if not is_meta(p) and not is_sharded(p):
            owners.setdefault(p.data_ptr(), []).append(p)
    refuse(
        "the factors of an adapter must be its own",
        [
            f"some that are tied to others for {pair.name}"
            for pair in pairs
            if any(
                not is_meta(p) and not is_sharded(p) and len(owners[p.data_ptr()]) > 1
                for p in weights(pair.layer, pair.adapter)
            )
        ],
        "make the adapter with ensure_weight_tying=False",
    )


def _base_weight(pair: Pair) -> Tensor:
    return cast(Tensor, pair.layer.get_base_layer().weight)


def materialised(pairs: list[Pair], adapter_name: str) -> list[Pair]:
    """The pairs with tensors beside the base weight, where PEFT left them without values."""
    return [_materialised(pair, adapter_name) if is_meta(pair.down) else pair for pair in pairs]


def _materialised(pair: Pair, adapter_name: str) -> Pair:
    device = _base_weight(pair).device
    down, up = (
        nn.Parameter(torch.empty_like(p, device=device), p.requires_grad)
        for p in weights(pair.layer, adapter_name)
    )
    pair.layer.lora_A[adapter_name].weight = down
    pair.layer.lora_B[adapter_name].weight = up
    bias = cast(nn.Linear, pair.layer.lora_B[adapter_name]).bias
    if isinstance(bias, Tensor):
        zero = torch.zeros_like(bias, device=device)
        pair.layer.lora_B[adapter_name].bias = nn.Parameter(zero, bias.requires_grad)
    return pair._replace(down=down, up=up)
