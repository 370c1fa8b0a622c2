"""A torch optimiser that trains PEFT's A/B pairs with the update rules of this library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loraone_theory.core import validate
from loraone_theory.integrations import pair_groups, pair_rules, pair_state, sharded
from loraone_theory.integrations.pair_calls import (
    Call,
    Task,
    alike,
    form_of,
    ordered,
    partly,
    refuse_unusable,
    stacked,
)
from loraone_theory.integrations.pair_rules import Group
from loraone_theory.integrations.peft_layers import Pair


class PairOptimizer(Optimizer):
    """Any rule of `RULES` on pairs A = lora_A.weightᵀ, B = lora_B.weightᵀ, in place.

    Learning rate and hyper-parameters are read from `param_groups` at every step, so schedulers
    and hand edits take effect. The rules compute in float32 at least, whatever the parameters'
    dtype; adapters in bfloat16 lose steps smaller than their rounding, as with any optimiser.
    Frozen tensors, and those without a gradient, stay as they are under every rule; moments of one
    whose partner moves go on as with a gradient of zero.

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
            train at all. In `step`, before anything is changed, a gradient that is not finite; a
            group whose settings were edited to ones that are refused here, or that keep another
            state than it has.
    """

    # Whether groups come with everything in them, as they do while it is built.
    _complete = False
    # Which adapter, where a model is given.
    _adapter = "default"

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
        pair_rules.accepted(rule, hyper)
        given = pair_groups.groups(pairs, adapter_name, others)
        groups = [pair_groups.with_defaults(group, rule, lr, hyper) for group in given]
        if not any(p.requires_grad for group in groups for p in group["params"]):
            raise ValueError("there must be something to train; got no pair and no parameter")
        pair_groups.say_what_is_held(groups)
        self._adapter = adapter_name
        defaults = {"lr": validate.number("lr", lr), "rule": rule}
        self._complete = True
        super().__init__(groups, defaults | pair_rules.for_schedulers(groups))
        self._complete = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """One more group, with "pairs" or "params".

        What it does not say is taken from the first group of its rule, which by default is that of
        the optimiser; its learning rate from the optimiser.

        Raises:
            ValueError: as for the groups that it is built with.
        """
        if not self._complete:
            validate.instance("param_group", param_group, dict, "give a dict with 'params'")
            param_group = pair_groups.joining(
                param_group, self.defaults, self.param_groups, self._adapter
            )
        super().add_param_group(param_group)
        for name in ("betas", "momentum"):
            if pair_rules.goes_without(name, self.param_groups):
                self.defaults.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_adapter": self._adapter}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each group's rule; tensors without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, self._work(group)) for group in self.param_groups]
        every = (g for _, tasks in work for task in tasks for g in task.gradients)
        refuse_unusable([g for g in every if g is not None])
        ready = [
            Call(kind, partly(pair_rules.make(group, kind[0].unit.scale), kind[0].moves))
            for group, tasks in work
            for kind in alike(tasks)
        ]
        for call in [call.checked() for call in ready]:
            self._advance(call)
        return loss

    def _work(self, group: Group) -> list[Task]:
        """The units of a group that have a gradient, with it and their state."""
        found = []
        for unit in pair_groups.units(group):
            gradients = tuple(
                sharded.whole(p.grad) if p.requires_grad and p.grad is not None else None
                for p in unit.tensors
            )
            if any(gradient is not None for gradient in gradients):
                found.append(Task(unit, gradients, ordered(self.state, unit)))
        return found

    def _advance(self, call: Call) -> None:
        """One batched call for units of one kind; tensors that move are written at its end."""
        tasks, rule = call.tasks, call.rule
        unit = tasks[0].unit
        params = stacked(unit, [task.unit.tensors for task in tasks])
        gradients = stacked(unit, [task.filled for task in tasks])
        before = call.before
        state = pair_state.filled(call.form, iter(before)) if before else rule.init(params)
        # The stacks are copies of our own, and so is the state.
        new, state = (rule.in_place or rule.update)(params, gradients, state)
        self._keep(tasks, [P.shape for P in params], list(pair_state.leaves(state)), before)
        tensors, values = [], []
        for i, column in enumerate(pair_groups.as_theirs(unit, new)):
            for task, value in zip(tasks, column.unbind(), strict=True):
                if task.gradients[i] is not None:
                    tensors.append(task.unit.tensors[i])
                    values.append(value)
        sharded.write_(tensors, values)

    def _keep(
        self,
        tasks: Sequence[Task],
        shapes: Sequence[tuple[int, ...]],
        leaves: Sequence[Any],
        before: Sequence[Any],
    ) -> None:
        """Each leaf of the state with the parameter that it has the shape of, unit by unit."""
        if not before:
            self.state.update({p: {} for task in tasks for p in task.unit.tensors})
        for key, owner in enumerate(pair_state.owners(shapes, leaves)):
            leaf = leaves[key]
            if before and pair_state.is_part(tasks[0].state[key], leaf):
                continue  # written in place: what is kept are its slices already
            parts = leaf.unbind() if isinstance(leaf, Tensor) else [leaf] * len(tasks)
            for task, part in zip(tasks, parts, strict=True):
                self.state[task.unit.tensors[owner]][str(key)] = part

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does it, but the rules' state keeps its own dtypes.

        Scales and numbers of experts stay those of the model.

        Raises:
            ValueError: groups that do not fit, that have other rules or settings that are refused
                elsewhere, or moments of other shapes. Nothing was changed then.
        """
        validate.instance("state_dict", state_dict, dict, "give what state_dict() returned")
        missing = {"state", "param_groups"} - state_dict.keys()
        if missing:
            raise ValueError(
                f"state_dict must have 'state' and 'param_groups'; got none of "
                f"{', '.join(sorted(missing))}; give what state_dict() returned"
            )
        pair_groups.same_rules(state_dict.get("param_groups"), self.param_groups)
        given = self._given(state_dict)
        own = [pair_groups.of_the_model(group) for group in self.param_groups]
        coming = [
            {**group, **facts, "params": held["params"]}
            for group, facts, held in zip(
                state_dict["param_groups"], own, self.param_groups, strict=True
            )
        ]
        if not self._fits(given, coming):
            raise ValueError(
                "state_dict must be of parameters of the same shapes; got moments of others; "
                "adapt the model as the one that was saved, with the same ranks"
            )
        super().load_state_dict(state_dict)
        for group, facts in zip(self.param_groups, own, strict=True):
            group.update(facts)
        for p, held in given.items():
            self.state[p] = {
                key: pair_state.own(leaf, p.device) if isinstance(leaf, Tensor) else leaf
                for key, leaf in held.items()
            }

    def _given(self, state_dict: dict[str, Any]) -> dict[Tensor, dict[str, Any]]:
        """The state in a checkpoint by parameter."""
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        given = {}
        for index, p in zip(saved, params, strict=False):  # torch refuses another number of them
            held = state_dict["state"].get(index, {})
            if "leaves" in held:  # as earlier versions wrote it
                held = {str(key): leaf for key, leaf in enumerate(held["leaves"])}
            given[p] = held
        return given

    @staticmethod
    def _fits(given: Mapping[Tensor, dict[str, Any]], groups: Sequence[Group]) -> bool:
        """The state in a checkpoint is of the form that its own settings have for these groups."""
        if not all(key.isdecimal() for held in given.values() for key in held):
            return False
        for group in groups:
            pair_rules.make(group, 1.0)
            for unit in pair_groups.units(group):
                held = ordered(given, unit)
                if held and not pair_state.fits(
                    held, form_of(unit, pair_rules.make(group, unit.scale))
                ):
                    return False
        return True
