"""A torch optimiser that trains PEFT's A/B pairs with the update rules of this library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loraone_theory.core import validate
from loraone_theory.integrations import pair_groups, pair_state, sharded
from loraone_theory.integrations.pair_groups import Group, Unit
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
        pair_groups.say_what_is_held(groups)
        defaults = pair_groups.for_schedulers(groups)
        super().__init__(groups, {"lr": validate.number("lr", lr), **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each group's rule; tensors without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {
            p: sharded.whole(p.grad)
            for group in self.param_groups
            for p in group["params"]
            if p.requires_grad and p.grad is not None
        }
        _finite(list(gradients.values()))
        for group in self.param_groups:
            for units in self._alike(group, gradients):
                self._advance(units, gradients, pair_groups.make(group, units[0].scale))
        return loss

    def _alike(self, group: Group, gradients: Mapping[Tensor, Tensor]) -> Iterable[list[Unit]]:
        """Units that one batched call can advance: of one shape, scale and step number."""
        found: dict[tuple[Any, ...], list[Unit]] = {}
        for unit in pair_groups.units(group):
            if any(p in gradients for p in unit.tensors):
                kind = tuple((p.shape, p.dtype, p.device) for p in unit.tensors)
                held = self._held(unit)
                numbers = [x for x in held if not isinstance(x, Tensor)]
                key = (kind, unit.scale, unit.experts, len(held), *numbers)
                found.setdefault(key, []).append(unit)
        return found.values()

    def _advance(
        self, units: Sequence[Unit], gradients: Mapping[Tensor, Tensor], rule: Rule
    ) -> None:
        params = _stacked([_wide(unit, unit.tensors) for unit in units])
        steps = _stacked(
            [
                _wide(
                    unit,
                    [gradients[p] if p in gradients else torch.zeros_like(p) for p in unit.tensors],
                )
                for unit in units
            ]
        )
        held = [self._held(unit) for unit in units]
        if held[0]:
            form = rule.init(tuple(P.to("meta") for P in params))
            state = pair_state.filled(form, iter(pair_state.together(held)))
        else:
            state = rule.init(params)
        new, state = rule.update(params, steps, state)
        leaves = list(pair_state.leaves(state))
        owners = pair_state.owners([P.shape for P in params], leaves)
        keys = [str(key) for key in range(len(leaves))]
        each = [x.unbind() if isinstance(x, Tensor) else [x] * len(units) for x in leaves]
        tensors, values = [], []
        for i, (unit, *own_new) in enumerate(zip(units, *(P.unbind() for P in new), strict=True)):
            states: list[dict[str, Any]] = [{} for _ in unit.tensors]
            for key, owner, parts in zip(keys, owners, each, strict=True):
                states[owner][key] = parts[i]
            theirs = pair_groups.as_theirs(unit, own_new)
            for p, value, own in zip(unit.tensors, theirs, states, strict=True):
                self.state[p] = own
                if p in gradients:
                    tensors.append(p)
                    values.append(value)
        sharded.write_(tensors, values)

    def _held(self, unit: Unit) -> list[Any]:
        """The rule's state of a unit, in order; empty before its first step.

        Each part is kept with the parameter that it has the shape of.
        """
        found: dict[str, Any] = {}
        for p in unit.tensors:
            found |= self.state.get(p, {})
        return [found[key] for key in sorted(found, key=int)]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does it, but the rules' state keeps its own dtypes.

        Raises:
            ValueError: groups that do not fit.
        """
        validate.instance("state_dict", state_dict, dict, "give what state_dict() returned")
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(saved, params, strict=True):
            held = state_dict["state"].get(index, {})
            if "leaves" in held:  # as earlier versions wrote it
                held = {str(key): leaf for key, leaf in enumerate(held["leaves"])}
            self.state[p] = {
                key: leaf.to(p.device) if isinstance(leaf, Tensor) else leaf
                for key, leaf in held.items()
            }


def _finite(gradients: list[Tensor]) -> None:
    if gradients and not bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all()):
        bad = sum(not bool(torch.isfinite(gradient).all()) for gradient in gradients)
        if bad:
            raise ValueError(
                f"gradients must be finite; got NaN or infinite ones in {bad} of {len(gradients)} "
                "tensors; nothing was changed; lower the learning rate, or skip this step"
            )


def _wide(unit: Unit, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """As rules take them, in float32 at least."""
    plain = [sharded.whole(t) for t in tensors]
    return pair_groups.as_ours(unit, [t if t.dtype == torch.float64 else t.float() for t in plain])


def _stacked(units: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """In the parameters' own layout, so that nothing is transposed in memory."""
    return tuple(torch.stack([t.mT for t in column]).mT for column in zip(*units, strict=True))
