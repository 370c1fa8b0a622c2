"""What a method is: an initialisation, a parametrisation and an update rule under one name."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, ParamSpec

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, Scalar
from loraone_theory.methods.inits import Init
from loraone_theory.methods.parametrisations import Parametrisation, Start
from loraone_theory.methods.rules import PAIR_RULES, RULES, WRAPPERS, Rule

RuleFactory = Callable[[Scalar, Scalar], Rule]  # (learning_rate, damping) -> Rule
P = ParamSpec("P")


class Alpha(NamedTuple):
    """A scale that depends on the rank: s = α/r, or α/√r where `stabilised` (rsLoRA).

    Any method takes one in place of a number: `lora(scale=Alpha(16))`.

    >>> Alpha(16).at(4), Alpha(16, stabilised=True).at(4)
    (4.0, 8.0)
    """

    alpha: float
    stabilised: bool = False

    def at(self, rank: int) -> float:
        """s at this rank."""
        alpha = validate.number("alpha", self.alpha, positive=True)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


Scale = float | Alpha


@dataclass(frozen=True, eq=False)
class Method:
    """A method ready to be simulated; make one with a factory of `METHODS`.

    Args:
        name: its name in `METHODS`, or that name and its rule's.
        init: (problem, rank, seeds) -> Start.
        parametrisation: how the trainable tensors make the learned shift.
        make_rule: (learning_rate, damping) -> Rule.
        hyper: the hyper-parameters it was made with, for records.
        scale: s in W_eff = W_f + sAB; NaN while an `Alpha` waits for the rank.
        offset: True where W_f = W − sA₀B₀, so that the function is unchanged at t = 0.
        takes_damping: whether its rule has the inverses that a damping goes into.
        with_init_std: std -> the method with that LoRA-init; None where A₀ is not Gaussian.
        wrap: what goes around its rule, AdaLoRA's pruning, or None.
        at_rank: rank -> the method with its `Alpha` resolved; None where nothing waits for it.
    """

    name: str
    init: Init
    parametrisation: Parametrisation
    make_rule: RuleFactory
    hyper: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    offset: bool = False
    takes_damping: bool = False
    with_init_std: Callable[[Scalar], Method] | None = None
    wrap: Callable[[Rule], Rule] | None = None
    at_rank: Callable[[int], Method] | None = None

    def started_at(self, initial: Factors) -> Method:
        """The method with given initial factors in place of its own initialisation.

        Raises:
            ValueError: the method does not train a pair (A, B).
        """
        if not self.parametrisation.is_pair:
            raise ValueError(
                f"initial factors apply to methods that train A and B; {self.name!r} trains "
                f"{self.parametrisation.name}; leave initial out"
            )
        offset = Factors(self.scale * initial.A, initial.B) if self.offset else None
        start = Start(tuple(initial), offset=offset)
        return replace(self, init=lambda problem, rank, seeds: start, with_init_std=None)

    def trained_by(self, rule: str, *, name: str | None = None, **hyper: Any) -> Method:
        """The same initialisation and parametrisation under another rule of `RULES`.

        Args:
            rule: its name; rules for pairs need a method that trains A and B.
            name: the new method's name, by default "<name>-<rule>".
            hyper: the rule's own hyper-parameters.

        Raises:
            ValueError: an unknown rule or hyper-parameter, or one that does not fit the method.

        >>> from loraone_theory import methods
        >>> methods.pissa().trained_by("adamw", weight_decay=0.1).name
        'pissa-adamw'
        """
        validate.choice("rule", rule, [name for name in RULES if name not in WRAPPERS])
        if rule in PAIR_RULES and not self.parametrisation.is_pair:
            raise ValueError(
                f"rule {rule!r} applies to methods that train A and B; {self.name!r} trains "
                f"{self.parametrisation.name}; use gd, momentum or adamw"
            )
        factory, wrap, scale = RULES[rule], self.wrap, self.scale
        accepted = set(inspect.signature(factory).parameters) - {"learning_rate"}
        supplied = accepted & {"damping", "scale"}
        for given in hyper:
            validate.choice(f"hyper-parameter of {rule!r}", given, sorted(accepted - supplied))

        def make_rule(learning_rate: Scalar, damping: Scalar) -> Rule:
            known = {"damping": damping, "scale": scale}
            made = factory(learning_rate, **{key: known[key] for key in supplied}, **hyper)
            return made if wrap is None else wrap(made)

        again = functools.partial(_again, rule=rule, name=name, hyper=hyper)
        return replace(
            self,
            name=f"{self.name}-{rule}" if name is None else name,
            make_rule=make_rule,
            hyper={**self.hyper, "rule": rule, **hyper},
            takes_damping="damping" in accepted,
            with_init_std=self.with_init_std and again(self.with_init_std),
            at_rank=self.at_rank and again(self.at_rank),
        )


def _again(
    make: Callable[[Any], Method], *, rule: str, name: str | None, hyper: dict[str, Any]
) -> Callable[[Any], Method]:
    return lambda value: make(value).trained_by(rule, name=name, **hyper)


def scales_with_rank(factory: Callable[P, Method]) -> Callable[P, Method]:
    """Let a factory of methods take an `Alpha` for its scale."""

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Method:
        scale = kwargs.get("scale", 1.0)
        if not isinstance(scale, Alpha):
            validate.number("scale", scale, positive=True)
            return factory(*args, **kwargs)
        plain = {key: value for key, value in kwargs.items() if key != "scale"}

        def at_rank(rank: int) -> Method:
            return factory(*args, scale=scale.at(rank), **plain)  # type: ignore[arg-type]

        template = at_rank(1)

        def refuse(*_: Any) -> Any:
            raise ValueError(
                f"the scale of {template.name!r} is alpha={scale.alpha} over a power of the rank, "
                "which is not known yet; take the method from methods.get(method, rank)"
            )

        unresolved = {"init": refuse, "make_rule": refuse, "with_init_std": None}
        if template.with_init_std is not None:
            unresolved["with_init_std"] = refuse
        return replace(
            template,
            hyper={**template.hyper, "scale": scale},
            scale=math.nan,
            at_rank=at_rank,
            **unresolved,  # type: ignore[arg-type]
        )

    return make
