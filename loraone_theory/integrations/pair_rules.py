"""Which rule a parameter group of `PairOptimizer` is trained by, with which hyper-parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loraone_theory.core import validate
from loraone_theory.methods.rules import RULES, Rule

Group = Mapping[str, Any]
# Names under which torch's schedulers look for a rule's hyper-parameters.
TORCH_NAMES = {"beta": "momentum"}


def for_schedulers(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What schedulers of momenta ask the optimiser's defaults for; their names in all groups.

    They write into every group what they find in the defaults; a rule without that
    hyper-parameter does not read it. Where one that reads it goes without, they cannot schedule it.
    """
    for name, filler in (("betas", (0.9, 0.999)), ("momentum", 0.0)):
        if goes_without(name, made):
            continue
        if any(group.get(name) is not None for group in made):
            for group in made:
                if name not in known(group["rule"]):
                    group.setdefault(name, filler)
            return {name: filler}
    return {}


def goes_without(name: str, made: Sequence[Group]) -> bool:
    """A group has this hyper-parameter set to None, as LoRA-Pro has its betas without Adam."""
    return any(name in group and group[name] is None for group in made)


def accepted(rule: str, hyper: Iterable[str]) -> None:
    """The rule exists and takes these hyper-parameters."""
    validate.choice("rule", rule, RULES)
    for name in hyper:
        validate.choice(f"hyper-parameter of {rule!r}", name, sorted(known(rule) - {"scale"}))


@functools.cache
def known(rule: str) -> frozenset[str]:
    """Hyper-parameters of a rule."""
    return frozenset(inspect.signature(RULES[rule]).parameters) - {"learning_rate"}


@functools.cache
def _needed(rule: str) -> frozenset[str]:
    """Those without a default."""
    parameters = inspect.signature(RULES[rule]).parameters
    return frozenset(n for n in known(rule) if parameters[n].default is inspect.Parameter.empty)


@functools.cache
def stated(rule: str) -> Mapping[str, Any]:
    """Its defaults, so that they can be read and scheduled, and nothing else takes their place."""
    parameters = inspect.signature(RULES[rule]).parameters
    return {
        name: parameters[name].default
        for name in known(rule) - {"scale"}
        if parameters[name].default is not inspect.Parameter.empty
    }


def make(group: Group, scale: float | None) -> Rule:
    """The rule of a group, for pairs of this scale.

    Raises:
        ValueError: no such rule, or one that does not go with the group; a hyper-parameter that is
            missing or out of range.
    """
    accepted(group["rule"], ())
    if "lr" not in group:
        raise ValueError("a group must have 'lr'; got none; set it")
    names = known(group["rule"])  # schedulers add keys of their own to a group
    hyper = {name: group[name] for name in names if name in group}
    hyper |= {ours: group[theirs] for ours, theirs in TORCH_NAMES.items() if theirs in group}
    hyper = {name: value for name, value in hyper.items() if name in names}
    if "scale" in names and scale is not None:
        hyper["scale"] = scale
    for name in _needed(group["rule"]) - hyper.keys():
        raise ValueError(
            f"rule {group['rule']!r} needs {name}; got none; pass {name}= to PairOptimizer "
            "or in the group"
        )
    rule = RULES[group["rule"]](group["lr"], **hyper)
    if rule.advance is not None:
        raise ValueError(
            f"rule {group['rule']!r} asks for gradients at points of its own, and an optimiser has "
            "one a step; use another rule"
        )
    if rule.pair and "scales" not in group:
        raise ValueError(
            f"rule {group['rule']!r} needs pairs (A, B); got other parameters; give them 'rule': "
            "'adamw', 'momentum' or 'gd'"
        )
    return rule
