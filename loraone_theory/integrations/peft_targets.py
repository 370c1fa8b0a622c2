"""Which modules of a base model a LoRA config targets."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from peft import PeftType
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import Tensor, nn
from transformers import PreTrainedModel

from loraone_theory.integrations.peft_find import (
    Conv1D,
    FullyShardedDataParallel,
    LoraConfig,
    LoraLayer,
    is_meta,
    named_inside,
    refuse,
)
from loraone_theory.integrations.peft_layers import AROUND, LINEAR, PLAIN, REMEDIES
from loraone_theory.integrations.sharded import is_sharded

try:  # newer versions rewrite the targets of some mixture-of-experts models
    from peft.utils import transformers_weight_conversion as conversion
except ImportError:
    conversion = None  # type: ignore[assignment]


class Target(NamedTuple):
    """A weight that the adapter will be put on.

    Args:
        path: its module's name in the model as given, with the words of wrappers.
        module: nn.Linear, Conv1D, or one that holds the weights of several experts.
        parameter: the name of the weight in it.
        alone: PEFT adapts the parameter and not its module, whatever that is.
    """

    path: str
    module: nn.Module
    parameter: str = "weight"
    alone: bool = False

    @property
    def weight(self) -> nn.Parameter | None:
        """The parameter, if it is one."""
        return self.module._parameters.get(self.parameter)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight as it is stored."""
        return tuple(cast(Tensor, self.weight).shape)


def targets(
    model: nn.Module, config: LoraConfig, *, lenient: bool = False
) -> tuple[dict[str, Target], dict[str, str]]:
    """The modules that PEFT would put the adapter on, by name; the config is not changed.

    Args:
        model: the base model.
        config: what to target.
        lenient: leave modules of unsupported type out instead of refusing them.

    Returns:
        The targets, and the modules left out with the reason.

    Raises:
        ValueError: AdaLoRA, DoRA, no target, or targets that are not nn.Linear, Conv1D or the
            weights of several experts, in floating point; adapters in the model already; a sharded
            model.
    """
    _plain(model, config)
    config = _resolved(model, config)
    found = {
        name: Target(path, module)
        for path, name, module in named_inside(model)
        if path and LoraModel._check_target_module_exists(config, path)
    }
    found |= _parameters(model, config.target_parameters or ())
    if not found:
        raise ValueError(
            f"target_modules must name modules of the model; got {config.target_modules!r}, "
            "which matches none"
        )
    left_out = {name: _unsupported(model, target) for name, target in found.items()}
    left_out = {name: reason for name, reason in left_out.items() if reason}
    if not lenient:
        for reason, remedy in REMEDIES.items():
            refuse(reason, [n for n, why in left_out.items() if why == reason], remedy)
    found = {name: target for name, target in found.items() if name not in left_out}
    refuse(
        "a quantised, computed or unloaded base weight has no gradient",
        [name for name, target in found.items() if not _differentiable(target.weight)],
        "estimate the gradients on the model in floating point and pass them to "
        "initialize_lora_one_weights of the quantised one",
    )
    return found, left_out


def _plain(model: nn.Module, config: LoraConfig) -> None:
    if config.peft_type != PeftType.LORA:  # AdaLoRA's is a LoraConfig too
        raise ValueError(f"{PLAIN}; got {type(config).__name__}; {REMEDIES[PLAIN]}")
    if config.use_dora:
        raise ValueError(
            "LoRA-One applies to plain LoRA, W + sAB; got use_dora=True, whose magnitudes are "
            "taken at AB = 0; configure the adapter without it"
        )
    variants = [f.name for f in dataclasses.fields(config) if f.metadata.get("is_lora_variant")]
    refuse(PLAIN, [f"{name} set" for name in variants if vars(config)[name]], REMEDIES[PLAIN])
    if config.layer_replication:
        raise ValueError(
            "gradients must be those of the model that is trained; got layer_replication, by which "
            "PEFT makes another one of it; replicate the layers first, and leave it out"
        )
    if any(is_sharded(p) for p in model.parameters()) or any(
        isinstance(m, FullyShardedDataParallel) for m in model.modules()
    ):
        raise ValueError(
            "model must be whole on every process while gradients are estimated; got one that is "
            "sharded (FSDP); estimate before fully_shard, or on one process beforehand with "
            "cache_file"
        )
    if any(isinstance(module, LoraLayer) for module in model.modules()):
        raise ValueError(
            "model must be the base model, before peft.get_peft_model; got one that holds LoRA "
            "layers; estimate the gradients first, then add the adapter"
        )


def _resolved(model: nn.Module, given: LoraConfig) -> LoraConfig:
    """The config with "all-linear" and the architecture's default targets spelled out.

    In models whose experts are fused PEFT turns some modules into parameters of their own.
    """
    config: Any = copy.deepcopy(given)
    if config.target_modules is None:
        kind = str(LoraModel.get_model_config(model).get("model_type"))
        known = LoraModel.target_module_mapping.get(kind)
        if known is None:
            raise ValueError(
                f"target_modules must be given for a model of type {kind!r}; PEFT knows no default"
            )
        config.target_modules = known if isinstance(known, str) else set(known)
    if conversion is not None and isinstance(model, PreTrainedModel):
        conversion.convert_peft_config_for_transformers(config, model=model, conversions=None)
    return cast(LoraConfig, _maybe_include_all_linear_layers(config, model))


def _parameters(model: nn.Module, wanted: Iterable[str]) -> dict[str, Target]:
    """Parameters by name, or by the end of it, in PEFT's order."""
    return {
        f"{name}.{parameter}": Target(path, module, parameter, alone=True)
        for path, name, module in named_inside(model)
        for parameter in module._parameters
        if any(f".{path}.{parameter}".endswith(f".{end}") for end in wanted)
    }


def _unsupported(model: nn.Module, target: Target) -> str:
    if target.alone:
        return "" if len(target.shape) in (2, 3) else LINEAR
    if not isinstance(target.module, (nn.Linear, Conv1D)):
        return LINEAR
    parent = model.get_submodule(target.path.rpartition(".")[0])
    return AROUND if isinstance(parent, nn.MultiheadAttention) else ""


def _differentiable(weight: nn.Parameter | None) -> bool:
    # Quantised tensors come as integers, or as a class of their own that claims a float dtype.
    return type(weight) is nn.Parameter and weight.is_floating_point() and not is_meta(weight)
