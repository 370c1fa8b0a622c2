"""A part of a method: a factory of rules or of initialisations, with its hyper-parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loraone_theory.core import validate
from loraone_theory.core.fingerprint import fingerprint
from loraone_theory.core.plain import plain


@dataclass(frozen=True, eq=False)
class Part:
    """What a method calls to get its rule or its initialisation.

    Args:
        name: its name in `RULES` or `INITS`, or the one that a user gave it.
        factory: makes the rule or the initialisation.
        hyper: the hyper-parameters that it is called with, defaults included.
        supplied: the arguments that the method fills in, such as its scale.
        positional: those of them that are handed over by position, in order.
        own: what a user handed in, a function or tensors; None for parts of the tables.
    """

    name: str
    factory: Callable[..., Any]
    hyper: Mapping[str, Any]
    supplied: frozenset[str] = frozenset()
    positional: tuple[str, ...] = ()
    own: Any = None

    @property
    def fingerprint(self) -> str | None:
        """Of what a user handed in, as it is now: what its code reaches may have changed."""
        return None if self.own is None else fingerprint(self.own)

    def make(self, *given: Any, **known: Any) -> Any:
        """The factory's product; of what the method knows it takes what it asks for."""
        placed = (known[name] for name in self.positional)
        named = {name: known[name] for name in self.supplied}
        return self.factory(*given, *placed, **named, **self.hyper)

    def described(self) -> dict[str, Any]:
        """Name, hyper-parameters and fingerprint, for records."""
        own = {} if self.own is None else {"fingerprint": self.fingerprint}
        return {"name": self.name, **own, **plain(self.hyper)}


def of_table(
    kind: str,
    name: str,
    table: Mapping[str, Callable[..., Any]],
    hyper: Mapping[str, Any],
    *,
    takes: Iterable[str] = (),
    supplies: Iterable[str] = (),
) -> Part:
    """The part `name` of a table, with its own hyper-parameters checked and completed.

    Args:
        kind: "rule" or "init", for messages.
        name: a key of `table`.
        hyper: those given.
        takes: arguments that are handed in by position.
        supplies: what the method knows and fills in where it is asked for.

    Raises:
        ValueError: an unknown name or hyper-parameter, or one that is missing.
    """
    factory = table[validate.choice(kind, name, table)]
    parameters = _parameters(factory)
    supplied = frozenset(supplies) & set(parameters)
    own = [key for key in parameters if key not in supplied and key not in takes]
    for given in hyper:
        if not own:
            raise ValueError(
                f"{kind} {name!r} takes no hyper-parameters; got {given}={hyper[given]!r}; "
                "leave it out"
            )
        validate.choice(f"hyper-parameter of {name!r}", given, sorted(own))
    defaults = {key: parameters[key].default for key in own}
    whole = {**defaults, **hyper}
    for key, value in whole.items():
        if value is inspect.Parameter.empty:
            raise ValueError(f"{kind} {name!r} needs {key}; got none; give {key}=...")
    return Part(name, factory, whole, supplied)


@functools.cache
def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(factory).parameters


def own_rule(name: str, factory: Any, hyper: Mapping[str, Any]) -> Part:
    """A user's (learning_rate, damping, **hyper) -> Rule, recorded by name and fingerprint.

    Raises:
        TypeError: it does not take these arguments.
    """
    named(name)
    given = ", ".join(["learning_rate", "damping", *hyper])
    takes("a rule's factory", factory, given, 1.0, 0.0, **hyper)
    return Part(name, factory, dict(hyper), frozenset(), ("damping",), own=factory)


def own_init(name: str, init: Any) -> Part:
    """A user's (problem, rank, seeds) -> Start, recorded by name and fingerprint.

    Raises:
        TypeError: it does not take these arguments.
    """
    named(name)
    takes("an initialisation", init, "problem, rank, seeds", None, 1, (0,))
    return Part(name, lambda: init, {}, own=init)


def named(name: Any) -> None:
    """A name for records, else TypeError."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a non-empty string; got {name!r}; records show it")


def takes(what: str, given: Any, signature: str, *args: Any, **kwargs: Any) -> None:
    """A function that can be called with such arguments, else TypeError."""
    if not callable(given):
        raise TypeError(f"{what} must be a function of ({signature}); got {given!r}")
    try:
        found = inspect.signature(given)
    except ValueError:  # some builtins do not tell
        return
    try:
        found.bind(*args, **kwargs)
    except TypeError:
        raise TypeError(
            f"{what} is called as ({signature}); got one that takes {found}; change its arguments"
        ) from None
