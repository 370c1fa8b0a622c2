"""What a claim draws, and what it measured: one entry per draw."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from loraone_theory.core.wording import kind as type_of
from loraone_theory.core.wording import shown

# Types of the figures for the report.
PLAIN = (bool, int, float, str, np.bool_, np.integer, np.floating)


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


def setting_of(columns: Sequence[np.ndarray]) -> np.ndarray:
    """For each entry of the columns, put one after another, the number of its column.

    >>> setting_of([np.zeros(2), np.zeros(3)])
    array([0, 0, 1, 1, 1])
    """
    return np.repeat(np.arange(len(columns)), [len(column) for column in columns])


class Whole(NamedTuple):
    """The parts of evidence, (n,) each: lhs, rhs and tolerance in float64, inside in bool."""

    lhs: np.ndarray
    rhs: np.ndarray
    inside: np.ndarray
    tolerance: np.ndarray


def whole(evidence: Evidence) -> Whole:
    """The parts of evidence for every draw.

    Raises:
        TypeError: something that is not real numbers, hypotheses that are not booleans, or figures
            for the report that are not plain.
        ValueError: lhs that is not one number per draw, another part that is neither one for all
            nor one per draw, or a probability outside [0, 1].
    """
    lhs = _part("lhs", evidence.lhs)
    if lhs.ndim != 1:
        raise ValueError(
            f"lhs must have shape (n,), one number per draw; got {lhs.shape}; reduce it to one"
        )
    parts = {"rhs": evidence.rhs, "inside": evidence.inside, "tolerance": evidence.tolerance}
    found = {name: _part(name, given) for name, given in parts.items()}
    shapes = {name: part.shape for name, part in found.items() if part.shape != ()}
    if evidence.setting is not None:
        shapes["setting"] = np.shape(evidence.setting)
    for name, shape in shapes.items():
        if shape != lhs.shape:
            one = "" if name == "setting" else "one for all draws or "
            raise ValueError(f"{name} must be {one}one per draw, {lhs.shape}; got shape {shape}")
    if evidence.probability is not None and not 0 <= evidence.probability <= 1:
        raise ValueError(f"probability must lie between 0 and 1; got {evidence.probability!r}")
    for name, value in evidence.numbers.items():
        if not isinstance(value, PLAIN):
            raise TypeError(
                "the numbers of evidence must be plain: booleans, integers, floats or texts; got "
                f"{shown(value)} of type {type_of(value)} for {name!r}; reduce it to one of them"
            )
    wide = {name: np.broadcast_to(part, lhs.shape) for name, part in found.items()}
    return Whole(lhs, **wide)


def _part(name: str, given: Any) -> np.ndarray:
    """An array of float64, of bool where it is `inside`; nothing else is taken for one."""
    array = np.asarray(given)
    wanted, kinds = ("booleans", "bui") if name == "inside" else ("real numbers", "buif")
    if array.dtype.kind not in kinds:
        raise TypeError(
            f"{name} must hold {wanted}; got {shown(given)} of dtype {array.dtype}; convert it"
        )
    return array.astype(np.bool_ if name == "inside" else np.float64)
