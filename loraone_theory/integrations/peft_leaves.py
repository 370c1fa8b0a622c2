"""Leaves in the place of weights, and which modules a forward pass calls."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from loraone_theory.integrations.peft_find import Conv1D, OptimizedModule
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
    try:
        for p, _, _ in parameters:
            p.grad = None
            p.requires_grad_(False)
        with placed(model, found) as leaves:
            yield leaves
    finally:
        for p, trainable, gradient in parameters:
            p.requires_grad_(trainable)
            p.grad = gradient
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def placed(model: nn.Module, found: Mapping[str, Target]) -> Iterator[dict[str, nn.Parameter]]:
    """A leaf for the weight of every target, on the same storage; undone at the end."""
    weights = {name: target.weight for name, target in found.items()}
    places = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
    shared = {
        name for name, target in found.items() if places[id(target.module)] > 1 and not target.alone
    }
    leaves = {}
    try:
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


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class Seen(NamedTuple):
    """Targets whose forward has been called, and what keeps an adapter from doing the same.

    Args:
        called: all of them.
        other: those that compute something else than Wx + b.
        hooked: those with hooks that change what they are given or what they return.
    """

    called: set[str]
    other: set[str]
    hooked: set[str]


@contextlib.contextmanager
def calls(model: nn.Module, found: Mapping[str, Target]) -> Iterator[Seen | None]:
    """What is seen of the targets' first calls; None for compiled models, where they are hidden."""
    compiled = (m for m in model.modules() if m._compiled_call_impl is not None)
    if any(isinstance(m, OptimizedModule) for m in model.modules()) or any(compiled):
        yield None
        return
    seen = Seen(set(), set(), set())
    modules = {name: model.get_submodule(target.path) for name, target in found.items()}
    before = {name: module.__dict__.get("forward") for name, module in modules.items()}
    with contextlib.ExitStack() as stack:
        try:
            for name, module in modules.items():
                call = _Call(name, module, seen)
                if not found[name].alone:  # an adapter of a parameter is inside of all hooks
                    first = module.register_forward_pre_hook(call.entered, prepend=True)
                    stack.callback(first.remove)
                    stack.callback(module.register_forward_hook(call.left).remove)
                module.__dict__["forward"] = call.noting(module.forward)
            yield seen
        finally:
            for name, module in modules.items():
                module.__dict__.pop("forward", None)
                own = before[name]
                if own is not None:
                    module.__dict__["forward"] = own


class _Call:
    """The first call of one target: what it is given, what its forward gets and makes of it."""

    def __init__(self, name: str, module: nn.Module, seen: Seen) -> None:
        self.name, self.module, self.seen = name, module, seen
        self.given: tuple[Any, ...] | None = None
        self.made: tuple[Any, int] | None = None

    def entered(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Before all other hooks; copies of a shared module have the same hooks."""
        if module is self.module and self.name not in self.seen.called:
            self.given = args

    def noting(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward that is called between the hooks."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            if self.name not in self.seen.called:
                self.seen.called.add(self.name)
                if _is_other(self.module, args, output):
                    self.seen.other.add(self.name)
                if self.given is not None:
                    if _differ(self.given, args):
                        self.seen.hooked.add(self.name)
                    self.given, self.made = None, (output, _version(output))
            return output

        return noted

    def left(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """After all other hooks."""
        if module is not self.module or self.made is None:
            return
        made, version = self.made
        self.made = None
        same = output is made
        if (same and _version(output) != version) or (not same and _differ((made,), (output,))):
            self.seen.hooked.add(self.name)


def _version(output: Any) -> int:
    """How often a tensor has been written to."""
    return output._version if isinstance(output, Tensor) else 0


# What a hook or a subclass may change, such as by noise, relative to what there was.
ADDED = 0.1


@torch.no_grad()
def _differ(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """True where tensors have changed by more than that, or have become something else."""
    if len(before) != len(after):
        return True
    for old, new in zip(before, after, strict=True):
        if old is new:
            continue
        if not isinstance(old, Tensor) or not isinstance(new, Tensor) or old.shape != new.shape:
            return True
        if (new - old).norm() > ADDED * old.norm():
            return True
    return False


@torch.no_grad()
def _is_other(module: nn.Module, args: tuple[Any, ...], output: Any) -> bool:
    """True for a subclass of nn.Linear or Conv1D that computes something else than they do."""
    for kind in (nn.Linear, Conv1D):
        if isinstance(module, kind) and type(module).forward is not kind.forward:
            usual: Callable[..., Tensor] = kind.forward
            if len(args) != 1 or not isinstance(args[0], Tensor):
                return True
            return _differ((usual(module, args[0]),), (output,))
    return False
