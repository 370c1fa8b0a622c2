"""Leaves in the place of weights, and which modules a forward pass calls."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from torch import nn

from loraone_theory.integrations.peft_find import OptimizedModule
from loraone_theory.integrations.peft_targets import Target


def unsynchronised(model: nn.Module) -> contextlib.AbstractContextManager:
    """Without DistributedDataParallel's own averaging, which does not know the leaves."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def substituted(model: nn.Module, found: Mapping[str, Target]) -> Iterator[dict[str, nn.Parameter]]:
    """A leaf for the weight of every target, nothing else trainable; undone at the end."""
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    weights = {name: target.weight for name, target in found.items()}
    places = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
    shared = {
        name for name, target in found.items() if places[id(target.module)] > 1 and not target.alone
    }
    leaves = {}
    try:
        for p, _, _ in parameters:
            p.grad = None
            p.requires_grad_(False)
        for name, (path, module, parameter, _) in found.items():
            weight = weights[name]
            assert weight is not None
            leaves[name] = nn.Parameter(weight.detach())
            if name in shared:  # PEFT adapts the first use of a shared module only
                module = copy.copy(module)
                module._parameters = dict(module._parameters)
                _put(model, path, module)
            module._parameters[parameter] = leaves[name]
        yield leaves
    finally:
        for name, (path, module, parameter, _) in found.items():
            module._parameters[parameter] = weights[name]
            if name in shared:
                _put(model, path, module)
        for p, trainable, gradient in parameters:
            p.requires_grad_(trainable)
            p.grad = gradient
        for module, training in modes:
            module.training = training


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@contextlib.contextmanager
def calls(model: nn.Module, found: Mapping[str, Target]) -> Iterator[set[str] | None]:
    """The targets whose forward has been called; None for compiled models, where that is hidden."""
    compiled = (m for m in model.modules() if m._compiled_call_impl is not None)
    if any(isinstance(m, OptimizedModule) for m in model.modules()) or any(compiled):
        yield None
        return
    called: set[str] = set()
    modules = {name: model.get_submodule(target.path) for name, target in found.items()}
    before = {name: module.__dict__.get("forward") for name, module in modules.items()}

    def noting(name: str, forward: Callable) -> Callable:
        def noted(*args: object, **kwargs: object) -> object:
            called.add(name)
            return forward(*args, **kwargs)

        return noted

    try:
        for name, module in modules.items():
            module.__dict__["forward"] = noting(name, module.forward)
        yield called
    finally:
        for name, module in modules.items():
            module.__dict__.pop("forward", None)
            own = before[name]
            if own is not None:
                module.__dict__["forward"] = own
