"""What comes out of a claim, and the file where that is kept."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loraone_theory import storage
from loraone_theory.claims import CLAIMS, Finding
from loraone_theory.core import validate
from loraone_theory.core.shown import InTable
from loraone_theory.core.wording import shown


class UnknownFinding(storage.DamagedFile):
    """A record with a verdict of a word that is not known here; it names the claim and the word."""


@dataclass(frozen=True, repr=False)
class Verdict(InTable):
    """What the numbers say of one claim, with all that a report needs.

    `finding` is the answer; `as_expected` also asks that the mutant was found out. Where the draws
    were kept, `worst_draw` says which was the worst and how to see it again, and `values` is the
    digest of their file. `made` says when it was judged, by which commit and which versions.
    """

    id: str
    finding: Finding
    expected: Finding
    reason: str
    trials: int
    inside: int
    worst: float
    confidence: float
    mutant: Finding
    mutant_reason: str
    seed: int
    smoke: bool
    requested: int
    seconds: float
    numbers: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    worst_draw: dict[str, Any] = field(default_factory=dict)
    values: str = ""
    made: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.finding.value

    def __repr__(self) -> str:
        return (
            f"Verdict({self.id!r}: {self.finding}, expected {self.expected}; mutant {self.mutant}; "
            f"{self.trials} draws)"
        )

    def _told(self) -> dict[str, Any]:
        names = ("id", "finding", "expected", "reason", "trials", "inside", "worst", "mutant")
        return {name: getattr(self, name) for name in names} | self.numbers

    @property
    def conclusive(self) -> bool:
        """Whether the draws decided anything."""
        return self.finding is not Finding.INCONCLUSIVE

    @property
    def as_expected(self) -> bool:
        """Whether claim and mutant came out as the library expects them to.

        A smoke run has few draws, so there INCONCLUSIVE is taken as not contradicting; its mutant
        must be found out all the same.
        """
        undecided = self.smoke and not self.conclusive
        return (undecided or self.finding is self.expected) and self.mutant is Finding.VIOLATED

    def to_record(self) -> dict[str, Any]:
        """The JSON object: `id`, `verdict`, `expected`, `trials`, `mutant_verdict`, ..."""
        record = asdict(self)
        record["verdict"] = record.pop("finding")
        record["mutant_verdict"] = record.pop("mutant")
        if not record["values"]:
            del record["values"], record["worst_draw"]
        if not record["made"]:
            del record["made"]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Verdict:
        """The inverse of `to_record`; a claim that had another id then gets that of today.

        Raises:
            UnknownFinding: a verdict of another word than those of `Finding`.
        """
        values = dict(record)
        values["id"] = CLAIMS.current(values["id"])
        for name in ("verdict", "mutant_verdict", "expected"):
            if isinstance(values[name], str) and values[name] not in list(Finding):
                raise UnknownFinding(
                    f"{name} of claim {values['id']!r} must be one of {', '.join(Finding)}; got "
                    f"{shown(values[name])}; judge the claim again, or take the version of "
                    "loraone_theory that wrote it"
                )
        values["finding"] = Finding(values.pop("verdict"))
        values["mutant"] = Finding(values.pop("mutant_verdict"))
        values["expected"] = Finding(values["expected"])
        return cls(**values)


def made() -> dict[str, Any]:
    """The day, the commit and the versions of a verdict that is made now."""
    return {"date": datetime.now(UTC).date().isoformat(), **copy.deepcopy(_with())}


@functools.cache
def _with() -> dict[str, Any]:
    """What does not change while a process runs."""
    known = storage.provenance()
    return {
        "commit": known["commit"],
        "versions": {name: known["versions"][name] for name in ("python", *storage.NUMERICAL)},
    }


@contextmanager
def _reading(path: str | Path, wanted: str) -> Iterator[None]:
    """`storage.reading`, which tells apart a verdict that is not known here."""
    try:
        with storage.reading(path, wanted):
            yield
    except UnknownFinding as error:
        raise UnknownFinding(f"{path}: {error}") from None


def load(path: str | Path) -> list[dict[str, Any]]:
    """The records of a verdict file, under the ids of today.

    Raises:
        storage.DamagedFile: another kind of file, or a damaged one.
    """
    records = storage.load_json(path)
    with _reading(path, "a list of verdicts that `loraone verify --json` wrote"):
        found = validate.sequence("the file", records, "records")
        return [{**record, "id": Verdict.from_record(record).id} for record in found]


class Store:
    """A verdict file, and the finished claims of an unfinished run beside it.

    Args:
        path: the file; checked here, before anything is measured.
        asked: the settings of this run. Finished claims of a run with others, or of other code,
            are not taken over.
        origin: of the claims from outside the package (`packs.Library`), whose code it tells.
    """

    def __init__(
        self, path: Path, asked: Mapping[str, Any], origin: Mapping[str, str] | None = None
    ) -> None:
        self.path = storage.target(path, ".json")
        self.partial = storage.target(path.with_suffix(".partial.json"))
        self.run = {**asked, "origin": dict(origin or {}), "code": storage.code_version()}
        if self.path.exists():
            load(self.path)
        self._kept = self._read()
        self.done = {
            entry["record"]["id"]: Verdict.from_record(entry["record"])
            for entry in self._kept
            if entry["run"] == self.run
        }

    def _read(self) -> list[dict[str, Any]]:
        if not self.partial.exists():
            return []
        entries = storage.load_json(self.partial)
        with _reading(self.partial, "the finished claims of an unfinished run"):
            for entry in validate.sequence("the file", entries, "finished claims"):
                Verdict.from_record(entry["record"])
                dict(entry["run"])
            return list(entries)

    def keep(self, verdict: Verdict) -> None:
        """Add a finished claim."""
        self._kept.append({"run": self.run, "record": verdict.to_record()})
        self.done[verdict.id] = verdict
        storage.save_json(self.partial, self._kept)

    def finish(self, verdicts: Sequence[Verdict]) -> None:
        """Write the verdicts to the file, in the order of `CLAIMS`, and only then drop them here.

        Finished claims of other runs stay as long as their code is the present one.
        """
        old = load(self.path) if self.path.exists() else []
        records = {record["id"]: record for record in old}
        records |= {verdict.id: verdict.to_record() for verdict in verdicts}
        place = {name: i for i, name in enumerate(CLAIMS)}
        ordered = sorted(records.values(), key=lambda r: place.get(r["id"], len(place)))
        storage.save_json(self.path, ordered)
        written = {verdict.id for verdict in verdicts}
        rest = [
            entry
            for entry in self._kept
            if self._present(entry["run"])
            and not (entry["run"] == self.run and entry["record"]["id"] in written)
        ]
        if rest:
            storage.save_json(self.partial, rest)
        else:
            self.partial.unlink(missing_ok=True)

    def _present(self, run: Mapping[str, Any]) -> bool:
        """Whether nothing is known to have changed of the code that the claims of a run are of."""
        now, then = self.run["origin"], run.get("origin", {})
        same = all(now[name] == then[name] for name in now if name in then)
        return same and run.get("code") == self.run["code"]
