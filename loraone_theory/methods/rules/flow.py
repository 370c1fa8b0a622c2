"""Gradient flow: the limit of gradient descent for small steps, integrated between the steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import DOP853
from torch import Tensor

from loraone_theory.core.factors import Params, Scalar
from loraone_theory.methods.rules.base import Rule, check_rates, checked, no_update

FLOW = "no rate per step: a flow contracts by exp(-eta mu) in a step, whatever the rule's weights"
# Below this scipy's own rounding decides.
TIGHTEST = 1e-13


def flow(learning_rate: Scalar, rtol: float = 1e-10) -> Rule:
    """dP/dτ = −∇_P for every tensor P, from τ = ηt to η(t + 1) in each step: time is η × steps.

    Integrated by DOP853 with tolerance `rtol` relative and rtol/1000 absolute, in one system for
    all runs with the tolerance over √runs, so that it holds for each. In float32, whose gradients
    carry rounding, both tolerances are 100 eps. The state is the integrator's own step, in units
    of η, 0 before the first. A batch that cannot be integrated ends as NaN.

    Reference: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, II.10.
    """
    check_rates("flow", learning_rate)
    checked("flow", "rtol", rtol, least=TIGHTEST, below=1.0, remedy="1e-10 is usual")

    def advance(
        params: Params, gradients: Callable[[Params], Params], state: Tensor
    ) -> tuple[Params, Tensor]:
        like, sizes = params[0], [P.numel() for P in params]
        runs = math.prod(torch.broadcast_shapes(*(P.shape[:-2] for P in params)))
        single = like.dtype == torch.float32
        tight = 100 * torch.finfo(like.dtype).eps if single else max(rtol / runs**0.5, TIGHTEST)

        def tensors(y: np.ndarray) -> Params:
            parts = torch.from_numpy(y).to(like).split(sizes)
            return tuple(part.reshape(P.shape) for part, P in zip(parts, params, strict=True))

        def slope(_: float, y: np.ndarray) -> np.ndarray:
            return _flat([-learning_rate * G for G in gradients(tensors(y))])

        start = _flat(params)
        end, own = _integrated(slope, start, float(state), tight, tight if single else tight / 1000)
        return tensors(end), torch.tensor(own, dtype=torch.float64)

    return Rule(
        lambda params: torch.zeros((), dtype=torch.float64),
        no_update("flow"),
        equivariant=True,
        no_rate=FLOW,
        advance=advance,
        flow=True,
    )


def _integrated(
    slope: Callable[[float, np.ndarray], np.ndarray],
    start: np.ndarray,
    own_step: float,
    rtol: float,
    atol: float,
) -> tuple[np.ndarray, float]:
    """y(1) from y(0) = start, NaN where that fails, and the step to go on with."""
    if not np.isfinite(start).all():
        return start, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        solver = DOP853(slope, 0.0, start, 1.0, first_step=own_step or None, rtol=rtol, atol=atol)
        proposed = own_step
        while solver.status == "running":
            before = solver.t
            solver.step()
            if solver.t < 1.0 or before == 0.0:  # the last piece is cut to end at 1
                proposed = min(solver.h_abs, 1.0)
    failed = solver.status == "failed"
    return (np.full_like(start, np.nan) if failed else solver.y), 0.0 if failed else proposed


def _flat(tensors: Params | list[Tensor]) -> np.ndarray:
    flat = torch.cat([t.reshape(-1) for t in tensors])
    return flat.cpu().double().numpy()
