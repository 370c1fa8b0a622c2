"""This library's methods on small networks: many nets at once, one per run of a batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, Params, Scalar
from loraone_theory.core.memory import refuse_beyond_memory
from loraone_theory.core.randomness import generator, normal, per_seed
from loraone_theory.methods import Method
from loraone_theory.methods.rules import Rule, adamw
from loraone_theory.nets.digits import Split
from loraone_theory.problems.linear.problem import LinearProblem

# The weights of the nets of a batch, layer by layer, each (..., d, k).
Weights = tuple[Tensor, ...]


def outputs(weights: Sequence[Tensor], X: Tensor) -> Tensor:
    """relu(… relu(XW₁) …)W_L, shape (..., n, classes)."""
    hidden = X
    for W in weights[:-1]:
        hidden = torch.relu(hidden @ W)
    return hidden @ weights[-1]


def losses(weights: Sequence[Tensor], X: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each net, shape (...)."""
    logits = outputs(weights, X)
    chosen = torch.take_along_dim(logits, labels.expand(logits.shape[:-1])[..., None], -1)
    return (logits.logsumexp(-1) - chosen[..., 0]).mean(-1)


def accuracies(weights: Sequence[Tensor], X: Tensor, labels: Tensor) -> Tensor:
    """Share of rows that each net labels rightly, shape (...)."""
    return (outputs(weights, X).argmax(-1) == labels).to(X.dtype).mean(-1)


def gradients(weights: Sequence[Tensor], X: Tensor, labels: Tensor) -> tuple[Weights, Tensor]:
    """∇_W of each net's own loss for every layer, and the losses (...)."""
    leaves = [W.detach().requires_grad_() for W in weights]
    with torch.enable_grad():
        loss = losses(leaves, X, labels)
        found = torch.autograd.grad(loss.sum(), leaves)
    return found, loss.detach()


def pretrained(
    data: Split,
    widths: Sequence[int],
    *,
    steps: int,
    seeds: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    learning_rate: float = 2e-3,
    batch: int = 64,
) -> Weights:
    """Nets trained by AdamW from He's initialisation, each W of shape (seeds, d, k)."""
    like = torch.empty(0, dtype=dtype, device=device)
    weights = tuple(
        per_seed(partial(_he, d=d, k=k), seeds, f"net {i}", like)
        for i, (d, k) in enumerate(itertools.pairwise(widths))
    )
    rule = adamw(learning_rate)
    state, rng = rule.init(weights), generator(0, "pre-training batches")
    for _ in range(steps):
        X, labels = inputs(data.batch(batch, rng), like)
        weights, state = rule.update(weights, gradients(weights, X, labels)[0], state)
    return weights


def _he(rng: np.random.Generator, d: int, k: int) -> np.ndarray:
    return normal(rng, d, k) * math.sqrt(2 / d)


