"""What a simulation returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.core.names import RecordName
from loraone_theory.core.shown import html_table
from loraone_theory.core.status import Outcome
from loraone_theory.dynamics import archive, continuation, labelled, overview, provenance
from loraone_theory.dynamics.continuation import Resume
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.run import Run
from loraone_theory.methods import Method
from loraone_theory.problems.base import Problem


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """The records of a batch of runs.

    Args:
        steps: (T,) the recorded steps, 0 first.
        records: name -> (T, *batch), in the order asked for, vectors with a trailing axis. NaN
            where undefined: alignments of rank-short factors, everything from the step at which a
            run diverged, and what the problem does not know, which `reasons` tells.
        axes: one name for each batch dimension, hyper-parameters first, "seed" last.
        coordinates: axis name -> its values; beside "seed", the seeds of the trials,
            "problem_seed" has those of the instances where they are not the same.
        initial: the factors at t = 0 in the original coordinates: A (*batch, d, r) and
            B (*batch, r, k) where the method trains a pair, else those of the learned shift.
        final: the same at the last step.
        offset: what was subtracted from W in the frozen part, or None.
        scale: s in W_eff = W_f + sAB.
        status: (*batch) array of RunStatus.
        record_axes: name of a vector record -> the name of its trailing axis.
        units: name of a record -> the unit of its values, "1" for plain numbers.
        docs: name of a record -> a line on what it is.
        reasons: name of a record that is NaN -> why.
        factors: (times, *batch, ...) where `keep_factors` asked for them, else None.
        factor_steps: their steps.
        reached: (*batch) the step at which `until` was reached, −1 where it was not; or None.
        resume: what `extend` goes on from.
    """

    steps: np.ndarray
    records: Mapping[str, Tensor]
    axes: tuple[str, ...]
    coordinates: Mapping[str, tuple[float | str, ...]]
    initial: Factors
    final: Factors
    offset: Factors | None
    scale: float
    status: np.ndarray
    record_axes: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    docs: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    factors: Factors | None = None
    factor_steps: tuple[int, ...] = ()
    reached: Tensor | None = None
    resume: Resume = field(default_factory=Resume)

    @classmethod
    def of(cls, run: Run) -> Trajectory:
        """The trajectory of a run that has ended."""
        plan = run.plan
        records = plan.settings.record
        found = cls(
            steps=run.at,
            records=run.values(),
            axes=plan.batch.axes,
            coordinates=plan.batch.coordinates,
            initial=plan.outer(plan.first),
            final=plan.outer(plan.lifted(run.stepper.params)),
            offset=plan.original.offset,
            scale=plan.method.scale if plan.method.is_pair else 1.0,
            status=run.statuses(),
            record_axes={n: row.axis for n, row in records.items() if row.axis is not None},
            units={name: row.unit for name, row in records.items()},
            docs={name: row.doc for name, row in records.items()},
            reasons=run.reasons,
            factors=run.kept.factors(),
            factor_steps=tuple(run.kept.steps),
            reached=run.reached,
            resume=Resume(plan, run.point(), threads=run.threads),
        )
        if provenance.has_own(plan):
            found.config  # noqa: B018  of now, before what the user's own code reaches changes
        return found

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Everything that determined the numbers, as JSON has it; `rerun` takes it."""
        plan, threads = self.resume.plan, self.resume.threads
        return (self.resume.config or {}) if plan is None else provenance.config(plan, threads)

    def __getitem__(self, name: RecordName | str) -> Tensor:
        """The record `name`, shape (T, *batch)."""
        validate.choice("record", name, self.records)
        return self.records[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a record of this name."""
        return name in self.records

    def __iter__(self) -> Iterator[str]:
        """The names of the records."""
        return iter(self.records)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.records)

    def __repr__(self) -> str:
        return f"Trajectory({self._summary()})"

    def _repr_html_(self) -> str:
        shapes = {name: tuple(value.shape) for name, value in self.records.items()}
        return html_table(f"Trajectory: {self._summary()}", shapes)

    def _summary(self) -> str:
        sizes = ", ".join(
            f"{axis}: {size}" for axis, size in zip(self.axes, self.status.shape, strict=True)
        )
        bad = sum(not status.ok for status in self.status.flat)
        state = "all ok" if bad == 0 else f"{bad} of {self.status.size} not ok"
        return (
            f"t = 0 … {self.steps[-1]}, {sizes}; {', '.join(self.records) or 'no records'}; {state}"
        )

    @property
    def diverged(self) -> np.ndarray:
        """(*batch) booleans: which runs ended with non-finite factors or loss."""
        gone = np.vectorize(lambda s: s.outcome is Outcome.DIVERGED, otypes=[bool])
        return gone(self.status)

    @property
    def ok(self) -> np.ndarray:
        """(*batch) booleans: which runs ended well."""
        return np.vectorize(lambda s: s.ok, otypes=[bool])(self.status)

    def learned_shift(self) -> Factors:
        """sA_TB_T − offset: what was added to W, as Factors."""
        shift = Factors(self.scale * self.final.A, self.final.B)
        if self.offset is None:
            return shift
        return concatenate(shift, Factors(-self.offset.A, self.offset.B))

    def extend(
        self,
        steps: int,
        *,
        problem: Problem | None = None,
        method: Method | None = None,
        records: tuple[Record, ...] = (),
        learning_rate: Any = None,
        progress: Callable[[int], object] | None = None,
    ) -> Trajectory:
        """The same runs with `steps` more steps, as one longer run would have made them.

        Factors and the state of the rule are those of the longer run, bit for bit. Records are
        measured many steps at once, and where the run was cut other steps go together: they agree
        to rounding, in most cases in every bit.

        `until` still ends them, unless they had reached its level before. Noise that is drawn as a
        run goes (`sample_linear_lazy`) is drawn on, equal in law.

        Args:
            steps: how many more.
            problem: after `load`, where the problem was not drawn by a sampler.
            method: after `load`, where a part of the method was one's own.
            records: after `load`, the records of one's own.
            learning_rate: after `load`, where it was a function of one's own.
            progress: called with the number of steps done, now and then.

        Raises:
            ValueError: what is handed in is not what the run was made with, or something is
                missing.
        """
        more = validate.integer("steps", steps, least=1)
        run = continuation.go_on(self, more, problem, method, records, learning_rate, progress)
        return continuation.joined(self, Trajectory.of(run))

    def to_numpy(self) -> dict[str, np.ndarray]:
        """`steps` and every record as numpy arrays."""
        arrays = {name: value.cpu().numpy() for name, value in self.records.items()}
        return {"steps": self.steps, **arrays}

    def to_xarray(self) -> Any:
        """The records as an xarray.Dataset with dimensions step, `axes` and those of vectors.

        Coordinates hold the hyper-parameters and the seeds, "problem_seed" too where those differ;
        attributes the units of each record and, as JSON, `config`.

        Raises:
            ImportError: xarray is not installed.
        """
        return labelled.dataset(self)

    def to_pandas(self) -> Any:
        """The records as a long table, one row for each number: a pandas.DataFrame.

        Its columns are step, the coordinates, record, index (within a vector, else −1) and value.

        Raises:
            ImportError: pandas is not installed.
        """
        return labelled.table(self)

    def plot(self, *names: str) -> Any:
        """A matplotlib figure of risk, loss and alignments over steps, as far as recorded.

        With names of records, of those, a panel each; a vector has a line for each entry.
        Means over the seeds with their 10th to 90th percentiles; dashed, means of the predicted
        floor and plateau, where the problem is linear without noise and the run was not loaded.

        Raises:
            ValueError: none of them, or not the one named, was recorded.
        """
        return overview.draw(self, names)

    def save(self, path: str | Path) -> None:
        """Write everything to one npz file, whole or not at all."""
        archive.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read what `save` wrote; pickles are refused."""
        return cls(**archive.load(path))
