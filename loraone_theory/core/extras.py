"""Optional parts of the package, and of machines: one sentence that says what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(ModuleNotFoundError):
    """A package that only an optional part needs is not installed."""


class Unavailable(OSError):
    """What is asked for needs a part that this machine does not have."""


@contextmanager
def extra(name: str, instead: str = "") -> Iterator[None]:
    """Imports of the block come with the extra `name`; `instead`: what to do without it.

    Raises:
        MissingExtra: a package is not installed.

    >>> with extra("tables", "use run.to_numpy()"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    loraone_theory.core.extras.MissingExtra: no_such_package is not installed: \
pip install 'loraone-theory[tables]', or use run.to_numpy()
    """
    try:
        yield
    except ModuleNotFoundError as error:
        otherwise = f", or {instead}" if instead else ""
        raise MissingExtra(
            f"{error.name} is not installed: pip install 'loraone-theory[{name}]'{otherwise}",
            name=error.name,
        ) from error
