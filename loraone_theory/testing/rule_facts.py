"""Is what a rule states of itself true, where numbers can tell?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loraone_theory.core.factors import Params
from loraone_theory.methods.parametrisations import PARAMETRISATIONS, Parametrisation
from loraone_theory.methods.rules import Local, Rule
from loraone_theory.testing.base import draw, gap, require
from loraone_theory.testing.stage import Stage, advanced, params_of, path, stage_of

# How far from a solution local facts are looked at: they hold to this order, and the differences
# between steps keep half of their digits.
NEAR = 1e-6
# Of a step near a solution: room for the second order at condition numbers below 100.
LOCALLY = 1e3 * NEAR
# Two halves of a step of a flow are the step, to tolerances of integrators.
FLOWS = 1e-6

Factory = Callable[..., Rule]


def at_rest(rule: Rule, form: Parametrisation) -> None:
    """Where gradients are zero, at a solution and at B = 0, the step stays finite."""
    params = params_of(form)
    starts = {"at a solution, where all gradients are zero": params}
    if form.is_pair:
        starts["at B = 0, where LoRA starts and the gradient in A is zero"] = (
            params[0],
            torch.zeros_like(params[1]),
        )
    for where, start in starts.items():
        stage = stage_of(form)
        if start is params:
            stage = stage._replace(target=_product(form, params))
        new, _ = advanced(rule, stage, start, rule.init(start))
        require(
            all(bool(torch.isfinite(P).all()) for P in new),
            f"the step must stay finite {where}; it gave NaN or infinite entries: divide by a norm "
            "plus a small number, and invert with a damping or a pseudo-inverse",
        )


def _product(form: Parametrisation, params: Params) -> Tensor:
    return form.shift(params, ()).dense()


def local(factory: Factory, eta: float) -> None:
    """Near a solution the first two steps of a pair are those that `Rule.local` states."""
    rule = factory(eta, 0.0)
    if rule.local is None:
        return
    form = PARAMETRISATIONS["pair"](1.0)
    at = params_of(form)
    stage = stage_of(form)._replace(target=_product(form, at))
    params: Params = tuple(P + NEAR * draw(30 + i, *P.shape) for i, P in enumerate(at))
    state, ball = rule.init(params), None
    for _ in range(2):
        fresh = weighted(rule.local, params, stage)
        ball = (
            fresh
            if ball is None
            else [G + rule.local.momentum * M for G, M in zip(fresh, ball, strict=True)]
        )
        new, state = advanced(rule, stage, params, state)
        moved: Params = tuple(after - before for after, before in zip(new, params, strict=True))
        expected: Params = tuple(-eta * M for M in ball)
        off = max(_gaps(rule.local, params, moved, expected))
        require(
            off <= LOCALLY,
            f"near a solution the step must be the one that local={rule.local} states; it is "
            f"{off:.1e} away: state local=None where no rate is known",
        )
        params = new


def weighted(stated: Local, params: Params, stage: Stage) -> list[Tensor]:
    """The weighted gradients of A and B that a Local stands for."""
    A, B = params
    grad_A, grad_B = stage.gradients(params)
    if stated.weights == "none":
        return [grad_A, stated.ratio * grad_B]
    right, left = torch.linalg.inv(B @ B.mT), torch.linalg.inv(A.mT @ A)
    return [grad_A @ right, stated.ratio * left @ grad_B]


def _gaps(stated: Local, params: Params, moved: Params, expected: Params) -> list[float]:
    if stated.weights != "full":
        return [gap(found, wanted) for found, wanted in zip(moved, expected, strict=True)]
    # What weights of A and B make of W: G_A B + A G_B with both inverses counts P_A J P_B twice.
    A, B = params
    on_W = moved[0] @ B + A @ moved[1]
    J = expected[0] @ B + A @ expected[1]
    P = A @ torch.linalg.pinv(A)
    return [gap(on_W, J - P @ J @ torch.linalg.pinv(B) @ B / 2)]


def flow(factory: Factory, form: Parametrisation, eta: float) -> None:
    """Of a flow, two steps of half the rate are one step."""
    if not factory(eta, 0.0).flow:
        return
    stage, params = stage_of(form), params_of(form)
    once = path(factory(eta, 0.0), stage, params, steps=1)
    twice = path(factory(eta / 2, 0.0), stage, params, steps=2)
    off = max(gap(a, b) for a, b in zip(twice, once, strict=True))
    require(
        off <= FLOWS,
        "a rule that states flow=True must go by learning rate x steps; two steps of half the rate "
        f"are {off:.1e} away from one: leave flow at False",
    )


def replays(rule: Rule, form: Parametrisation) -> None:
    """A step that can be recorded reads nothing back: it works on tensors without values."""
    if not rule.replays or rule.advance is not None:
        return
    params = _without_values(params_of(form))
    gradients = _without_values(stage_of(form).gradients(params_of(form)))
    try:
        rule.update(params, gradients, _without_values(rule.init(params_of(form))))
    except (RuntimeError, NotImplementedError) as error:
        require(
            False,
            "a rule that states replays=True must not read values back on the way; on tensors "
            f"without values it raised {type(error).__name__}: {str(error).splitlines()[0]}",
        )


def _without_values(tree: Any) -> Any:
    if isinstance(tree, tuple):
        items = [_without_values(item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return tree.to("meta") if isinstance(tree, Tensor) else tree
