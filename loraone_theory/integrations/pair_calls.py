"""What `PairOptimizer` advances at once: units of one kind with their gradients and state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loraone_theory.integrations import pair_groups, pair_state, sharded
from loraone_theory.integrations.pair_groups import Unit
from loraone_theory.methods.rules import Rule


def ordered(state: Mapping[Tensor, dict[str, Any]], unit: Unit) -> list[Any]:
    """The rule's state of a unit, in order; empty before its first step.

    Each part is kept with the parameter that it has the shape of.
    """
    found: dict[str, Any] = {}
    for p in unit.tensors:
        found |= state.get(p, {})
    return [found[key] for key in sorted(found, key=int)]


def refuse_unusable(gradients: list[Tensor]) -> None:
    """Refuse gradients that are sparse or not finite, those of each device by one look."""
    sparse = sum(gradient.layout != torch.strided for gradient in gradients)
    if sparse:
        raise ValueError(
            f"gradients must be dense; got sparse ones in {sparse} of {len(gradients)} tensors; "
            "nothing was changed; make the embedding with sparse=False"
        )
    places: dict[torch.device, list[Tensor]] = {}
    for gradient in gradients:
        places.setdefault(gradient.device, []).append(gradient)
    norms = [torch.stack(torch._foreach_norm(there)) for there in places.values()]
    if not all(bool(torch.isfinite(there).all()) for there in norms):
        bad = sum(not bool(torch.isfinite(gradient).all()) for gradient in gradients)
        if bad:
            raise ValueError(
                f"gradients must be finite; got NaN or infinite ones in {bad} of {len(gradients)} "
                "tensors; nothing was changed; lower the learning rate, or skip this step"
            )


class Task(NamedTuple):
    """A unit with the gradients of its tensors, None where one stays, and the rule's state."""

    unit: Unit
    gradients: tuple[Tensor | None, ...]
    state: list[Any]

    @property
    def moves(self) -> tuple[bool, ...]:
        """Which tensors have a gradient."""
        return tuple(gradient is not None for gradient in self.gradients)

    @property
    def filled(self) -> list[Tensor]:
        """The gradients, zero where there is none."""
        both = zip(self.unit.tensors, self.gradients, strict=True)
        return [sharded.whole(torch.zeros_like(p)) if g is None else g for p, g in both]

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for units that one batched call can advance: shapes, scale, what moves, steps."""
        numbers = [x for x in self.state if not isinstance(x, Tensor)]
        of = [x for p in self.unit.tensors for x in (p.shape, p.dtype, p.device)]
        return (*of, self.unit.scale, self.unit.experts, self.moves, len(self.state), *numbers)


class Call(NamedTuple):
    """What one batched call advances: units of one kind, by one rule, with their state before."""

    tasks: Sequence[Task]
    rule: Rule
    form: Any = None
    before: Sequence[Any] = ()

    def checked(self) -> Call:
        """With the state stacked, in the dtype and on the device that the units have now.

        Raises:
            ValueError: the state is of another form.
        """
        if not self.tasks[0].state:
            return self
        unit = self.tasks[0].unit
        form = form_of(unit, self.rule, len(self.tasks))
        before = pair_state.together([task.state for task in self.tasks])
        if not pair_state.fits(before, form):
            raise ValueError(
                "a group's settings must keep the state that it has; got another rule, or other "
                "of its settings that change what it keeps; nothing was changed; build another "
                "optimiser for them"
            )
        before = pair_state.brought(before, form, unit.tensors[0].device)
        return Call(self.tasks, self.rule, form, before)


def partly(rule: Rule, moves: tuple[bool, ...]) -> Rule:
    """The rule where only these tensors move."""
    return rule if rule.partly is None or all(moves) else rule.partly(moves)


def form_of(unit: Unit, rule: Rule, *count: int) -> Any:
    """The state that a rule has of one unit, or of a stack of so many, on no device."""
    held = [
        torch.empty((*count, *p.shape), dtype=_wide(p.dtype), device="meta") for p in unit.tensors
    ]
    return rule.init(pair_groups.as_ours(unit, held))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What rules compute in."""
    return dtype if dtype == torch.float64 else torch.float32


def alike(tasks: Sequence[Task]) -> Iterable[list[Task]]:
    """Those of one kind together."""
    found: dict[tuple[Any, ...], list[Task]] = {}
    for task in tasks:
        found.setdefault(task.kind, []).append(task)
    return found.values()


def stacked(unit: Unit, columns: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Tensors of units like `unit` as rules take them, in float32 at least; always copies."""
    stacks = [
        torch.stack([sharded.whole(t) for t in column]) for column in zip(*columns, strict=True)
    ]
    wide = [t.to(_wide(p.dtype)) for t, p in zip(stacks, unit.tensors, strict=True)]
    return pair_groups.as_ours(unit, wide)
