"""A torch optimiser that trains PEFT's A/B pairs with the update rules of this library."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loraone_theory.core import validate
from loraone_theory.integrations.peft_layers import Pair, lora_pairs
from loraone_theory.methods.rules import RULES, Rule

Group = Mapping[str, Any]
# What a parameter group holds besides the hyper-parameters of its rule.
RESERVED = ("params", "scales", "rule", "lr", "initial_lr")


class PairOptimizer(Optimizer):
    """Any rule of `RULES` on pairs A = lora_A.weightᵀ, B = lora_B.weightᵀ, in place.

    Learning rate and hyper-parameters are read from `param_groups` at every step, so schedulers
    and hand edits take effect. The rules compute in float32 at least, whatever the parameters'
    dtype; adapters in bfloat16 lose steps smaller than their rounding, as with any optimiser.

    Args:
        pairs: a PEFT model, whose pairs of `adapter_name` are trained; pairs from `lora_pairs`; or
            groups, dicts with "pairs" (of either kind) or "params" (other tensors, for rules that
            need no pair) and any of "rule", "lr" and hyper-parameters.
        rule: a name in `RULES`; what groups do not say is taken from here.
        lr: η > 0.
        adapter_name: which adapter, where a model is given.
        others: a group for the trainable parameters outside the pairs, such as a classifier head:
            for example {"rule": "adamw", "lr": 1e-3}.
        hyper: hyper-parameters of the rule, such as damping, ratio or weight_decay. LoRA-Pro's
            `scale` is each pair's own and is not given.

    Raises:
        ValueError: an unknown rule or hyper-parameter; a rule for pairs on other tensors; trainable
            parameters of the model that nothing would train; no pair at all.
    """

    def __init__(
        self,
        pairs: nn.Module | Sequence[Pair] | Sequence[Group],
        rule: str = "preconditioned",
        *,
        lr: float = 1e-3,
        adapter_name: str = "default",
        others: Group | None = None,
        **hyper: Any,
    ) -> None:
        _accepted(rule, hyper)
        given = _groups(pairs, adapter_name, others)
        groups = [_with_defaults(group, rule, lr, hyper) for group in given]
        if not any(group["params"] for group in groups):
            raise ValueError("there must be something to train; got no pair and no parameter")
        super().__init__(groups, {"lr": validate.number("lr", lr)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each group's rule; tensors without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for (_, scale, *_), units in self._alike(group).items():
                self._advance(units, _make(group, scale))
        return loss

    def _alike(self, group: Group) -> dict[tuple[Any, ...], list[list[Tensor]]]:
        """Units that one batched call can advance: of one shape, scale and step number."""
        found: dict[tuple[Any, ...], list[list[Tensor]]] = {}
        for tensors, scale in _units(group):
            if all(p.grad is None for p in tensors):
                continue
            kind = tuple((p.shape, p.dtype, p.device) for p in tensors)
            leaves = self.state[tensors[0]].get("leaves", [None])
            numbers = tuple(x for x in leaves if not isinstance(x, Tensor))
            found.setdefault((kind, scale, numbers), []).append(tensors)
        return found

    def _advance(self, units: Sequence[Sequence[Tensor]], rule: Rule) -> None:
        columns = list(zip(*units, strict=True))
        params = tuple(torch.stack([_working(p) for p in column]) for column in columns)
        gradients = tuple(torch.stack([_gradient(p) for p in column]) for column in columns)
        held = [self.state[tensors[0]] for tensors in units]
        state = rule.init(params)
        if "leaves" in held[0]:
            together = zip(*(each["leaves"] for each in held), strict=True)
            state = _filled(state, iter([_stacked(leaf) for leaf in together]))
        new, state = rule.update(params, gradients, state)
        leaves = list(_leaves(state))
        for i, (tensors, each) in enumerate(zip(units, held, strict=True)):
            each["leaves"] = [x[i] if isinstance(x, Tensor) else x for x in leaves]
            for p, value in zip(tensors, new, strict=True):
                p.copy_(value[i].mT if p.ndim == 2 else value[i].reshape(p.shape))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does it, but the rules' state keeps its own dtypes.

        Raises:
            ValueError: groups that do not fit.
        """
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(saved, params, strict=True):
            if index in state_dict["state"]:
                leaves = state_dict["state"][index]["leaves"]
                moved = [x.to(p.device) if isinstance(x, Tensor) else x for x in leaves]
                self.state[p] = {"leaves": moved}


