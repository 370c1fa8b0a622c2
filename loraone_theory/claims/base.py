"""Claims and the evidence they are judged by.

A claim measures; the judge (`judge.py`) decides. Evidence holds one entry per draw: what was
measured (`lhs`), what was promised (`rhs`) and whether the hypotheses held (`inside`); draws
outside are counted and never taken as support.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import numpy as np

from loraone_theory.core import validate
from loraone_theory.core.shown import InTable

Kind = Literal["identity", "bound", "probability", "value", "certificate"]

# Extra of the distribution -> the package that it brings, for claims that cannot do without.
EXTRAS = {"certify": "flint"}


class Finding(StrEnum):
    """What the numbers say of a claim."""

    SUPPORTED = "SUPPORTED"
    CERTIFIED = "CERTIFIED"
    VIOLATED = "VIOLATED"
    INCONCLUSIVE = "INCONCLUSIVE"
    OUTSIDE_HYPOTHESES = "OUTSIDE HYPOTHESES"


@dataclass(frozen=True)
class Draws:
    """How many draws, from which master seed; `smoke` asks for the smallest sizes.

    Args:
        trials: how many.
        seed: master seed.
        smoke: whether to use the smallest sizes.
        first: number of the first of them, so that one draw of many can be seen again alone.
        handed: block -> seeds, what has been drawn from here.
        dtype: "float64" or "float32", that a claim which states it computes in.
        device: that such a claim computes on.
    """

    trials: int
    seed: int = 0
    smoke: bool = False
    first: int = 0
    handed: dict[object, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    dtype: str = "float64"
    device: str = "cpu"

    @property
    def place(self) -> dict[str, Any]:
        """The arguments of samplers that say where to draw to."""
        return {"dtype": self.dtype, "device": self.device}

    @property
    def eps(self) -> float:
        """Machine epsilon of the dtype, which tolerances are made of."""
        return float(np.finfo(self.dtype).eps)

    def normals(self, *shape: int, block: object = 0) -> np.ndarray:
        """Standard normal numbers (trials, *shape), for a block that a claim names as it likes.

        All of a block come from one generator, a draw's after those of the draw before: more
        trials go on where fewer stopped, and `first` leaves out as many. Numbers of another shape
        are of another block.
        """
        source = replace(self, first=0).seeds(1, block=(block, shape))
        rng = np.random.default_rng(source[0])
        return rng.standard_normal((self.first + self.trials, *shape))[self.first :]

    def seeds(self, count: int | None = None, block: object = 0) -> tuple[int, ...]:
        """`count` seeds (default: one per trial), for a block that a claim names as it likes.

        Seed i is 48 bits of a hash of (master seed, block, i), so blocks and master seeds share no
        draw (up to the chance of a collision, below 1e-4 for 10⁵ seeds), and more trials go on
        where fewer stopped.
        """
        prefix = hashlib.blake2b(f"{self.seed}/{block}".encode(), digest_size=16)
        answer = []
        for i in range(self.first, self.first + (self.trials if count is None else count)):
            digest = prefix.copy()
            digest.update(f"/{i}".encode())
            answer.append(int.from_bytes(digest.digest()[:6], "little"))
        self.handed[block] = max(self.handed.get(block, ()), tuple(answer), key=len)
        return tuple(answer)


class Certificate(NamedTuple):
    """What a proof by subdivision came to.

    Args:
        proved: whether the statement holds on its whole domain.
        counterexample: a point where it does not, verified, or "".
        undecided: what was left open, or "".
        boxes: how many boxes were looked at.
        depth: how often the smallest was halved.
    """

    proved: bool
    counterexample: str
    undecided: str
    boxes: int
    depth: int


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a claim measured.

    - identity: |lhs − rhs| <= tolerance on every draw inside the hypotheses.
    - bound: lhs <= rhs + tolerance on every draw inside.
    - probability: lhs <= rhs + tolerance on a fraction of at least `probability` of the draws.
    - value: the mean of lhs over independent draws is rhs up to `tolerance`, a finite-size
      allowance that the claim states beforehand: its confidence interval lies inside the
      allowance, outside it, or neither.
    - certificate: proved on the whole domain, or refuted at a point; no draws.

    A share or a mean over draws of several settings (sizes, laws) hides one that fails among those
    that hold. With `setting`, none of them may refute the claim on its own draws alone.

    Args:
        lhs: (n,) measured.
        rhs: (n,) promised, or one number.
        inside: (n,) whether the hypotheses hold, or one boolean.
        tolerance: (n,) or one number, derived from dtype, size and conditioning.
        probability: promised probability, for that kind.
        numbers: further figures for the report, by name.
        certificate: for that kind.
        setting: (n,) which setting each draw is of, where probabilities or values have several
            (`setting_of`).
    """

    lhs: np.ndarray
    rhs: np.ndarray | float
    inside: np.ndarray | bool = True
    tolerance: np.ndarray | float = 0.0
    probability: float | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    certificate: Certificate | None = None
    setting: np.ndarray | None = None


Measure = Callable[[Draws], Evidence]


def setting_of(columns: Sequence[np.ndarray]) -> np.ndarray:
    """For each entry of the columns, put one after another, the number of its column.

    >>> setting_of([np.zeros(2), np.zeros(3)])
    array([0, 0, 1, 1, 1])
    """
    return np.repeat(np.arange(len(columns)), [len(column) for column in columns])


def listed(values: Iterable[float]) -> str:
    """Numbers for a text.

    >>> listed((1.0, 0.25, 1e-9))
    '1, 0.25, 1e-09'
    """
    return ", ".join(f"{value:g}" for value in values)


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
        for name in ("trials", "smoke_trials", "cap"):
            if name != "cap" or self.cap is not None:
                validate.integer(f"{name} of claim {self.id!r}", vars(self)[name], least=1)

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
