"""Alignment of LoRA factors with the one-step gradient, recorded while a real model trains."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from loraone_theory import plotting
from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import SVD, SVDOptions
from loraone_theory.integrations.given import Given, check, leading
from loraone_theory.integrations.peft_find import aligned, named_inside, unwrapped
from loraone_theory.integrations.peft_layers import Pair, lora_pairs

SIDES = ("left", "right")


def layer_class(name: str) -> str:
    """What a module is, whichever block it is in: its name after the last number.

    >>> layer_class("vit.encoder.layer.3.attention.output.dense")
    'attention.output.dense'
    """
    validate.instance("name", name, str)
    return re.split(r"(?:^|\.)\d+\.", name)[-1]


# From a mean sine below this on, the plot's axis is logarithmic.
SMALL = 0.05
# A layer -> (A (d, r), B (r, k)) of its pair, or None where it has none.
PairOf = Callable[[nn.Module], "tuple[Tensor, Tensor] | None"]


class Watched(NamedTuple):
    """One pair, read anew at each record.

    Args:
        name: of its module.
        source: the name of its gradient.
        shape: of that, with those of all experts.
        factors: () -> A (d, r), B (r, k).
        transposed: the gradient is stored as (d, k) and not as (k, d).
        expert: which expert.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    factors: Callable[[], Factors]
    transposed: bool = False
    expert: int | None = None


