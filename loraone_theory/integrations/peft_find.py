"""Modules of a model whatever is wrapped around it, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from loraone_theory.core import validate
from loraone_theory.core.extras import extra

with extra("peft"):
    from peft import LoraConfig, PeftMixedModel, PeftModel
    from peft.tuners.lora import LoraLayer as LoraLayer
    from peft.tuners.lora.layer import MultiheadAttention as MultiheadAttention
    from peft.tuners.lora.layer import ParamWrapper as ParamWrapper
    from torch._dynamo.eval_frame import OptimizedModule
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
    from torch.distributed.fsdp import FullyShardedDataParallel
    from transformers.pytorch_utils import Conv1D as Conv1D

# Each holds one module, whose name they put a word in front of.
PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)
WRAPPERS = (*PARALLEL, OptimizedModule, CheckpointWrapper, FullyShardedDataParallel)

Value = TypeVar("Value")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside a (Distributed)DataParallel wrapper."""
    validate.instance("model", model, nn.Module)
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
        TypeError: no module.
        ValueError: several PeftModels inside.
    """
    validate.instance("model", model, nn.Module)
    kinds = (PeftModel, PeftMixedModel)
    found = [m for m in model.modules() if isinstance(m, kinds)]
    outermost = [m for m in found if not any(m is not n and m in set(n.modules()) for n in found)]
    if len(outermost) > 1:
        raise ValueError(
            f"model must hold one PeftModel; got {len(outermost)} of them; pass the one to work on"
        )
    return cast(nn.Module, outermost[0].base_model.model) if outermost else unwrapped(model)


def adapter_configs(model: nn.Module) -> dict[str, LoraConfig]:
    """The configs that the adapters were made with, where PEFT has left them in the model."""
    found: dict[str, LoraConfig] = {}
    for module in model.modules():
        configs = module.__dict__.get("peft_config")
        if isinstance(configs, Mapping):
            found |= configs
    return found


def aligned(given: Mapping[str, Value], names: Iterable[str]) -> Mapping[str, Value]:
    """`given` under `names`, where the two differ by one prefix only; else `given` as it is.

    A model that is estimated alone and adapted as a part of another, or the reverse, has the same
    modules under longer names.

    >>> aligned({"net.up": 1, "net.down": 2}, ["up", "down"])
    {'up': 1, 'down': 2}
    """
    validate.instance("gradients", given, Mapping, "give them by module name")
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
