"""What a method is: an initialisation, a parametrisation and an update rule under one name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, Scalar, checked
from loraone_theory.core.names import RuleName
from loraone_theory.core.plain import plain
from loraone_theory.core.shown import InTable
from loraone_theory.methods import parts
from loraone_theory.methods.inits import INITS, Init
from loraone_theory.methods.parametrisations import Parametrisation, Start, check_start
from loraone_theory.methods.parts import Part
from loraone_theory.methods.rules import AROUND, RULES, Rule
from loraone_theory.problems.base import Problem

RuleFactory = Callable[..., Rule]  # (learning_rate, damping) -> Rule
# What a method knows and fills in where a rule or an initialisation asks for it.
RULE_ASKS = ("damping", "scale")
INIT_ASKS = ("scale", "std")


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
        validate.flag("stabilised", self.stabilised)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


# s of a method: a number, or one that depends on the rank.
Scale = float | Alpha


def init_part(name: str, **hyper: Any) -> Part:
    """An initialisation of `INITS` for a method; it is handed the scale and init_std."""
    return parts.of_table("init", name, INITS, hyper, supplies=INIT_ASKS)


def rule_part(name: str, **hyper: Any) -> Part:
    """A rule of `RULES` for a method; it is handed the damping and the scale."""
    takes = ("learning_rate",)
    return parts.of_table("rule", name, RULES, hyper, takes=takes, supplies=RULE_ASKS)


def around_part(name: str, **hyper: Any) -> Part:
    """What goes around the rule of a method, from `AROUND`."""
    return parts.of_table("rule", name, AROUND, hyper, takes=("base",))


GD = rule_part("gd")
# The name of an initialisation that is factors.
GIVEN = "given"


@dataclass(frozen=True, eq=False)
class Method(InTable):
    """A method ready to be simulated; make one with a factory of `METHODS`.

    Args:
        name: its name in `METHODS`, or that name and its rule's.
        start: what makes its initialisation.
        parametrise: s -> how the trainable tensors make the learned shift.
        train: what makes its rule.
        scaling: s in W_eff = W_f + sAB, or an `Alpha` that waits for the rank.
        init_std: α where A₀ is Gaussian with entries N(0, α²), else None.
        offset: True where W_f = W − sA₀B₀, so that the function is unchanged at t = 0.
        around: what goes around its rule, AdaLoRA's pruning, or None.
    """

    name: str
    start: Part
    parametrise: Callable[[float], Parametrisation]
    train: Part = GD
    scaling: Scale = 1.0
    init_std: Scalar | None = None
    offset: bool = False
    around: Part | None = None

    def __post_init__(self) -> None:
        if isinstance(self.scaling, Alpha):
            self.scaling.at(1)  # refuses an alpha that is no positive number
        else:
            s = validate.number("scale", self.scaling, positive=True)
            object.__setattr__(self, "scaling", s)
        self.start.make(scale=1.0, std=self.init_std)  # refuses its hyper-parameters out of range
        if self.facts.pair and not self.is_pair:
            raise ValueError(
                f"rule {self.train.name!r} applies to methods that train A and B; {self.name!r} "
                f"trains {self.parametrise(1.0).name}; use gd, momentum or adamw"
            )

    def __repr__(self) -> str:
        parts_of = (
            (self.start, self.train)
            if self.around is None
            else (self.start, self.train, self.around)
        )
        inside = ", ".join(part.name for part in parts_of)
        return f"Method({self.name!r}: {inside}, scale={self.scaling})"

    def _told(self) -> dict[str, Any]:
        return {"name": self.name, **self.hyper}

    def at(self, rank: int) -> Method:
        """The method at this rank, its scale a number."""
        validate.integer("rank", rank, least=1)
        if not isinstance(self.scaling, Alpha):
            return self
        return replace(self, scaling=self.scaling.at(rank))

    @property
    def scale(self) -> float:
        """s.

        Raises:
            ValueError: it waits for the rank.
        """
        if isinstance(self.scaling, Alpha):
            raise ValueError(
                f"the scale of {self.name!r} is alpha={self.scaling.alpha} over a power of the "
                "rank, which is not known yet; take the method from methods.get(method, rank)"
            )
        return self.scaling

    @cached_property
    def parametrisation(self) -> Parametrisation:
        """How the trainable tensors make the learned shift."""
        return self.parametrise(self.scale)

    @property
    def is_pair(self) -> bool:
        """Whether the trainable tensors are a pair (A, B), at any scale."""
        return self.parametrise(1.0).is_pair

    def init(self, problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        """The trainable and frozen tensors at t = 0, and the offset."""
        make: Init = self.start.make(scale=self.at(rank).scale, std=self.init_std)
        start = make(problem, rank, seeds)
        if self.start.own is not None:
            check_start(start, self.parametrise(1.0), problem, rank, self.start.name)
        return start

    def rule(self, learning_rate: Scalar, damping: Scalar = 0.0) -> Rule:
        """Its update rule."""
        return self._rule(learning_rate, damping, self.scale)

    @cached_property
    def facts(self) -> Rule:
        """Its rule at some learning rate, to read facts from before a run."""
        return self._rule(1.0, 0.0, 1.0)

    def _rule(self, learning_rate: Scalar, damping: Scalar, scale: float) -> Rule:
        made: Rule = self.train.make(learning_rate, damping=damping, scale=scale)
        if not isinstance(made, Rule):
            raise TypeError(
                f"the factory of rule {self.train.name!r} must return an lt.Rule(init, update, "
                f"...); got {type(made).__name__}"
            )
        return made if self.around is None else self.around.make(made)

    @property
    def hyper(self) -> dict[str, Any]:
        """Every hyper-parameter, in plain JSON types, for records; `methods.rebuild` reads it."""
        found = {
            "init": self.start.described(),
            "parametrisation": self.parametrise.__name__,
            "rule": self.train.described(),
            "scale": plain(self.scaling),
            "init_std": plain(self.init_std),
            "offset": self.offset,
        }
        if self.around is not None:
            found["around"] = self.around.described()
        return found

    def with_init_std(self, std: Scalar) -> Method:
        """The method with another α of its Gaussian A₀.

        Raises:
            ValueError: A₀ is not Gaussian.
        """
        self.check_gaussian()
        return replace(self, init_std=validate.standard_deviation("init_std", std))

    def check_gaussian(self) -> None:
        """Refuse a size of A₀ where it is not Gaussian.

        Raises:
            ValueError: it is not.
        """
        if self.init_std is None:
            raise ValueError(
                f"init_std is the size of a Gaussian A0, and {self.name!r} has none; leave it out"
            )

    def started_at(self, initial: Factors) -> Method:
        """The method with given initial factors in place of its own initialisation.

        Args:
            initial: A₀ (..., d, r), B₀ (..., r, k), which are copied.

        Raises:
            TypeError, ValueError: the method does not train a pair (A, B), or these are none.
        """
        initial = checked("initial", initial, owned=True)
        if not self.is_pair:
            raise ValueError(
                f"initial factors apply to methods that train A and B; {self.name!r} trains "
                f"{self.parametrise(1.0).name}; leave initial out"
            )
        offset = Factors(self.scale * initial.A, initial.B) if self.offset else None
        start = Start(tuple(initial), offset=offset)
        part = Part(GIVEN, lambda: lambda *_: start, {}, own=tuple(initial))
        return replace(self, start=part, init_std=None)

    def with_init(self, init: Init, *, name: str) -> Method:
        """The method with an initialisation of one's own, called "<method>-<name>".

        Args:
            init: (problem, rank, seeds) -> Start, with one trial for each seed, or the problem's
                batch shape where it draws nothing.
            name: of the initialisation, for records.

        Raises:
            TypeError: it does not take these arguments.
        """
        part = parts.own_init(name, init)
        renamed = f"{self.name}-{name}"
        return replace(self, name=renamed, start=part, init_std=None, offset=False)

    def with_rule(self, factory: RuleFactory, *, name: str, **hyper: Any) -> Method:
        """The method with a rule of one's own, called "<method>-<name>".

        Args:
            factory: (learning_rate, damping, **hyper) -> Rule. The learning rate is a number, or a
                tensor that broadcasts against matrices; with a schedule the factory is called for
                every step and the state carries over. What the rule states of itself (equivariant,
                pair, inverts, ...) decides what is done with it: nothing stated, nothing reduced.
            name: of the rule, for records.
            hyper: the factory's further arguments.

        Raises:
            TypeError: it does not take these arguments, or does not return a Rule.
            ValueError: it needs a pair and the method does not train one.
        """
        part = parts.own_rule(name, factory, hyper)
        return replace(self, name=f"{self.name}-{name}", train=part)

    def trained_by(
        self, rule: RuleName | str | RuleFactory, *, name: str | None = None, **hyper: Any
    ) -> Method:
        """The same initialisation and parametrisation under another rule.

        Args:
            rule: its name in `RULES`, or a factory as in `with_rule`, recorded by its own name;
                rules for pairs need a method that trains A and B.
            name: the new method's name, by default "<name>-<rule>".
            hyper: the rule's own hyper-parameters.

        Raises:
            ValueError: an unknown rule or hyper-parameter, or one that does not fit the method.

        >>> from loraone_theory import methods
        >>> methods.pissa().trained_by("adamw", weight_decay=0.1).name
        'pissa-adamw'
        """
        if isinstance(rule, str):
            part = rule_part(rule, **hyper)
        else:
            called = getattr(rule, "__name__", type(rule).__name__)
            part = parts.own_rule(called, rule, hyper)
        if name is not None:
            parts.named(name)
        return replace(self, name=f"{self.name}-{part.name}" if name is None else name, train=part)
