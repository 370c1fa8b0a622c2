"""Run claims and their mutants, and keep what comes out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from loraone_theory import engines, storage
from loraone_theory.claims import (
    Claim,
    origins,
    sampled,
    stats,
    values,
)
from loraone_theory.claims.choice import USUAL, chosen, placed
from loraone_theory.claims.decided import decided
from loraone_theory.claims.packs import Library, library
from loraone_theory.claims.verdict import Store, made
from loraone_theory.claims.verdict import Verdict as Verdict
from loraone_theory.core import validate
from loraone_theory.core.extras import MissingExtra
from loraone_theory.core.threads import threads_for

# What a record says of its claim besides the numbers.
DESCRIBED = (
    "title",
    "reference",
    "statement",
    "hypotheses",
    "how",
    "kind",
    "mutant_statement",
    "explanation",
    "derivation",
    "figure",
)


def verify(
    claim: str | Claim,
    *,
    trials: int | None = None,
    confidence: float = 0.99,
    seed: int = 0,
    smoke: bool = False,
    draws: str | Path | None = None,
    dtype: str = "float64",
    device: str = "cpu",
) -> Verdict:
    """Measure one claim and its mutant, and judge both.

    Args:
        claim: an id or alias of `CLAIMS` or of an installed pack, or a Claim.
        trials: draws; by default the claim's own number, doubled until it is decided or capped.
        confidence: that no verdict of a whole run is wrong by luck (`stats.each`); a smoke run
            decides each verdict at this level.
        seed: master seed >= 0.
        smoke: use the smallest sizes.
        draws: a folder; what was measured draw by draw is written to a file of the claim in it
            (`values.load` reads it), a few of them to another, and the verdict says which draw was
            the worst.
        dtype: "float32" for claims that have a meaning in it, with tolerances of that dtype.
        device: "cuda" for claims that compute where they are told to.

    Raises:
        ValueError: an unknown id, a number out of range, or a dtype or device that the claim does
            not state or the machine does not have.
        core.extras.MissingExtra: the claim needs a package that is not installed.
        core.faults.BrokenClaim: claim or mutant raised an error, or its evidence is malformed; it
            names the claim and its file.

    >>> str(verify("lora-one/theorem-3.1", trials=5))
    'SUPPORTED'
    """
    if not isinstance(claim, Claim):
        claim = library().find(claim)
    if claim.missing:
        raise MissingExtra(f"{claim.id} cannot be judged here, for {claim.missing}")
    _check(trials, confidence, seed, smoke)
    placed(dtype, device, draws=draws)
    if unfit := claim.unfit(dtype, device):
        raise ValueError(
            f"{claim.id} must be judged elsewhere: {unfit}; leave dtype and device out"
        )
    place = {"dtype": dtype, "device": str(device)}
    first = replace(USUAL, seed=seed, smoke=smoke, dtype=dtype, device=str(device))
    rounds = claim.rounds(smoke=smoke) if trials is None else (trials,)
    level = confidence if smoke else stats.each(confidence)
    start = time.perf_counter()
    # Claims work on many small matrices, for which a second thread costs more than it brings.
    with threads_for(0, torch.device("cpu")):
        drawn, evidence, found = decided(claim, "measure", rounds, first, level)
        _, other, broken = decided(claim, "mutant", rounds, first, level)
        arrays, worst = {}, {}
        if draws is not None:
            arrays = values.collect(evidence, other, drawn)
            worst = values.worst(claim, evidence, drawn)
            values.save(draws, claim.id, arrays)
            sampled.save(draws, claim.id, arrays, worst.get("index"))
    return Verdict(
        id=claim.id,
        finding=found.finding,
        expected=claim.expected,
        reason=found.reason,
        trials=found.trials,
        inside=found.inside,
        worst=found.worst,
        confidence=confidence,
        mutant=broken.finding,
        mutant_reason=broken.reason,
        seed=seed,
        smoke=smoke,
        requested=drawn.trials,
        seconds=time.perf_counter() - start,
        numbers=dict(evidence.numbers),
        about=_about(claim),
        worst_draw=worst,
        values=values.digest(arrays) if arrays else "",
        made=made() | {n: v for n, v in place.items() if v != getattr(USUAL, n)},
    )


def _check(trials: Any, confidence: Any, seed: Any, smoke: Any) -> None:
    if trials is not None:
        validate.integer("trials", trials, least=1)
    validate.fraction("confidence", confidence)
    validate.integer("seed", seed, least=0)
    validate.flag("smoke", smoke)


def _about(claim: Claim) -> dict[str, Any]:
    """The claim in words, so that a report needs the record alone."""
    return {name: getattr(claim, name) for name in DESCRIBED}


def verify_all(
    names: Sequence[str] = (),
    *,
    trials: int | None = None,
    confidence: float = 0.99,
    seed: int = 0,
    smoke: bool = False,
    paper: str | None = None,
    long: bool = False,
    source: str | Path | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    json: str | Path | None = None,
    draws: str | Path | None = None,
    report: Callable[[Verdict], object] | None = None,
    dtype: str = "float64",
    device: str = "cpu",
) -> list[Verdict]:
    """Several claims, each reported as it is decided.

    Without names these are all that do not take long, or with `long` all that do; with `paper`
    only those of that paper; with `source`, a file of claims, only those of the file. Modules in
    the folder of the file can be imported while it is read and measured, as by a script.

    With `json`, their records go to that file, where they replace those of the same ids; others in
    it stay. Finished claims are kept in the .partial.json beside it as they come: a later call with
    the same arguments and the same code takes them over, and they are dropped there once they are
    in the file. The code is that of the package, of installed packs, of the file and of what it
    imported from its folder. With `draws`, what each draw gave goes to files in that folder.

    With another `dtype` or `device` claims that are not judged there are left out, and no file is
    written.

    Several `workers` are processes of their own, and `scheduler` is the address of a Dask cluster
    in their place, whose workers see the folder of `draws`; both need the extra "sweep". But for
    the clock, records do not depend on who judges. A script that asks for workers needs
    `if __name__ == "__main__":` around it.

    A claim that raises an error, or gives evidence that cannot be judged, ends the run with a
    `core.faults.BrokenClaim` that names it; what was finished before stays kept.
    """
    names = validate.sequence("names", names, "ids of claims")
    if report is not None:
        validate.function("report", report)
    _check(trials, confidence, seed, smoke)
    where = engines.place(workers, scheduler)
    placed(dtype, device, json=json, draws=draws)
    place = {"dtype": dtype, "device": str(device)}
    wanted = chosen(names, paper=paper, long=long, source=source, **place)
    known = library(source)
    asked = {"trials": trials, "confidence": confidence, "seed": seed, "smoke": smoke}
    folder = None if draws is None else storage.as_path(draws)
    store = None if json is None else Store(storage.as_path(json), asked, known.origin)
    done = {} if store is None else store.done
    done = {
        name: verdict
        for name, verdict in done.items()
        if name in wanted and (folder is None or values.there(folder, verdict.to_record()))
    }
    verdicts = {}
    options = {**asked, "draws": folder, **place}
    for verdict in _judged(wanted, done, known, source, options, where):
        if store is not None and verdict.id not in done:
            store.keep(verdict)
        verdicts[verdict.id] = verdict
        if report is not None:
            report(verdict)
    ordered = [verdicts[name] for name in wanted]
    if store is not None:
        store.finish(ordered)
    return ordered


def _judged(
    wanted: Sequence[str],
    done: dict[str, Verdict],
    known: Library,
    source: str | Path | None,
    options: dict[str, Any],
    where: engines.Place,
) -> Iterator[Verdict]:
    """The verdicts: in order from one process, those at hand first and then as they come else."""
    if where == engines.Place():
        for name in wanted:
            yield done[name] if name in done else _verified(name, known, source, options)
        return
    yield from (done[name] for name in wanted if name in done)
    left = [name for name in wanted if name not in done]
    origin = tuple(known.origin.items())
    work = functools.partial(_in_worker, source=source, origin=origin, **options)
    for _, verdict in engines.all_of(work, left, where):
        yield verdict


def _verified(
    name: str, known: Library, source: str | Path | None, options: dict[str, Any]
) -> Verdict:
    """One verdict; modules beside the file of claims can be imported meanwhile."""
    if source is None:
        return verify(name, **options)
    with origins.importable(storage.as_path(source)):
        found = verify(known.claims[name], **options)
    own = any(claim.id == name for claim in known.own)
    return replace(found, made=found.made | {"from": str(source)}) if own else found


def _in_worker(
    name: str, *, source: str | Path | None, origin: tuple[tuple[str, str], ...], **options: Any
) -> Verdict:
    return _verified(name, _known_to_worker(source, origin), source, options)


@functools.cache
def _known_to_worker(
    source: str | Path | None,
    origin: tuple[tuple[str, str], ...],  # other code is another library
) -> Library:
    return library(source)
