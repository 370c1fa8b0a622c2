"""Where the pairs of a PEFT model are, whatever is wrapped around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors

try:
    from peft import LoraConfig, PeftMixedModel, PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import MultiheadAttention, ParamWrapper
    from torch._dynamo.eval_frame import OptimizedModule
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
    from torch.distributed.fsdp import FullyShardedDataParallel
    from transformers.pytorch_utils import Conv1D
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"this module needs the package {error.name!r}: pip install 'loraone-theory[peft]'",
        name=error.name,
    ) from error

# Each holds one module, whose name they put a word in front of.
PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)
WRAPPERS = (*PARALLEL, OptimizedModule, CheckpointWrapper, FullyShardedDataParallel)

Value = TypeVar("Value")


class Pair(NamedTuple):
    """One LoRA pair of a model: W_eff = W + scale·AB with A = down.weightᵀ, B = up.weightᵀ.

    Args:
        name: the module's name in the base model, without PEFT's prefix and those of wrappers.
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


class Survey(NamedTuple):
    """The layers of one adapter: pairs, and the rest by name with the reason."""

    pairs: list[Pair]
    unsupported: dict[str, str]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside a (Distributed)DataParallel wrapper."""
    return model.module if isinstance(model, PARALLEL) else model


def named_inside(root: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """`named_modules` with a second name, from which the words of wrappers are left out.

    Compiled, checkpointed and sharded parts of a model have the names that they would have without
    that. The wrappers themselves are left out.
    """
    plain = {"": ""}
    wraps: set[str] = set()
    for name, module in root.named_modules():
        parent, _, word = name.rpartition(".")
        if name:
            before = plain[parent]
            short = before if parent in wraps else f"{before}.{word}" if before else word
            plain[name] = short
        if isinstance(module, WRAPPERS):
            wraps.add(name)
        else:
            yield name, plain[name], module


def base_model(model: nn.Module) -> nn.Module:
    """The module that adapters were injected into: that of the one PeftModel in `model`, or it.

    Raises:
        ValueError: several PeftModels inside.
    """
    kinds = (PeftModel, PeftMixedModel)
    found = [m for m in model.modules() if isinstance(m, kinds)]
    outermost = [m for m in found if not any(m is not n and m in set(n.modules()) for n in found)]
    if len(outermost) > 1:
        raise ValueError(
            f"model must hold one PeftModel; got {len(outermost)} of them; pass the one to work on"
        )
    return cast(nn.Module, outermost[0].base_model.model) if outermost else unwrapped(model)


def adapter_config(model: nn.Module, adapter_name: str) -> LoraConfig | None:
    """The LoraConfig that an adapter was made with, where PEFT has left it in the model."""
    for module in model.modules():
        configs = module.__dict__.get("peft_config")
        if isinstance(configs, Mapping) and adapter_name in configs:
            return configs[adapter_name]
    return None


def survey(model: nn.Module, adapter_name: str = "default") -> Survey:
    """All layers of one adapter, in the order of `named_modules`.

    Raises:
        ValueError: no such adapter.
    """
    root = base_model(model)
    layers = {n: (full, m) for full, n, m in named_inside(root) if isinstance(m, LoraLayer)}
    adapters = {key for _, m in layers.values() for key in _adapters(m)}
    if not adapters:
        raise ValueError(
            f"model must have LoRA layers; got {type(model).__name__} without any; "
            "pass the result of peft.get_peft_model"
        )
    validate.choice("adapter_name", adapter_name, sorted(adapters))
    pairs, unsupported = [], {}
    for name, (full, layer) in layers.items():
        if adapter_name not in _adapters(layer):
            continue
        reason = _unsupported(root, full, layer, adapter_name)
        if reason:
            unsupported[name] = reason
            continue
        A, B = layer.lora_A[adapter_name].weight, layer.lora_B[adapter_name].weight
        scale = float(layer.scaling[adapter_name])
        pairs.append(Pair(name, layer, cast(nn.Parameter, A), cast(nn.Parameter, B), scale))
    return Survey(pairs, unsupported)


LINEAR = "LoRA-One applies to linear layers and Conv1D"
PLAIN = "LoRA-One applies to plain LoRA, W + sAB"
AROUND = "an adapter needs a module that the forward pass calls, not one that it takes weights from"
REMEDIES = {
    LINEAR: "leave them out of target_modules, or pass missing='lora'",
    PLAIN: "configure the adapter without use_dora and other variants",
    AROUND: "leave them out of target_modules: PEFT's adapter has no effect there",
}


def lora_pairs(model: nn.Module, adapter_name: str = "default") -> list[Pair]:
    """The pairs of one adapter, in the order of `named_modules`.

    Args:
        model: a PeftModel, a module that adapters were injected into, or one that holds either,
            also compiled or in (Distributed)DataParallel.
        adapter_name: which adapter.

    Raises:
        ValueError: no such adapter; one on layers other than linear ones; one whose effective
            weight is not W + sAB, such as DoRA; one that the forward pass goes around.
    """
    pairs, unsupported = survey(model, adapter_name)
    for reason, remedy in REMEDIES.items():
        refuse(reason, [name for name, why in unsupported.items() if why == reason], remedy)
    return pairs


def _adapters(layer: LoraLayer) -> set[str]:
    return {*layer.lora_A.keys(), *layer.lora_embedding_A.keys()}


def _unsupported(root: nn.Module, full: str, layer: LoraLayer, adapter_name: str) -> str:
    """Why this layer has no pair of ours; "" where it has one."""
    linear = adapter_name in layer.lora_A and isinstance(layer.lora_A[adapter_name], nn.Linear)
    if not linear or isinstance(layer, (MultiheadAttention, ParamWrapper)):
        return LINEAR
    if isinstance(root.get_submodule(full.rpartition(".")[0]), nn.MultiheadAttention):
        return AROUND
    return PLAIN if is_variant(layer, adapter_name) else ""


def is_variant(layer: LoraLayer, adapter_name: str) -> bool:
    """True where the effective weight is not W + sAB."""
    return bool(layer.use_dora.get(adapter_name)) or adapter_name in layer.lora_variant


def aligned(given: Mapping[str, Value], names: Iterable[str]) -> Mapping[str, Value]:
    """`given` under `names`, where the two differ by one prefix only; else `given` as it is.

    A model that is estimated alone and adapted as a part of another, or the reverse, has the same
    modules under longer names.

    >>> aligned({"net.up": 1, "net.down": 2}, ["up", "down"])
    {'up': 1, 'down': 2}
    """
    wanted = list(names)
    if not wanted or any(name in given for name in wanted):
        return given
    for key in given:
        for longer, shorter in ((key, wanted[0]), (wanted[0], key)):
            if not longer.endswith(f".{shorter}"):
                continue
            prefix = longer[: -len(shorter)]
            renamed = {
                name: prefix + name if longer is key else name.removeprefix(prefix)
                for name in wanted
                if longer is key or name.startswith(prefix)
            }
            if len(renamed) == len(wanted) and all(old in given for old in renamed.values()):
                return {name: given[old] for name, old in renamed.items()}
    return given


def refuse(rule: str, names: Iterable[str], remedy: str) -> None:
    """ValueError with the first few of `names`, if there are any."""
    names = list(names)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(f"{rule}; got {', '.join(names[:3])}{more}; {remedy}")


def is_meta(tensor: Tensor) -> bool:
    """True for a tensor without values."""
    return tensor.device == torch.device("meta")
