"""Alignment of LoRA factors with the one-step gradient, recorded while a real model trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from loraone_theory import plotting
from loraone_theory.core import linalg, validate
from loraone_theory.core.linalg import SVDOptions
from loraone_theory.integrations.given import check
from loraone_theory.integrations.peft_find import aligned
from loraone_theory.integrations.peft_layers import Pair, lora_pairs

SIDES = ("left", "right")


def layer_class(name: str) -> str:
    """What a module is, whichever block it is in: its name after the last number.

    >>> layer_class("vit.encoder.layer.3.attention.output.dense")
    'attention.output.dense'
    """
    return re.split(r"(?:^|\.)\d+\.", name)[-1]


class _Stack(NamedTuple):
    """Pairs of one shape, measured in one batched call."""

    pairs: list[Pair]
    U: Tensor  # (m, d, p)
    V: Tensor  # (m, k, p)


class AlignmentTracker:
    """The sine of the largest principal angle between factors and gradient, module by module.

    Left: ‖U_{p,⊥}(G)ᵀ U_p(A_t)‖_op; right: ‖V_{p,⊥}(G)ᵀ V_p(B_t)‖_op, with G the one-step gradient.
    1 means that some direction is orthogonal to the gradient's, 0 that the subspaces are equal. NaN
    stands for an undefined subspace, such as that of B = 0 before the first step.

    A record takes a QR factorisation and products of d×p and k×p matrices, O((d + k)p²) operations
    per module: one part in (tokens of a batch)·min(d, k)/p² or so of a training step. It launches
    one batch of kernels for all modules of one shape, and reads the result back once per shape.

    Args:
        model: a PEFT model.
        gradients: ∇_W L by module name, as `get_lora_one_gradients` gives them; modules without one
            are left out.
        adapter_name: which adapter.
        rank: p; None: each module's own rank, at most min(d, k).
        every: `step` records once in so many steps.
        classes: module name -> class, by default the name after the last number in it.
        svd: how the gradients are decomposed, once.

    Raises:
        ValueError: an unknown adapter; no gradient for any of its modules, or one that is zero, not
            finite or of another shape; a rank above that of a module.

    Reference: the alignments of Theorems 3.1 and 3.2, on real layers.
    """

    def __init__(
        self,
        model: nn.Module,
        gradients: Mapping[str, Tensor],
        *,
        adapter_name: str = "default",
        rank: int | None = None,
        every: int = 1,
        classes: Callable[[str], str] = layer_class,
        svd: SVDOptions = linalg.EXACT,
    ) -> None:
        self.every = validate.integer("every", every, least=1)
        pairs = lora_pairs(model, adapter_name)
        gradients = aligned(gradients, [pair.source for pair in pairs])
        chosen = [pair for pair in pairs if pair.source in gradients] or pairs
        check(dict(gradients), {pair.name: pair.base_shape for pair in chosen})
        self.classes = {pair.name: classes(pair.name) for pair in chosen}
        self.records: list[dict[str, Any]] = []
        self._steps = 0
        shapes: dict[tuple[Any, ...], list[Pair]] = {}
        for pair in chosen:
            r = pair.down.shape[0]
            p = min(r, *pair.base_shape) if rank is None else _rank(rank, r, pair.name)
            key = (pair.down.shape, pair.up.shape, p, pair.down.device)
            shapes.setdefault(key, []).append(pair)
        self._stacks = [_stack(group, key[2], gradients, svd) for key, group in shapes.items()]

    def step(self, step: int | None = None) -> None:
        """Count one step of training and record where it is a multiple of `every`.

        Args:
            step: its number; by default one more than at the last call, from 0, so call it once
                before training and once after each step.
        """
        self._steps = self._steps if step is None else step
        if self._steps % self.every == 0:
            self.record(self._steps)
        self._steps += 1

    @torch.no_grad()
    def record(self, step: int) -> None:
        """Measure now; appended to `records` under this step."""
        for stack in self._stacks:
            A = torch.stack([pair.factors.A for pair in stack.pairs]).to(stack.U)
            B = torch.stack([pair.factors.B for pair in stack.pairs]).to(stack.V)
            both = torch.stack([_sine(A, stack.U), _sine(B.mT, stack.V)]).cpu().tolist()
            for pair, left, right in zip(stack.pairs, *both, strict=True):
                self.records.append(
                    {
                        "step": step,
                        "module": pair.name,
                        "class": self.classes[pair.name],
                        "left": left,
                        "right": right,
                    }
                )

    def summary(self) -> list[dict[str, Any]]:
        """Means over the modules of a class: one record per step and class, in order."""
        groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for record in self.records:
            groups.setdefault((record["step"], record["class"]), []).append(record)
        return [
            {
                "step": step,
                "class": kind,
                "modules": len(group),
                **{side: float(np.mean([record[side] for record in group])) for side in SIDES},
            }
            for (step, kind), group in groups.items()
        ]

    def curves(self, side: Literal["left", "right"] = "left") -> dict[str, np.ndarray]:
        """Class -> array (recorded steps, 2) of the step and the mean sine of one side."""
        validate.choice("side", side, SIDES)
        means = self.summary()
        kinds = dict.fromkeys(record["class"] for record in means)
        return {
            kind: np.array([(m["step"], m[side]) for m in means if m["class"] == kind])
            for kind in kinds
        }

    def plot(self, side: Literal["left", "right"] = "left") -> plotting.Figure:
        """The mean sine of each class against steps; save it with `plotting.save`."""
        curves = self.curves(side)
        with plotting.style():
            figure, axes = plotting.figure(height=3.0)
            ax = axes[0, 0]
            for colour, (kind, curve) in zip(
                plotting.sequence(len(curves)), curves.items(), strict=True
            ):
                ax.plot(curve[:, 0], curve[:, 1], color=colour, label=kind)
            ax.set(xlabel="step $t$", ylabel=f"largest sine, {side}", ylim=(0, 1.05))
            figure.legend(loc="outside lower center", ncols=3)
        return figure

    def callback(self) -> Any:
        """A `transformers.TrainerCallback` that records before training and after its steps."""
        from transformers import TrainerCallback

        tracker = self

        class Callback(TrainerCallback):
            """Calls the tracker with the trainer's own step numbers."""

            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                tracker.step(state.global_step)

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                tracker.step(state.global_step)

        return Callback()


def _stack(
    pairs: list[Pair], rank: int, gradients: Mapping[str, Tensor], svd: SVDOptions
) -> _Stack:
    like = pairs[0].down
    found = [
        linalg.truncated_svd(pair.as_ours(gradients[pair.name]).float(), rank, svd)
        for pair in pairs
    ]
    U, V = (torch.stack([getattr(f, name) for f in found]).to(like.device) for name in "UV")
    return _Stack(pairs, U, V)


def _rank(given: Any, r: int, name: str) -> int:
    value = validate.integer("rank", given, least=1)
    if value > r:
        raise ValueError(
            f"rank must satisfy 1 <= rank <= r in every module; got rank={value} with r={r} in "
            f"{name}; lower rank, or leave it out for each module's own"
        )
    return value


def _sine(M: Tensor, reference: Tensor) -> Tensor:
    frame, defined = linalg.left_frame(M, reference.shape[-1])
    return torch.where(defined, linalg.largest_sine(reference, frame), torch.nan)
