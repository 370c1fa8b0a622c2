"""A torch optimiser that trains PEFT's A/B pairs with the update rules of this library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loraone_theory.core import validate
from loraone_theory.integrations import pair_groups
from loraone_theory.integrations.pair_groups import Group
from loraone_theory.integrations.peft_layers import Pair
from loraone_theory.methods.rules import Rule


class PairOptimizer(Optimizer):
    """Any rule of `RULES` on pairs A = lora_A.weightᵀ, B = lora_B.weightᵀ, in place.

    Learning rate and hyper-parameters are read from `param_groups` at every step, so schedulers
    and hand edits take effect. The rules compute in float32 at least, whatever the parameters'
    dtype; adapters in bfloat16 lose steps smaller than their rounding, as with any optimiser.
    Frozen tensors, and those without a gradient, stay as they are under every rule.

    Args:
        pairs: a PEFT model, whose pairs of `adapter_name` are trained; pairs from `lora_pairs`; or
            groups, dicts with "pairs" (of either kind) or "params" (other tensors, for rules that
            need no pair) and any of "rule", "lr" and hyper-parameters.
        rule: a name in `RULES`; what groups do not say is taken from here.
        lr: η > 0.
        adapter_name: which adapter, where a model is given.
        others: a group for the trainable parameters outside the pairs, such as a classifier head,
            DoRA's magnitudes or an embedding's adapter: for example {"rule": "adamw", "lr": 1e-3}.
        hyper: hyper-parameters of the rule, such as damping, ratio or weight_decay. LoRA-Pro's
            `scale` is each pair's own and is not given. Momentum's β is called `momentum` in
            `param_groups`, as torch's schedulers have it.

    Raises:
        ValueError: an unknown rule or hyper-parameter, or one that is missing; a rule for pairs on
            other tensors; trainable parameters of the model that nothing would train; nothing to
            train at all. In `step`, a gradient that is not finite, before anything is changed.
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
        pair_groups.accepted(rule, hyper)
        given = pair_groups.groups(pairs, adapter_name, others)
        groups = [pair_groups.with_defaults(group, rule, lr, hyper) for group in given]
        if not any(p.requires_grad for group in groups for p in group["params"]):
            raise ValueError("there must be something to train; got no pair and no parameter")
        defaults = pair_groups.for_schedulers(groups)
        super().__init__(groups, {"lr": validate.number("lr", lr), **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each group's rule; tensors without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._finite()
        for group in self.param_groups:
            for (_, scale, *_), units in self._alike(group).items():
                self._advance(units, pair_groups.make(group, scale))
        return loss

    def _finite(self) -> None:
        given = [p.grad for group in self.param_groups for p in group["params"] if _moves(p)]
        if given and not bool(torch.isfinite(torch.stack(torch._foreach_norm(given))).all()):
            bad = sum(not bool(torch.isfinite(gradient).all()) for gradient in given)
            raise ValueError(
                f"gradients must be finite; got NaN or infinite ones in {bad} of {len(given)} "
                "tensors; nothing was changed; lower the learning rate, or skip this step"
            )

    def _alike(self, group: Group) -> dict[tuple[Any, ...], list[list[Tensor]]]:
        """Units that one batched call can advance: of one shape, scale and step number."""
        found: dict[tuple[Any, ...], list[list[Tensor]]] = {}
        for tensors, scale in pair_groups.units(group):
            if not any(_moves(p) for p in tensors):
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
                if _moves(p):
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


def _moves(p: Tensor) -> bool:
    return p.requires_grad and p.grad is not None


def _working(tensor: Tensor) -> Tensor:
    """The tensor as rules take it: transposed matrices, at least float32, at least one row."""
    tensor = tensor.detach()
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    return wide.mT if wide.ndim == 2 else wide.reshape(-1, 1)


def _gradient(tensor: Tensor) -> Tensor:
    if not _moves(tensor):
        return torch.zeros_like(_working(tensor))
    return _working(cast(Tensor, tensor.grad))


def _stacked(leaf: tuple[Any, ...]) -> Any:
    """The same leaf of several units; numbers are equal in all of them."""
    return torch.stack(leaf) if isinstance(leaf[0], Tensor) else leaf[0]


def _leaves(state: Any) -> Iterator[Any]:
    """The tensors and numbers of a rule's state, which is made of tuples."""
    if isinstance(state, tuple):
        for item in state:
            yield from _leaves(item)
    elif state is not None:
        yield state


def _filled(template: Any, leaves: Iterator[Any]) -> Any:
    """The state of the form of `template` with these leaves."""
    if isinstance(template, tuple):
        items = [_filled(item, leaves) for item in template]
        return type(template)(*items) if hasattr(template, "_fields") else tuple(items)
    return template if template is None else next(leaves)
