"""Settings of a method or a schedule as words of the command line."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from loraone_theory.core import validate


def settings(given: Sequence[str], factory: Callable[..., Any], what: str) -> dict[str, Any]:
    """Words NAME=VALUE as keyword arguments of a factory; values are Python's, or text.

    >>> from loraone_theory.methods.schedules import cosine
    >>> settings(["peak=0.5", "warmup=50"], cosine, "schedule 'cosine'")
    {'peak': 0.5, 'warmup': 50}

    Raises:
        ValueError: a word of another form, or a name that the factory does not take or that comes
            twice.
    """
    found: dict[str, Any] = {}
    for word in given:
        name, sign, value = word.partition("=")
        if not sign:
            raise ValueError(
                f"a setting of {what} must be written NAME=VALUE; got {word!r}; "
                f"write for example {word}=1"
            )
        validate.choice(f"setting of {what}", name, inspect.signature(factory).parameters)
        if name in found:
            raise ValueError(
                f"each setting of {what} is given once; got {name} twice; leave one out"
            )
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a word
        return text