def inputs(data: Split, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and labels, of the dtype and on the device of `like`."""
    return data.flat.to(like), data.labels.to(like.device)


class Layer(NamedTuple):
    """One layer in training: W_eff = frozen + learned shift."""

    frozen_weight: Tensor
    trainable: Params
    frozen: Params
    state: Any


class History(NamedTuple):
    """What `Training.run` saw.

    Args:
        losses: after every step and at the start, (steps + 1, ...).
        factor_steps: the steps whose factors were kept.
        factors: of the learned shift W_eff − W_f of every layer in training, by its index,
            (times, ..., d, r) and (times, ..., r, k).
    """

    losses: Tensor
    factor_steps: tuple[int, ...]
    factors: dict[int, Factors]


class Training:
    """A method of `METHODS` on some layers of a net, for a batch of runs.

    Every layer's initialisation is that of the linear problem with isotropic inputs whose shift is
    the layer's negative gradient: its one-step gradient is the layer's.

    Args:
        method: which one; its scale is a number.
        weights: pre-trained W of every layer, (seeds, d, k).
        gradient: ∇_W of every layer to initialise from, of the same shapes.
        adapted: indices of the layers that are trained; the others stay.
        rank: r.
        learning_rate: a number, or (rates, 1, 1, 1) for a batch (rates, seeds) of runs.
        damping: λ of the rules that have inverses.
    """

    def __init__(
        self,
        method: Method,
        weights: Weights,
        gradient: Weights,
        adapted: Sequence[int],
        *,
        rank: int,
        learning_rate: Scalar,
        damping: float = 0.0,
    ) -> None:
        self.method = method
        self.rule: Rule = method.rule(learning_rate, damping)
        if self.rule.advance is not None:
            raise ValueError(
                f"{method.name!r} asks for gradients at points of its own, and a network gives one "
                "a step; use a rule without Rule.advance"
            )
        self.fixed = weights
        runs = torch.as_tensor(learning_rate).shape[:-3]
        self.layers: dict[int, Layer] = {}
        for i in adapted:
            trainable, frozen, offset = _start(method, weights[i], -gradient[i], rank)
            base = weights[i] if offset is None else weights[i] - offset.dense()
            trainable = tuple(t.expand(*runs, *t.shape).clone() for t in trainable)
            self.layers[i] = Layer(base, trainable, frozen, self.rule.init(trainable))

    @property
    def weights(self) -> Weights:
        """Effective weights of all layers."""
        shift = self.method.parametrisation.shift
        return tuple(
            self.layers[i].frozen_weight
            + shift(self.layers[i].trainable, self.layers[i].frozen).dense()
            if i in self.layers
            else W
            for i, W in enumerate(self.fixed)
        )

    def step(self, X: Tensor, labels: Tensor) -> Tensor:
        """One step of every layer from the same gradients; the losses (...) before it."""
        found, loss = gradients(self.weights, X, labels)
        form = self.method.parametrisation
        for i, layer in self.layers.items():
            A, B = form.shift(layer.trainable, layer.frozen)
            of_shift = Factors(found[i] @ B.mT, A.mT @ found[i])
            pulled = form.pullback(layer.trainable, layer.frozen, of_shift)
            new, state = self.rule.update(layer.trainable, pulled, layer.state)
            self.layers[i] = layer._replace(trainable=new, state=state)
        return loss

    def shifts(self) -> dict[int, Factors]:
        """Factors of the learned shift of every layer in training, by its index, for every run."""
        shift = self.method.parametrisation.shift
        found = {i: shift(layer.trainable, layer.frozen) for i, layer in self.layers.items()}
        return {i: Factors(*_together(*factors)) for i, factors in found.items()}

    def run(
        self, X: Tensor, labels: Tensor, steps: int, *, keep_factors: int | None = None
    ) -> History:
        """So many steps on all rows; the factors are kept once in `keep_factors` steps.

        Raises:
            ValueError: no such numbers, or factors that do not fit into memory.
        """
        validate.integer("steps", steps, least=0)
        times: Sequence[int] = ()
        if keep_factors is not None:
            validate.integer("keep_factors", keep_factors, least=1)
            times = range(0, steps + 1, keep_factors)
            refuse_beyond_memory(
                f"{len(times):,} times the factors of {len(self.layers)} layers",
                len(times) * sum(_bytes(tuple(shift)) for shift in self.shifts().values()),
                "keep them more rarely: raise keep_factors",
            )
        seen, kept = [], []
        for t in range(steps + 1):
            if t in times:
                kept.append({i: [M.clone() for M in f] for i, f in self.shifts().items()})
            seen.append(self.step(X, labels) if t < steps else losses(self.weights, X, labels))
        columns = {i: zip(*(one[i] for one in kept), strict=True) for i in self.layers if kept}
        factors = {i: Factors(*map(torch.stack, pair)) for i, pair in columns.items()}
        return History(torch.stack(seen), tuple(times), factors)

    def bytes_held(self) -> int:
        """Bytes of trainable tensors, their gradients and the rule's state, over all runs."""
        return sum(
            2 * _bytes(layer.trainable) + _bytes(layer.state) for layer in self.layers.values()
        )


def _start(
    method: Method, W: Tensor, G: Tensor, rank: int
) -> tuple[Params, Params, Factors | None]:
    """Trainable, frozen and offset of the runs, one seed each, stacked."""
    starts = [
        method.init(LinearProblem.population(shift=G[i], pretrained=W[i]), rank, (i,))
        for i in range(len(W))
    ]
    offsets = [start.offset for start in starts if start.offset is not None]
    return (
        _stacked([start.trainable for start in starts]),
        _stacked([start.frozen for start in starts]),
        Factors(*_stacked(offsets)) if offsets else None,
    )


def _stacked(starts: Sequence[Params]) -> Params:
    # Random initialisations have an axis for their one seed, the others have none.
    columns = zip(*starts, strict=True)
    return tuple(torch.stack([t.reshape(t.shape[-2:]) for t in column]) for column in columns)


def _together(*matrices: Tensor) -> tuple[Tensor, ...]:
    batch = torch.broadcast_shapes(*(M.shape[:-2] for M in matrices))
    return tuple(M.expand(*batch, *M.shape[-2:]) for M in matrices)


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(_bytes(item) for item in value) if isinstance(value, tuple) else 0
