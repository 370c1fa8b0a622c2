"""Where the pairs of a PEFT model are, and which modules a LoRA config targets."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors

try:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer, LoraModel
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
    from transformers.pytorch_utils import Conv1D
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"this module needs the package {error.name!r}: pip install 'loraone-theory[peft]'",
        name=error.name,
    ) from error


class Pair(NamedTuple):
    """One LoRA pair of a model: W_eff = W + scale·AB with A = down.weightᵀ, B = up.weightᵀ.

    Args:
        name: the module's name in the base model, without PEFT's prefix.
        layer: PEFT's layer around the base module.
        down: lora_A's weight (r, d).
        up: lora_B's weight (k, r).
        scale: s = α/r or α/√r, whatever PEFT multiplies by.
    """

    name: str
    layer: LoraLayer
    down: nn.Parameter
    up: nn.Parameter
    scale: float

    @property
    def factors(self) -> Factors:
        """A (d, r) and B (r, k) as views, without the scale."""
        return Factors(self.down.detach().mT, self.up.detach().mT)

    @property
    def base_shape(self) -> tuple[int, int]:
        """Shape of the base module's weight: (k, d), or (d, k) for Conv1D."""
        k, d = self.up.shape[0], self.down.shape[1]
        return (d, k) if self.transposed else (k, d)

    @property
    def transposed(self) -> bool:
        """True for Conv1D, which stores W and not Wᵀ."""
        return isinstance(self.layer.get_base_layer(), Conv1D)

    def as_ours(self, weight: Tensor) -> Tensor:
        """A matrix of the shape of the base weight as (d, k)."""
        return weight if self.transposed else weight.mT


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside a (Distributed)DataParallel wrapper."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return model.module if isinstance(model, wrappers) else model


def lora_pairs(model: nn.Module, adapter_name: str = "default") -> list[Pair]:
    """The pairs of one adapter, in the order of `named_modules`.

    Args:
        model: a PeftModel, or a module that adapters were injected into.
        adapter_name: which adapter.

    Raises:
        ValueError: no such adapter; one on layers other than linear ones; one whose effective
            weight is not W + sAB, such as DoRA.
    """
    root: Any = unwrapped(model)
    root = root.base_model.model if isinstance(root, PeftModel) else root
    layers = {name: m for name, m in root.named_modules() if isinstance(m, LoraLayer)}
    adapters = {key for m in layers.values() for key in _adapters(m)}
    if not adapters:
        raise ValueError(
            f"model must have LoRA layers; got {type(model).__name__} without any; "
            "pass the result of peft.get_peft_model"
        )
    validate.choice("adapter_name", adapter_name, sorted(adapters))
    chosen = {name: m for name, m in layers.items() if adapter_name in _adapters(m)}
    refuse(
        "LoRA-One applies to linear layers and Conv1D",
        [name for name, m in chosen.items() if not _is_linear(m, adapter_name)],
        "leave them out of target_modules",
    )
    refuse(
        "LoRA-One applies to plain LoRA, W + sAB",
        [name for name, m in chosen.items() if _is_variant(m, adapter_name)],
        "configure the adapter without use_dora and other variants",
    )
    return [
        Pair(
            name,
            layer,
            cast(nn.Parameter, layer.lora_A[adapter_name].weight),
            cast(nn.Parameter, layer.lora_B[adapter_name].weight),
            float(layer.scaling[adapter_name]),
        )
        for name, layer in chosen.items()
    ]


def _adapters(layer: LoraLayer) -> set[str]:
    return {*layer.lora_A.keys(), *layer.lora_embedding_A.keys()}


def _is_linear(layer: LoraLayer, adapter_name: str) -> bool:
    return adapter_name in layer.lora_A and isinstance(layer.lora_A[adapter_name], nn.Linear)


def _is_variant(layer: LoraLayer, adapter_name: str) -> bool:
    return bool(layer.use_dora.get(adapter_name)) or adapter_name in layer.lora_variant


def targets(model: nn.Module, config: LoraConfig) -> dict[str, nn.Module]:
    """The modules that PEFT would put the adapter on, by name; the config is not changed.

    Raises:
        ValueError: DoRA, target_parameters, no target, or targets that are not nn.Linear or Conv1D
            with a floating-point weight; adapters in the model already.
    """
    if config.use_dora:
        raise ValueError(
            "LoRA-One applies to plain LoRA, W + sAB; got use_dora=True, whose magnitudes are "
            "taken at AB = 0; configure the adapter without it"
        )
    if config.target_parameters:
        raise ValueError(
            f"target_parameters must be empty; got {config.target_parameters}; LoRA-One applies to "
            "modules, name them in target_modules"
        )
    if any(isinstance(module, LoraLayer) for module in model.modules()):
        raise ValueError(
            "model must be the base model, before peft.get_peft_model; got one that holds LoRA "
            "layers; estimate the gradients first, then add the adapter"
        )
    config = _resolved(model, config)
    found = {
        name: module
        for name, module in model.named_modules()
        if name and LoraModel._check_target_module_exists(config, name)
    }
    if not found:
        raise ValueError(
            f"target_modules must name modules of the model; got {config.target_modules!r}, "
            "which matches none"
        )
    refuse(
        "LoRA-One applies to nn.Linear and Conv1D",
        [name for name, m in found.items() if not isinstance(m, (nn.Linear, Conv1D))],
        "leave them out of target_modules or name them in exclude_modules",
    )
    refuse(
        "a quantised or unloaded base weight has no gradient",
        [name for name, m in found.items() if not _differentiable(m)],
        "estimate the gradients on the model in floating point and pass them to "
        "initialize_lora_one_weights of the quantised one",
    )
    return found


def _resolved(model: nn.Module, given: LoraConfig) -> LoraConfig:
    """The config with "all-linear" and the architecture's default targets spelled out."""
    config: Any = copy.copy(given)
    if config.target_modules is None:
        kind = str(LoraModel.get_model_config(model).get("model_type"))
        known = LoraModel.target_module_mapping.get(kind)
        if known is None:
            raise ValueError(
                f"target_modules must be given for a model of type {kind!r}; PEFT knows no default"
            )
        config.target_modules = known if isinstance(known, str) else set(known)
    return cast(LoraConfig, _maybe_include_all_linear_layers(config, model))


def weight_shape(module: nn.Module) -> tuple[int, ...]:
    """Shape of a target's weight as it is stored."""
    return tuple(cast(Tensor, module.weight).shape)


def _differentiable(module: nn.Module) -> bool:
    # Quantised tensors come as integers, or as a class of their own that claims a float dtype.
    weight = module._parameters.get("weight")
    return type(weight) is nn.Parameter and weight.is_floating_point() and not weight.is_meta


def refuse(rule: str, names: Iterable[str], remedy: str) -> None:
    """ValueError with the first few of `names`, if there are any."""
    names = list(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(f"{rule}; got {', '.join(names[:3])}{more}; {remedy}")
