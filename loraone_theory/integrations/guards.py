"""What has to hold of an adapter before it is written to, and tensors for one that has none."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from loraone_theory.integrations.peft_find import LoraConfig, is_meta, refuse
from loraone_theory.integrations.peft_layers import Pair, weights
from loraone_theory.integrations.sharded import is_sharded

# What init_lora_weights may be: the settings under which PEFT leaves the base weights alone.
LEAVES_BASE = ("true", "false", "gaussian", "eva", "orthogonal", "mica")


def untouched(config: LoraConfig | None, pairs: list[Pair], overwrite: bool) -> None:
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
