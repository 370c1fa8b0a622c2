"""A few of a verdict's draws: what is small enough to be kept in the repository, and drawn.

`values.py` keeps every draw. Beside its files, in a folder of their own, stand files of at most
`MOST` draws of the claim and as many of its mutant, in float32; the worst draw is among them, and
in float64 in the verdict's record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import storage
from loraone_theory.claims import values

MOST = 160
# The folder of these files in that of all draws. No id of a claim begins so.
FOLDER = "_sampled"
_SIDES = ("lhs", "rhs", "tolerance", "inside")


class Side(NamedTuple):
    """Draws of a claim, or of its mutant.

    Args:
        lhs: (n,) measured.
        rhs: (n,) promised.
        tolerance: (n,).
        inside: (n,) whether the hypotheses hold.
        of: how many draws there were.
        mean: of lhs, over all draws inside the hypotheses.
    """

    lhs: np.ndarray
    rhs: np.ndarray
    tolerance: np.ndarray
    inside: np.ndarray
    of: int
    mean: float


class Sample(NamedTuple):
    """What a figure of the draws shows."""

    claim: Side
    mutant: Side


def thinned(arrays: dict[str, np.ndarray], worst: int | None) -> dict[str, np.ndarray]:
    """At most `MOST` draws of each side, equally far apart, and the worst.

    Args:
        arrays: all draws, as `values.collect` gives them.
        worst: index of the draw that must not be left out.

    Returns:
        claim, mutant: (4, n) float32, the rows lhs, rhs, tolerance, inside; total: (2,) how many
        draws there were of each; mean: (2,) of lhs inside the hypotheses; of: digest of the whole.
    """
    inside = [arrays[f"{prefix}lhs"][arrays[f"{prefix}inside"]] for prefix in ("", "mutant_")]
    return {
        "claim": _side(arrays, "", worst),
        "mutant": _side(arrays, "mutant_", None),
        "total": np.array([len(arrays["lhs"]), len(arrays["mutant_lhs"])]),
        "mean": np.array([lhs.mean() if len(lhs) else np.nan for lhs in inside]),
        "of": np.array(values.digest(arrays)),
    }


def _side(arrays: dict[str, np.ndarray], prefix: str, worst: int | None) -> np.ndarray:
    count = len(arrays[f"{prefix}lhs"])
    chosen = np.arange(count)
    if count > MOST:
        chosen = np.linspace(0, count - 1, MOST - (worst is not None)).round().astype(np.int64)
        chosen = np.union1d(chosen, [] if worst is None else [worst]).astype(np.int64)
    rows = [arrays[prefix + name][chosen] for name in _SIDES]
    with np.errstate(over="ignore"):  # beyond float32 a draw is as good as infinite
        return np.stack(rows).astype(np.float32)


def save(folder: str | Path, id: str, arrays: dict[str, np.ndarray], worst: int | None) -> None:
    """Write the file of a claim."""
    values.save(Path(folder) / FOLDER, id, thinned(arrays, worst))


def load(folder: str | Path, record: dict[str, Any]) -> Sample | None:
    """The draws of this record's verdict that were kept; None where there are none.

    Files of other verdicts count as none.

    Args:
        folder: that of `loraone verify --draws`.
        record: of a verdict file.

    Raises:
        storage.DamagedFile: a file that is there cannot be read.
    """
    if not record.get("values"):
        return None
    path = values.where(Path(folder) / FOLDER, record["id"])
    if path.is_file():
        found = storage.load_arrays(path)
    elif values.there(folder, record):
        found = thinned(values.load(folder, record), record["worst_draw"].get("index"))
    else:
        return None
    with storage.reading(path, "a few draws of a verdict, as `loraone verify --draws` writes them"):
        if str(found["of"]) != record["values"]:
            return None
        return Sample(_read(found, 0, "claim"), _read(found, 1, "mutant"))


def _read(found: dict[str, np.ndarray], i: int, name: str) -> Side:
    lhs, rhs, tolerance, inside = found[name].astype(np.float64)
    total, mean = int(found["total"][i]), float(found["mean"][i])
    return Side(lhs, rhs, tolerance, inside > 0, total, mean)
