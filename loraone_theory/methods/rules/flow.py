"""Gradient flow: the limit of gradient descent for small steps, integrated between the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # loads its parts when they are first used
import torch
from torch import Tensor

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import Rule, check_rates, checked, no_update

FLOW = "no rate per step: a flow contracts by exp(-eta mu) in a step, whatever the rule's weights"
# Below this scipy's own rounding decides.
TIGHTEST = 1e-13


def flow(learning_rate: Scalar, rtol: float = 1e-10) -> Rule:
    """dP/dτ = −∇_P for every tensor P, from τ = ηt to η(t + 1) in each step: time is η × steps.

    Integrated by DOP853 with tolerance `rtol` relative and rtol/1000 absolute, in one system for
    all runs with the tolerance over √runs, so that it holds for each; each alone in a step where
    that fails. In float32, whose gradients carry rounding, both tolerances are 100 eps. The state
    is the integrator's own step, in units of η, 0 before the first. A run that cannot be integrated
    ends as NaN.

    Reference: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.10.
    """
    check_rates("flow", learning_rate)
    checked("flow", "rtol", rtol, least=TIGHTEST, below=1.0, remedy="1e-10 is usual")

    def advance(
        params: Params, gradients: Callable[[Params], Params], state: Tensor
    ) -> tuple[Params, Tensor]:
        batch = torch.broadcast_shapes(*(P.shape[:-2] for P in params))
        params = tuple(P.expand(*batch, *P.shape[-2:]) for P in params)
        single = params[0].dtype == torch.float32
        tight = 100 * torch.finfo(params[0].dtype).eps
        tight = tight if single else max(rtol / batch.numel() ** 0.5, TIGHTEST)

        def slope(P: Params) -> Params:
            return tuple(-learning_rate * G for G in gradients(P))

        first = slope(params)
        alive = _finite(params, batch) & _finite(first, batch)
        system = _System(slope, params, alive, tight, tight if single else tight / 1000)
        end, own = system.integrated(float(state))
        if end is None:
            end, own = _one_by_one(system), 0.0
        return end, torch.tensor(own, dtype=torch.float64)

    return Rule(
        lambda params: torch.zeros((), dtype=torch.float64),
        no_update("flow"),
        equivariant=True,
        no_rate=FLOW,
        advance=advance,
        flow=True,
    )


class _System(NamedTuple):
    """The runs that are integrated together; the others stay at 0 meanwhile and end as NaN."""

    slope: Callable[[Params], Params]
    start: Params  # (*batch, ...)
    alive: Tensor  # (*batch)
    rtol: float
    atol: float

    def integrated(self, own_step: float) -> tuple[Params | None, float]:
        """P(1) from P(0) = start, None where that fails, and the step to go on with."""

        def slope(_: float, y: np.ndarray) -> np.ndarray:
            return _flat(self._held(self.slope(self._tensors(y)), 0.0))

        start = _flat(self._held(self.start, 0.0))
        with np.errstate(over="ignore", invalid="ignore"):
            solver = scipy.integrate.DOP853(
                slope, 0.0, start, 1.0, first_step=own_step or None, rtol=self.rtol, atol=self.atol
            )
            proposed = own_step
            while solver.status == "running":
                before = solver.t
                solver.step()
                if solver.t < 1.0 or before == 0.0:  # the last piece is cut to end at 1
                    proposed = min(solver.h_abs, 1.0)
        if solver.status == "failed":
            return None, 0.0
        return self._held(self._tensors(solver.y), math.nan), proposed

    def _held(self, tensors: Params, others: float) -> Params:
        alive = self.alive[..., None, None]
        return tuple(torch.where(alive, T, others) for T in tensors)

    def _tensors(self, y: np.ndarray) -> Params:
        parts = torch.from_numpy(y).to(self.start[0]).split([P.numel() for P in self.start])
        return tuple(part.reshape(P.shape) for part, P in zip(parts, self.start, strict=True))


def _one_by_one(system: _System) -> Params:
    """Each run alone, so that one that fails takes no other with it."""
    ends = tuple(torch.full_like(P, math.nan) for P in system.start)
    for index in system.alive.nonzero():
        chosen = torch.zeros_like(system.alive)
        chosen[tuple(index)] = True
        found, _ = system._replace(alive=chosen).integrated(0.0)
        if found is not None:
            mask = chosen[..., None, None]
            ends = tuple(torch.where(mask, new, old) for new, old in zip(found, ends, strict=True))
    return ends


def _finite(tensors: Params, batch: torch.Size) -> Tensor:
    """Which runs are finite."""
    found = [torch.isfinite(T).all(-1).all(-1).expand(batch) for T in tensors]
    return torch.stack(found).all(0)


def _flat(tensors: Params) -> np.ndarray:
    flat = torch.cat([T.reshape(-1) for T in tensors])
    return flat.cpu().double().numpy()
