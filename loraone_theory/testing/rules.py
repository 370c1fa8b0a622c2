"""Is an update rule what the loop takes it for?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Params
from loraone_theory.methods.parametrisations import PARAMETRISATIONS, Parametrisation
from loraone_theory.methods.rules import Descent, Local, Rule
from loraone_theory.testing import rule_facts
from loraone_theory.testing.base import (
    ContractError,
    D,
    K,
    copied,
    draw,
    gap,
    leaves,
    require,
    same_bits,
)
from loraone_theory.testing.stage import RUNS, STEPS, advanced, params_of, path, stage_of

ETA = 0.01
# Half of the digits: sound rules differ by roundings, which 12 steps at condition numbers of 10^3
# multiply by less than that; unsound ones by a share of a step.
DIGITS = torch.finfo(torch.float64).eps ** 0.5
# What one step adds in float32, from the same values: Gram matrices of condition numbers below 100,
# and steps ten times as small as what they are added to.
SINGLE = 1e3 * torch.finfo(torch.float32).eps

Factory = Callable[..., Rule]


def check_rule(rule: Rule | Factory, *, trains: str = "pair") -> None:
    """Hold a rule to what the loop relies on; nothing is returned.

    Tensors keep shape, dtype and device in float32 and float64 and are not written to; the state is
    of nested tuples of tensors and integers; the same call gives the same bits; runs of a batch do
    not touch each other; steps stay finite where gradients are zero; what the rule states of itself
    (equivariant, pair, inverts, dropped, descent, replays) is true as far as its first steps tell,
    and `ends_with` gives ranks. With a factory also: a tensor of learning rates stands for one run
    each, the state carries over to another rate, a damping matters where, and only where, the rule
    states that it inverts something, and `local` and `flow` are true.

    Args:
        rule: a Rule, or its factory (learning_rate, damping) -> Rule.
        trains: what it is tried on: "pair" (and one matrix where it needs no pair), "full" or
            "triplets".

    Raises:
        ContractError: a promise is broken; the message says which.

    >>> from loraone_theory.methods import rules
    >>> check_rule(lambda learning_rate, damping: rules.gd(learning_rate))
    """
    validate.choice("trains", trains, ("pair", "full", "triplets"))
    made = rule if isinstance(rule, Rule) else _made(rule)
    kinds = [trains]
    if trains == "pair" and not made.pair:
        kinds.append("full")
    for kind in kinds:
        form = PARAMETRISATIONS[kind](1.0)
        for dtype in (torch.float64, torch.float32):
            _one_step(made, form, dtype)
        _single_precision(made, form)
        _runs_apart(made, form)
        _equivariance(made, form)
        rule_facts.at_rest(made, form)
        rule_facts.replays(made, form)
        if not isinstance(rule, Rule):
            _rates(rule, form)
            _damping(rule, form)
            rule_facts.flow(rule, form, ETA)
    _facts(made)
    if trains == "pair" and not isinstance(rule, Rule):
        rule_facts.local(rule, ETA)
    if made.descent is not None:
        _descent(made, made.descent)


def _made(factory: Factory, learning_rate: Any = ETA, damping: float = 0.0) -> Rule:
    made = factory(learning_rate, damping)
    found = type(made).__name__
    require(isinstance(made, Rule), f"a rule's factory must return an lt.Rule; got {found}")
    return made


def _one_step(rule: Rule, form: Parametrisation, dtype: torch.dtype) -> None:
    params, stage = params_of(form, dtype), stage_of(form, dtype)
    gradients = stage.gradients(params)

    def update() -> tuple[Params, Any]:
        if rule.advance is not None:
            return rule.advance(params, stage.gradients, state)
        return rule.update(params, gradients, state)

    state = _called("init", form, lambda: rule.init(params))
    for leaf in leaves(state):
        require(
            leaf is None or isinstance(leaf, Tensor) or type(leaf) is int,
            "the state must be made of tuples of tensors and integers, or be None, so that it can "
            f"be saved; got {type(leaf).__name__}",
        )
    before = copied((params, gradients, state))
    new, after = _called("update", form, update)
    require(
        same_bits((params, gradients, state), before),
        "update must not write to parameters, gradients or state; one of them has changed",
    )
    require(
        isinstance(new, tuple) and len(new) == len(params),
        f"update must return a tuple of {len(params)} tensors and the state; got "
        f"{type(new).__name__}",
    )
    for i, (given, found) in enumerate(zip(params, new, strict=True)):
        kinds = [(tuple(t.shape), t.dtype, t.device) for t in (given, found)]
        require(kinds[0] == kinds[1], f"tensor {i} must stay {kinds[0]}; update made it {kinds[1]}")
    again = update()
    require(
        same_bits((new, after), again),
        "the same call must give the same bits; a second one gave others (hidden state or noise?)",
    )
    require(
        _form(state) == _form(after),
        "the state must keep its form from step to step, so that it can be filled in again",
    )
    if rule.dropped is not None:
        shapes = [tuple(t.shape) for t in rule.dropped(after)]
        require(
            shapes == [(RUNS,), (RUNS,)],
            f"dropped must count per run, two tensors of shape ({RUNS},); got shapes {shapes}",
        )


def _called(what: str, form: Parametrisation, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise ContractError(
            f"{what} must work on {form.name} ({len(form.trainable_axes)} tensors); it raised "
            f"{type(error).__name__}: {error}; a rule that needs a pair states pair=True"
        ) from error


def _form(state: Any) -> Any:
    if isinstance(state, tuple):
        return type(state), [_form(item) for item in state]
    return type(state)


def _single_precision(rule: Rule, form: Parametrisation) -> None:
    added = []
    for dtype in (torch.float32, torch.float64):
        params = params_of(form, dtype)
        new = path(rule, stage_of(form, dtype), params, steps=1)
        added.append([after - before for after, before in zip(new, params, strict=True)])
    allowed = SINGLE
    if rule.inverts:  # a Gram matrix has the square of the conditioning of its factor
        for each in params:
            S = torch.linalg.svdvals(each)
            lost = max(each.shape[-2:]) * float((S[..., 0] / S[..., -1]).max()) ** 2
            allowed = max(allowed, lost * torch.finfo(torch.float32).eps)
    for found, expected, P in zip(*added, params, strict=True):
        off = gap(found, expected)
        # A sum is rounded at the size of the tensor, which a small step is a difference of.
        size = float(torch.linalg.vector_norm(P) / torch.linalg.vector_norm(expected))
        most = allowed + 2 * size * torch.finfo(torch.float32).eps
        require(
            off <= most,
            f"what one step adds in float32 must be that in float64 to {most:.0e}; it is "
            f"{off:.1e} away",
        )


def _runs_apart(rule: Rule, form: Parametrisation) -> None:
    stage, params = stage_of(form), params_of(form)
    together = path(rule, stage, params)
    require(
        same_bits(together, path(rule, stage, params)),
        f"{STEPS} steps from the same start must give the same bits a second time; they gave "
        "others (hidden state or noise?)",
    )
    for i in range(2):
        alone = path(rule, stage._replace(target=stage.target[i]), tuple(P[i] for P in params))
        off = max(gap(a[i], b) for a, b in zip(together, alone, strict=True))
        require(
            off <= DIGITS,
            f"each run of a batch must go as it goes alone; run {i} is {off:.1e} away after "
            f"{STEPS} steps",
        )


def _equivariance(rule: Rule, form: Parametrisation) -> None:
    """On the rotated problem, and within more dimensions: reductions rely on both."""
    if not rule.equivariant:
        return
    stage, params = stage_of(form), params_of(form)
    for more, where in ((0, "the rotated problem"), (5, "the problem within more dimensions")):
        left, right = (torch.linalg.qr(draw(20 + n, n + more, n)).Q for n in (D, K))
        turns = {"input": left, "output": right}

        def turned(params: Params, turns: dict[str, Tensor] = turns) -> Params:
            answer = []
            for P, (row, column) in zip(params, form.trainable_axes, strict=True):
                Q = P if row is None else turns[row] @ P
                answer.append(Q if column is None else Q @ turns[column].mT)
            return tuple(answer)

        # Off the dimensions that hold the problem inputs are white.
        covariance = left @ (stage.covariance - torch.eye(D)) @ left.mT + torch.eye(D + more)
        rotated = stage._replace(covariance=covariance, target=left @ stage.target @ right.mT)
        expected, found = turned(path(rule, stage, params)), path(rule, rotated, turned(params))
        off = max(gap(a, b) for a, b in zip(found, expected, strict=True))
        require(
            off <= DIGITS,
            f"a rule that states equivariant=True must give the rotated trajectory on {where}; on "
            f"{form.name} it is {off:.1e} away: leave equivariant at False",
        )


def _rates(factory: Factory, form: Parametrisation) -> None:
    rates, stage, params = (ETA, ETA / 4), stage_of(form), params_of(form)
    column = torch.tensor(rates, dtype=torch.float64).reshape(-1, 1, 1, 1)
    wide = tuple(P.expand(len(rates), *P.shape) for P in params)
    together = _called("update", form, lambda: path(_made(factory, column), stage, wide))
    for i, eta in enumerate(rates):
        alone = path(_made(factory, eta), stage, params)
        off = max(gap(a[i], b) for a, b in zip(together, alone, strict=True))
        require(
            off <= DIGITS,
            "a tensor of learning rates (rates, 1, 1, 1) must stand for one run each; the run at "
            f"{eta} is {off:.1e} away from the one alone",
        )
    # A schedule: another rate at the second step, with the state of the first.
    first, second = (_made(factory, eta) for eta in rates)
    moved, state = advanced(first, stage, params, first.init(params))
    _called("update", form, lambda: advanced(second, stage, moved, state))


def _damping(factory: Factory, form: Parametrisation) -> None:
    stage, params = stage_of(form), params_of(form)
    plain, damped = (_made(factory, ETA, damping) for damping in (0.0, 1.0))
    ends = [path(made, stage, params, steps=2) for made in (plain, damped)]
    matters = not same_bits(*ends)
    require(
        matters == plain.inverts,
        f"the damping {'changes' if matters else 'does not change'} the steps, and the rule states "
        f"inverts={plain.inverts}: simulate would {'refuse' if matters else 'accept'} a damping",
    )


def _facts(rule: Rule) -> None:
    if rule.ends_with is not None:
        ends = [rule.ends_with(rank) for rank in (3, 7)]
        inside = all(1 <= end <= rank for end, rank in zip(ends, (3, 7), strict=True))
        require(inside, f"ends_with must give ranks in 1 ... r; got {ends} for r = 3, 7")
    require(
        rule.local is None or isinstance(rule.local, Local),
        f"local must be a rules.Local or None; got {type(rule.local).__name__}",
    )
    damping = np.asarray(rule.damping, dtype=float)
    require(
        bool(damping >= 0) and (rule.inverts or bool(damping == 0)),
        f"damping must be >= 0, and 0 for a rule that inverts nothing; got {rule.damping}",
    )


def _descent(rule: Rule, descent: Descent) -> None:
    form = PARAMETRISATIONS["pair"](1.0)
    params = A, B = params_of(form)
    grad_A, grad_B = gradients = stage_of(form).gradients(params)
    state = rule.init(params)
    eta, ratio = descent.learning_rate, descent.ratio
    if descent.inverses is None:
        expected = (A - eta * grad_A, B - ratio * eta * grad_B)
    else:
        L, R, _ = descent.inverses(params, state)
        expected = (A - eta * grad_A @ R, B - ratio * eta * L @ grad_B)
    found, _ = rule.update(params, gradients, state)
    off = max(gap(a, b) for a, b in zip(found, expected, strict=True))
    require(off <= DIGITS, f"descent must be the step that update makes; it is {off:.1e} away")
