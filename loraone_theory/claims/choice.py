"""Which claims are judged, in which dtype and on which device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loraone_theory.claims import Claim, Draws
from loraone_theory.claims.packs import library
from loraone_theory.core import validate

USUAL = Draws(0)  # where a claim is judged unless it is said otherwise


def placed(dtype: Any, device: Any, **files: Any) -> None:
    """A dtype and a device that there are; files are kept of the usual ones alone."""
    validate.choice("dtype", dtype, ("float64", "float32"))
    validate.device(device)
    named = [name for name, given in files.items() if given is not None]
    if (dtype, str(device)) != (USUAL.dtype, USUAL.device) and named:
        raise ValueError(
            f"{named[0]} holds what claims give in {USUAL.dtype} on the {USUAL.device}; got "
            f"dtype={dtype!r} and device={str(device)!r}; leave {named[0]} out"
        )


def chosen(
    names: Sequence[str] = (),
    *,
    paper: str | None = None,
    long: bool = False,
    source: str | Path | None = None,
    dtype: str = "float64",
    device: str = "cpu",
) -> list[str]:
    """The ids of the names, each once; without names those of all claims that qualify.

    Claims that need a package which is not installed are left out then; those that are not judged
    in this dtype or on this device always are.

    Args:
        names: ids or aliases.
        paper: without names, the claims of this paper alone.
        long: without names, the claims that take long, in place of those that do not.
        source: a file of claims, whose names are known too; without names, these alone.
        dtype, device: what `verify` is asked for.

    Raises:
        ValueError: an unknown name or paper, names together with `paper` or `long`, or no claim
            that qualifies.
    """
    validate.flag("long", long)
    if names and (paper is not None or long):
        raise ValueError("claims must not be named together with paper or long; leave one out")
    known = library(source)
    if names:
        return _fitting([known.find(name) for name in names], dtype, device)
    papers = list(dict.fromkeys(claim.paper for claim in known.claims.values()))
    if paper is not None:
        if paper not in papers:
            known.refuse_broken(paper)
        validate.choice("paper", paper, papers)
    among = known.claims.values() if source is None else known.own
    fit = (c for c in among if c.long == long and paper in (None, c.paper))
    judged = [claim for claim in fit if not claim.missing]
    found = _fitting(judged, dtype, device) if judged else []
    if not found:
        what = "takes long" if long else "is quick"
        where = "" if paper is None else f" of paper {paper!r}"
        raise ValueError(
            f"no claim{where} that can be judged here {what}: change paper or long, or name claims"
        )
    return found


def _fitting(claims: Sequence[Claim], dtype: str, device: str) -> list[str]:
    """The ids, each once, of those that are judged in this dtype and on this device."""
    reasons = {claim.id: claim.unfit(dtype, device) for claim in claims}
    found = [name for name, reason in reasons.items() if not reason]
    if reasons and not found:
        (name, reason), *_ = reasons.items()
        raise ValueError(
            f"no claim of these is judged in {dtype} on {device}: of {name}, {reason}; leave dtype "
            "and device out"
        )
    return found
