"""A small fitting problem on which rules are tried."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from loraone_theory.core.factors import Factors, Params
from loraone_theory.methods.parametrisations import Parametrisation
from loraone_theory.methods.rules import Rule
from loraone_theory.testing.base import RANK, D, K, draw

STEPS, RUNS = 12, 6


class Stage(NamedTuple):
    """Gradients of ½⟨E, CE⟩ with E = (learned shift) − T, for a batch of runs."""

    form: Parametrisation
    covariance: Tensor
    target: Tensor

    def gradients(self, params: Params) -> Params:
        """Those of the trainable tensors."""
        A, B = self.form.shift(params, ())
        M = self.covariance @ (A @ B - self.target)
        return tuple(self.form.pullback(params, (), Factors(M @ B.mT, A.mT @ M)))


def params_of(form: Parametrisation, dtype: torch.dtype = torch.float64) -> Params:
    """Gaussian trainable tensors (runs, ·, ·)."""
    shapes = {"AB": [(D, RANK), (RANK, K)], "full": [(D, K)]}.get(
        form.name, [(D, RANK), (1, RANK), (RANK, K)]
    )
    return tuple(draw(i, RUNS, *shape, dtype=dtype) for i, shape in enumerate(shapes))


def stage_of(form: Parametrisation, dtype: torch.dtype = torch.float64) -> Stage:
    """Sampled inputs, and a target for each run."""
    X = draw(7, 8 * D, D, dtype=dtype)
    return Stage(form, X.mT @ X / len(X), draw(8, RUNS, D, K, dtype=dtype))


def path(rule: Rule, stage: Stage, params: Params, steps: int = STEPS) -> Params:
    """The trainable tensors after `steps` steps of the rule."""
    state = rule.init(params)
    for _ in range(steps):
        params, state = advanced(rule, stage, params, state)
    return params


def advanced(rule: Rule, stage: Stage, params: Params, state: Any) -> tuple[Params, Any]:
    """One step of the rule."""
    if rule.advance is not None:
        return rule.advance(params, stage.gradients, state)
    return rule.update(params, stage.gradients(params), state)