def _groups(given: Any, adapter_name: str, others: Group | None) -> list[dict[str, Any]]:
    """Groups of flat params; those of pairs also list the scales."""
    if isinstance(given, nn.Module):
        groups: list[dict[str, Any]] = [_of_pairs({"pairs": lora_pairs(given, adapter_name)})]
        inside = {id(p) for p in groups[0]["params"]}
        outside = {n: p for n, p in given.named_parameters() if p.requires_grad}
        outside = {n: p for n, p in outside.items() if id(p) not in inside}
        if others is not None:
            return [*groups, {"params": list(outside.values()), **others}]
        if outside:
            raise ValueError(
                f"the model also trains {', '.join(list(outside)[:3])} ({len(outside)} tensors "
                "outside the pairs); say how, for example others={'rule': 'adamw', 'lr': 1e-3}, "
                "or freeze them"
            )
        return groups
    if others is not None:
        raise ValueError("others goes with a model; got groups or pairs; add a group with 'params'")
    items = list(given)
    if all(isinstance(item, Pair) for item in items):
        return [_of_pairs({"pairs": items})]
    return [_of_pairs(group, adapter_name) if "pairs" in group else dict(group) for group in items]


def _of_pairs(group: Group, adapter_name: str = "default") -> dict[str, Any]:
    pairs = group["pairs"]
    pairs = lora_pairs(pairs, adapter_name) if isinstance(pairs, nn.Module) else list(pairs)
    rest = {key: value for key, value in group.items() if key != "pairs"}
    flat = [p for pair in pairs for p in (pair.down, pair.up)]
    return {"params": flat, "scales": [pair.scale for pair in pairs], **rest}


def _with_defaults(group: Group, rule: str, lr: float, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """A group that says everything, refused where its rule does not know a hyper-parameter."""
    name = group.get("rule", rule)
    own = {key: value for key, value in group.items() if key not in RESERVED}
    _accepted(name, own)
    inherited = dict(hyper) if name == rule else {}
    whole = {"lr": lr, **group, "rule": name, **inherited, **own}
    if "scales" not in group and _make(whole, 1.0).pair:
        raise ValueError(
            f"rule {name!r} needs pairs (A, B); got other parameters; give them 'rule': 'adamw', "
            "'momentum' or 'gd'"
        )
    validate.number("lr", whole["lr"])
    return whole


def _accepted(rule: str, hyper: Iterable[str]) -> None:
    validate.choice("rule", rule, RULES)
    for name in hyper:
        validate.choice(f"hyper-parameter of {rule!r}", name, sorted(_known(rule) - {"scale"}))


@functools.cache
def _known(rule: str) -> frozenset[str]:
    """Hyper-parameters of a rule."""
    return frozenset(inspect.signature(RULES[rule]).parameters) - {"learning_rate"}


def _make(group: Group, scale: float | None) -> Rule:
    known = _known(group["rule"])  # schedulers add keys of their own to a group
    hyper = {key: value for key, value in group.items() if key in known}
    if "scale" in known and scale is not None:
        hyper["scale"] = scale
    return RULES[group["rule"]](group["lr"], **hyper)


def _units(group: Group) -> list[tuple[list[Tensor], float | None]]:
    """What a rule is applied to at once: the pairs, or each tensor alone."""
    params = group["params"]
    if "scales" not in group:
        return [([p], None) for p in params]
    return [([params[2 * i], params[2 * i + 1]], s) for i, s in enumerate(group["scales"])]


def _working(tensor: Tensor) -> Tensor:
    """The tensor as rules take it: transposed matrices, at least float32, at least one row."""
    tensor = tensor.detach()
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    return wide.mT if wide.ndim == 2 else wide.reshape(-1, 1)


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(_working(tensor)) if tensor.grad is None else _working(tensor.grad)


def _stacked(leaf: tuple[Any, ...]) -> Any:
    """The same leaf of several units; numbers are equal in all of them."""
    return torch.stack(leaf) if isinstance(leaf[0], Tensor) else leaf[0]


def _leaves(state: Any) -> Iterable[Any]:
    """The tensors and numbers of a rule's state, which is made of tuples."""
    if isinstance(state, tuple):
        for item in state:
            yield from _leaves(item)
    elif state is not None:
        yield state


def _filled(template: Any, leaves: Any) -> Any:
    """The state of the form of `template` with these leaves."""
    if isinstance(template, tuple):
        items = [_filled(item, leaves) for item in template]
        return type(template)(*items) if hasattr(template, "_fields") else tuple(items)
    return template if template is None else cast(Any, next(leaves))