class _Stack(NamedTuple):
    """Pairs of one shape, measured in one batched call."""

    pairs: list[Watched]
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
        pair: for LoRA layers that are not PEFT's: module -> (A (d, r), B (r, k)), or None for
            modules that have no pair. Gradients are (k, d) there, as in nn.Linear.
        all_angles: record all p principal angles too, in radians, the largest first.

    Raises:
        ValueError: an unknown adapter; no gradient for any of its modules, or one that is zero, not
            finite or of another shape; a rank above that of a module.

    Reference: the alignments of Theorems 3.1 and 3.2, on real layers.
    """

    def __init__(
        self,
        model: nn.Module,
        gradients: Mapping[str, Given],
        *,
        adapter_name: str = "default",
        rank: int | None = None,
        every: int = 1,
        classes: Callable[[str], str] = layer_class,
        svd: SVDOptions = linalg.EXACT,
        pair: PairOf | None = None,
        all_angles: bool = False,
    ) -> None:
        self.every = validate.integer("every", every, least=1)
        self.all_angles = validate.flag("all_angles", all_angles)
        validate.instance("svd", svd, SVDOptions)
        validate.function("classes", classes)
        if pair is not None:
            validate.function("pair", pair)
        watched = _of_peft(model, adapter_name) if pair is None else _of_its_own(model, pair)
        gradients = aligned(gradients, [each.source for each in watched])
        chosen = [w for w in watched if w.source in gradients] or watched
        check(gradients, {each.source: each.shape for each in chosen})
        self.classes = {each.name: classes(each.name) for each in chosen}
        self.records: list[dict[str, Any]] = []
        self._steps = 0
        shapes: dict[tuple[Any, ...], list[tuple[Watched, SVD]]] = {}
        for each in chosen:
            A, B = each.factors()
            r = A.shape[-1]
            p = min(r, len(A), B.shape[-1]) if rank is None else _rank(rank, r, each.name)
            where = {"transposed": each.transposed, "expert": each.expert, "device": A.device}
            found, _ = leading(gradients[each.source], p, svd, **where)  # type: ignore[arg-type]
            shapes.setdefault((A.shape, B.shape, p, A.device), []).append((each, found))
        self._stacks = [_stack(group) for group in shapes.values()]

    def step(self, step: int | None = None) -> None:
        """Count one step of training and record where it is a multiple of `every`.

        Args:
            step: its number; by default one more than at the last call, from 0, so call it once
                before training and once after each step.
        """
        if step is not None:
            self._steps = validate.integer("step", step, least=0)
        if self._steps % self.every == 0:
            self.record(self._steps)
        self._steps += 1

    @torch.no_grad()
    def record(self, step: int) -> None:
        """Measure now; appended to `records` under this step."""
        for stack in self._stacks:
            A, B = zip(*(each.factors() for each in stack.pairs), strict=True)
            sides = (torch.stack(A).to(stack.U), torch.stack(B).to(stack.V).mT)
            both = zip(sides, (stack.U, stack.V), strict=True)
            found = [_measured(M, reference, self.all_angles) for M, reference in both]
            for i, each in enumerate(stack.pairs):
                entry = {"step": step, "module": each.name, "class": self.classes[each.name]}
                for side, (sines, angles) in zip(SIDES, found, strict=True):
                    entry[side] = sines[i]
                    if self.all_angles:
                        entry[f"{side}_angles"] = angles[i]
                self.records.append(entry)

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
        """Mean sines by class against steps, for `plotting.save`; ValueError without a record."""
        curves = self.curves(side)
        if not curves:
            raise ValueError("there must be a record to plot; got none yet; call step() first")
        with plotting.style():
            figure, axes = plotting.figure(height=3.0)
            ax = axes[0, 0]
            for colour, (kind, curve) in zip(
                plotting.sequence(len(curves)), curves.items(), strict=True
            ):
                ax.plot(curve[:, 0], curve[:, 1], color=colour, label=kind)
            ax.set(xlabel="step $t$", ylabel=f"largest sine, {side}")
            shown = np.concatenate([curve[:, 1] for curve in curves.values()])
            positive = shown[shown > 0]  # NaN is not
            if positive.size and positive.min() < SMALL:
                ax.set(yscale="log", ylim=(positive.min() / 2, 2))
            else:
                ax.set(ylim=(0, 1.05))
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


def _of_peft(model: nn.Module, adapter_name: str) -> list[Watched]:
    return [
        Watched(
            pair.name,
            pair.source,
            pair.base_shape if pair.expert is None else (pair.experts, *pair.base_shape),
            functools.partial(_factors, pair),
            pair.transposed,
            pair.expert,
        )
        for pair in lora_pairs(model, adapter_name)
    ]


def _factors(pair: Pair) -> Factors:
    return pair.current().factors


def _of_its_own(model: nn.Module, pair: PairOf) -> list[Watched]:
    """The modules that `pair` finds a pair in.

    Raises:
        ValueError: none, or one that is no pair of matrices.
    """
    found = []
    for _, name, module in named_inside(unwrapped(model)):
        factors = pair(module)
        if factors is None:
            continue
        A, B = factors
        if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[0]:
            raise ValueError(
                "pair must return A (d, r) and B (r, k), or None; got shapes "
                f"{tuple(A.shape)} and {tuple(B.shape)} for {name}"
            )
        read = functools.partial(_read, pair, module)
        found.append(Watched(name, name, (B.shape[1], A.shape[0]), read))
    if not found:
        raise ValueError("pair must find a pair in some module of the model; it found none")
    return found


def _read(pair: PairOf, module: nn.Module) -> Factors:
    A, B = cast("tuple[Tensor, Tensor]", pair(module))
    return Factors(A.detach(), B.detach())


def _stack(group: list[tuple[Watched, SVD]]) -> _Stack:
    U, V = (torch.stack([getattr(found, name) for _, found in group]).float() for name in "UV")
    return _Stack([each for each, _ in group], U, V)


def _measured(M: Tensor, reference: Tensor, angles: bool) -> tuple[list[float], list[list[float]]]:
    """Largest sine of each of the stack, and all its angles where asked for."""
    frame, defined = linalg.left_frame(M, reference.shape[-1])
    sines = torch.where(defined, linalg.largest_sine(reference, frame), torch.nan).tolist()
    if not angles:
        return sines, []
    every = linalg.principal_angles(reference, frame)
    return sines, torch.where(defined[..., None], every, torch.nan).tolist()


def _rank(given: Any, r: int, name: str) -> int:
    value = validate.integer("rank", given, least=1)
    if value > r:
        raise ValueError(
            f"rank must satisfy 1 <= rank <= r in every module; got rank={value} with r={r} in "
            f"{name}; lower rank, or leave it out for each module's own"
        )
    return value
