"""Claims by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from loraone_theory.claims.base import Claim
from loraone_theory.core import validate

_PART = r"[a-z0-9]+([.-][a-z0-9]+)*"
_ID = re.compile(rf"{_PART}(/{_PART})+")


class Registry(dict[str, Claim]):
    """Ids -> claims, in the order of the report; an alias leads to its claim too.

    >>> from loraone_theory.claims import CLAIMS
    >>> CLAIMS["T3.1"].id, "T3.1" in CLAIMS
    ('lora-one/theorem-3.1', False)
    """

    def __init__(self, claims: Iterable[Claim] = ()) -> None:
        super().__init__()
        self.aliases: dict[str, str] = {}
        self._homes: dict[str, str] = {}
        for claim in claims:
            self.add(claim)

    def __repr__(self) -> str:
        papers = dict.fromkeys(claim.paper for claim in self.values())
        return f"Registry({len(self)} claims of {', '.join(papers)})"

    def __missing__(self, name: str) -> Claim:
        return self[self.aliases[name]]

    def add(self, claim: Claim, home: str = "loraone_theory") -> None:
        """Enter a claim under its id and its aliases.

        Args:
            claim: which.
            home: the distribution or the file that it is of.

        Raises:
            ValueError: an id that is not of the form "paper/statement", or a name that is taken.
        """
        validate.instance("claim", claim, Claim)
        if not _ID.fullmatch(claim.id):
            raise ValueError(
                "the id of a claim must be 'paper/statement' or 'paper/statement/part', in small "
                f"letters, digits, points and hyphens; got {claim.id!r}"
            )
        for name in (claim.id, *claim.aliases):
            if name in self or name in self.aliases:
                raise ValueError(
                    f"claims must have different names; {name!r} of {claim.id!r} is one of "
                    f"{self[name].id!r} already; the former is in {home}, the latter in "
                    f"{self._homes[self[name].id]}; rename one of them"
                )
        self[claim.id] = claim
        self._homes[claim.id] = home
        self.aliases |= dict.fromkeys(claim.aliases, claim.id)

    def add_all(self, claims: Iterable[Claim], home: str) -> None:
        """Enter claims of one home: all of them, or none where one is refused (`add`)."""
        added: list[Claim] = []
        try:
            for claim in claims:
                self.add(claim, home)
                added.append(claim)
        except (TypeError, ValueError):
            for claim in added:
                del self[claim.id], self._homes[claim.id]
                for alias in claim.aliases:
                    del self.aliases[alias]
            raise

    def find(self, name: str) -> Claim:
        """The claim of this id or alias, or an error that names the nearest."""
        return self[validate.choice("claim", name, [*self, *self.aliases])]

    def current(self, name: str) -> str:
        """The id that a name stands for today; a name that is unknown here stays as it is."""
        return self.aliases.get(name, name)
