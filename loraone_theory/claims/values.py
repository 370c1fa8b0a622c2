"""What a verdict was judged by, draw by draw: a file for each claim, and its worst draw."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from loraone_theory import storage
from loraone_theory.claims import CLAIMS, Claim, Draws, Evidence

# One draw alone and the same draw in a batch agree to so much, for it to stand for it.
SAME = 1e-12


def collect(evidence: Evidence, mutant: Evidence, draws: Draws) -> dict[str, np.ndarray]:
    """The arrays of a claim's file.

    Returns:
        lhs, rhs, tolerance, inside: (n,), of the claim; mutant_lhs, ... of its mutant.
        block, seeds_0, seeds_1, ...: names of the blocks of seeds that the claim drew, and the
            seeds of each.
    """
    found = _arrays("", evidence) | _arrays("mutant_", mutant)
    blocks = dict(draws.handed)
    found["block"] = np.array([str(block) for block in blocks], dtype=np.str_)
    for i, seeds in enumerate(blocks.values()):
        found[f"seeds_{i}"] = np.array(seeds, dtype=np.int64)
    return found


def _arrays(prefix: str, evidence: Evidence) -> dict[str, np.ndarray]:
    lhs = np.atleast_1d(np.asarray(evidence.lhs, dtype=np.float64))
    given = {
        "lhs": lhs,
        "rhs": np.asarray(evidence.rhs, dtype=np.float64),
        "tolerance": np.asarray(evidence.tolerance, dtype=np.float64),
        "inside": np.asarray(evidence.inside, dtype=bool),
    }
    return {prefix + name: np.broadcast_to(a, lhs.shape).copy() for name, a in given.items()}


def digest(arrays: dict[str, np.ndarray]) -> str:
    """A fingerprint of the values, which the verdict's record holds too."""
    whole = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        whole.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return whole.hexdigest()


def where(folder: str | Path, id: str) -> Path:
    """The file of a claim in the folder of all."""
    return storage.as_path(folder) / f"{id}.npz"


def save(folder: str | Path, id: str, arrays: dict[str, np.ndarray]) -> None:
    """Write a claim's file, whole or not at all; its folders are made."""
    path = where(folder, id)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.save_arrays(path, arrays)


def there(folder: str | Path, record: dict[str, Any]) -> bool:
    """Whether the values of this record's verdict are in the folder."""
    path = where(folder, record["id"])
    return path.is_file() and digest(storage.load_arrays(path)) == record.get("values")


def load(folder: str | Path, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """The values that the verdict of this record was judged by.

    Args:
        folder: that of `loraone verify --draws`.
        record: of a verdict file.

    Raises:
        storage.DamagedFile: it is damaged, or of another run than the record.
    """
    path = where(folder, record["id"])
    arrays = storage.load_arrays(path)
    if digest(arrays) != record.get("values"):
        raise storage.damaged(path, "the draws of this verdict", "they are of another run")
    return arrays


def worst(claim: Claim, evidence: Evidence, draws: Draws) -> dict[str, Any]:
    """The draw that came nearest to breaking the claim, or broke it most, and how to see it again.

    Returns:
        index, lhs, rhs, and `rerun`: an expression (of `lt`, and of `claim` where the package
        has it not) whose value is that lhs. It draws this one
        alone where draws do not depend on each other, else all of them. Empty where no draw
        meets the hypotheses, and of a certificate, which has no draws.
    """
    a = _arrays("", evidence)
    kept = np.flatnonzero(a["inside"])
    if not len(kept) or claim.kind == "certificate":
        return {}
    gap = a["lhs"] - a["rhs"]
    if claim.kind in ("identity", "value"):
        gap = np.abs(gap)
    gap = np.where(np.isnan(gap), np.inf, gap - a["tolerance"])
    index = int(kept[np.argmax(gap[kept])])
    lhs = float(a["lhs"][index])
    found = {"index": index, "lhs": lhs, "rhs": float(a["rhs"][index])}
    alone = Draws(1, draws.seed, draws.smoke, first=index)
    if len(a["lhs"]) == draws.trials and _each_its_own(draws):
        again = _alone(claim, alone)
        if len(again) == 1 and math.isclose(again[0], lhs, rel_tol=SAME):
            return found | {"rerun": _snippet(claim, alone, 0)}
    return found | {"rerun": _snippet(claim, draws, index)}


def _alone(claim: Claim, draws: Draws) -> np.ndarray:
    """What one draw gives alone; nothing where the claim cannot do with one."""
    try:
        return np.atleast_1d(claim.measure(draws).lhs)
    except Exception:
        return np.zeros(0)


def _each_its_own(draws: Draws) -> bool:
    """Whether the claim took its seeds one per trial, so that trial i hangs on seed i alone."""
    blocks = draws.handed.values()
    return bool(blocks) and all(len(seeds) == draws.trials for seeds in blocks)


def _snippet(claim: Claim, draws: Draws, index: int) -> str:
    rest = f", first={draws.first}" if draws.first else ""
    smoke = ", smoke=True" if draws.smoke else ""
    arguments = f"{draws.trials}, {draws.seed}{smoke}{rest}"
    named = f'lt.claims.CLAIMS["{claim.id}"]' if claim.id in CLAIMS else "claim"
    return f"{named}.measure(lt.claims.Draws({arguments})).lhs[{index}]"
