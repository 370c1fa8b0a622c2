"""Claims.

A claim measures; the judge (`judge.py`) decides. Evidence (`evidence.py`) holds one entry per draw:
what was measured (`lhs`), what was promised (`rhs`) and whether the hypotheses held (`inside`);
draws outside are counted and never taken as support.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, get_args

from loraone_theory.claims.evidence import Certificate as Certificate
from loraone_theory.claims.evidence import Draws as Draws
from loraone_theory.claims.evidence import Evidence as Evidence
from loraone_theory.claims.evidence import setting_of as setting_of
from loraone_theory.core import validate
from loraone_theory.core.shown import InTable
from loraone_theory.core.wording import shown

Kind = Literal["identity", "bound", "probability", "value", "certificate"]

# Extra of the distribution -> the package that it brings, for claims that cannot do without.
EXTRAS = {"certify": "flint"}
# In which a claim may have a meaning.
DTYPES = ("float64", "float32")


class Finding(StrEnum):
    """What the numbers say of a claim."""

    SUPPORTED = "SUPPORTED"
    CERTIFIED = "CERTIFIED"
    VIOLATED = "VIOLATED"
    INCONCLUSIVE = "INCONCLUSIVE"
    OUTSIDE_HYPOTHESES = "OUTSIDE HYPOTHESES"


Measure = Callable[[Draws], Evidence]


def listed(values: Iterable[float]) -> str:
    """Numbers for a text.

    >>> listed((1.0, 0.25, 1e-9))
    '1, 0.25, 1e-09'
    """
    return ", ".join(f"{value:g}" for value in values)


def _texts(name: str, given: Any) -> tuple[str, ...]:
    """A tuple of texts; one text alone is refused, for its letters are texts too."""
    if not isinstance(given, (tuple, list)) or not all(isinstance(text, str) for text in given):
        comma = ", with a comma after a single one: ('...',)" if isinstance(given, str) else ""
        raise TypeError(f"{name} must be a tuple of texts{comma}; got {shown(given)}")
    return tuple(given)


@dataclass(frozen=True, eq=False, repr=False)
class Claim(InTable):
    """A statement, how it is measured, and a broken version of it that must be found out.

    Args:
        id: its name, by which it is run and reported, for example "lora-one/theorem-3.1": first
            the paper, then the statement and its parts, in small letters, digits, points and
            hyphens.
        title: a few words.
        reference: theorem, equation or section of the paper, or of docs/derivations.md.
        statement: in the paper's notation.
        hypotheses: under which it is claimed, one string each.
        how: how it is tested, on which sizes.
        kind: identity, bound, probability, value or certificate.
        measure: draws -> Evidence.
        mutant_statement: the claim broken on purpose.
        mutant: draws -> Evidence of the broken claim; it must come out VIOLATED.
        trials: draws at full size.
        smoke_trials: draws of a smoke run.
        cap: draws that an undecided claim may go on to; 32 times `trials` where None.
        expected: the verdict expected at full size.
        explanation: why, where that is not SUPPORTED, or what limits the support.
        derivation: anchor in docs/derivations.md, or "".
        figure: file name under figures/, "fig_alignment.png", or "".
        uses: ids of the claims that its proof, or the way it is measured, rests on.
        aliases: other names that lead to it, such as former ids.
        long: takes minutes or more: left out unless named, or asked for with the other long ones.
        extra: of the distribution, that it needs, for example "certify", or "".
        dtypes: that its statement has a meaning in: its problems are drawn in `Draws.dtype` and its
            tolerances made of `Draws.eps`, or need none.
        devices: that it computes on, by `Draws.device`.
    """

    id: str
    title: str
    reference: str
    statement: str
    hypotheses: tuple[str, ...]
    how: str
    kind: Kind
    measure: Measure
    mutant_statement: str
    mutant: Measure
    trials: int
    smoke_trials: int
    expected: Finding = Finding.SUPPORTED
    explanation: str = ""
    derivation: str = ""
    figure: str = ""
    uses: tuple[str, ...] = ()
    cap: int | None = None
    aliases: tuple[str, ...] = ()
    long: bool = False
    extra: str = ""
    dtypes: tuple[str, ...] = ("float64",)
    devices: tuple[str, ...] = ("cpu",)

    def __post_init__(self) -> None:
        given = vars(self)
        for name in ("trials", "smoke_trials", "cap"):
            if name != "cap" or self.cap is not None:
                validate.integer(f"{name} of claim {self.id!r}", given[name], least=1)
        validate.choice(f"the kind of claim {self.id!r}", self.kind, get_args(Kind))
        words = [finding.value for finding in Finding]
        found = validate.choice(f"what is expected of claim {self.id!r}", self.expected, words)
        given["expected"] = Finding(found)
        for name in ("hypotheses", "aliases", "uses", "dtypes", "devices"):
            given[name] = _texts(f"{name} of claim {self.id!r}", given[name])
        for name, known in (("dtypes", DTYPES), ("extra", ("", *EXTRAS))):
            each = given[name] if name == "dtypes" else (given[name],)
            validate.choices(f"{name} of claim {self.id!r}", each, known)
        for name in ("measure", "mutant"):
            validate.function(f"{name} of claim {self.id!r}", given[name])

    def __repr__(self) -> str:
        return f"Claim({self.id!r}, {self.kind}, expected {self.expected})"

    def _told(self) -> dict[str, Any]:
        hypotheses = {"hypotheses": "; ".join(self.hypotheses), "expected": self.expected}
        names = ("id", "title", "reference", "statement", "how", "kind", "mutant_statement")
        return {name: getattr(self, name) for name in names} | hypotheses

    @property
    def paper(self) -> str:
        """The paper that it is of: what its id begins with, for example "lora-one"."""
        return self.id.partition("/")[0]

    @property
    def missing(self) -> str:
        """Why it cannot be judged here: a package that is not installed; "" where it can."""
        if not self.extra or importlib.util.find_spec(EXTRAS[self.extra]) is not None:
            return ""
        return f"{EXTRAS[self.extra]} is not installed: pip install 'loraone-theory[{self.extra}]'"

    def unfit(self, dtype: str, device: str) -> str:
        """Why it cannot be judged in this dtype or on this device; "" where it can."""
        if dtype not in self.dtypes:
            return f"it is stated in {' and '.join(self.dtypes)} alone, not in {dtype}"
        if device.partition(":")[0] not in self.devices:
            return f"it is computed on the {' or '.join(self.devices)} alone, not on {device}"
        return ""

    def rounds(self, *, smoke: bool) -> tuple[int, ...]:
        """Draws after which the judge looks: doubled until the cap; a smoke run looks once."""
        if smoke:
            return (self.smoke_trials,)
        cap = 32 * self.trials if self.cap is None else max(self.cap, self.trials)
        counts = [self.trials]
        while 2 * counts[-1] <= cap:
            counts.append(2 * counts[-1])
        return tuple(counts)


class Paper(NamedTuple):
    """Where claims come from.

    Args:
        id: what the ids of its claims begin with: the name of its folder, with hyphens.
        title: a few words, the heading of its part of the report.
        reference: authors, year, where to read it.
        files: modules or other things with `CLAIMS`, in the order of the report.
        sections: second part of an id -> heading of the claims of that kind; the others are the
            paper's own and come first.
    """

    id: str
    title: str
    reference: str
    files: Sequence[Any]
    sections: Mapping[str, str] = {}

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Those of its files, in their order."""
        return tuple(claim for file in self.files for claim in file.CLAIMS)

    def section(self, id: str) -> str:
        """The heading that the claim of this id comes under; "" for the paper's own statements."""
        _, _, rest = id.partition("/")
        return self.sections.get(rest.partition("/")[0], "")
