"""Steppers whose loops numba compiles, each for exactly one class of problems.

They give what torch's steppers give, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.arrays import all_finite
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import GRAM_GAP
from loraone_theory.core.threads import side_by_side
from loraone_theory.dynamics import kernels, sines
from loraone_theory.dynamics.by_rule import ByRule
from loraone_theory.dynamics.kernels import Measured, Runs
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.dynamics.stepper import Stepper
from loraone_theory.methods.rules.base import State
from loraone_theory.problems.linear.covariance import Diagonal
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.relu.fused import Fused
from loraone_theory.problems.relu.problem import ReLUProblem

# Entries of the long axis are a multiple of this: those of a vector unit in float32.
VECTOR = 16
# Steps of all runs together from which a second thread is worth its start.
SHARED = 256
LOSSES = ("loss", "risk", "error")
SINE = "left_alignment"


def make(plan: Plan) -> Stepper:
    """The stepper of a plan that `engine.check` has let through."""
    if type(plan.problem) is ReLUProblem:
        return ByRule(plan, Fused(plan.problem))
    assert isinstance(plan.problem, LinearProblem)
    return Descending(plan, plan.problem)


class Descending:
    """Plain descent of pairs on a `LinearProblem` with diagonal Σ̂, measured as it goes."""

    def __init__(self, plan: Plan, problem: LinearProblem) -> None:
        descent = plan.rule.descent
        assert descent is not None
        A, B = plan.start.trainable
        self._plan, self._problem, self._batch = plan, problem, plan.batch.shape
        (self._d, r), m, n = A.shape[-2:], problem.k, plan.batch.shape.numel()
        self._width = -(-self._d // VECTOR) * VECTOR
        like = problem.like
        self._A, self._B = like.new_zeros(n, r, self._width), like.new_zeros(n, r, m)
        self.params: Params = self._shown(self._A, self._B)
        self.state: State = plan.rule.init(self.params)
        covariance, spectrum = problem.covariance, torch.ones_like(like.new_empty(self._d))
        if isinstance(covariance, Diagonal):
            spectrum = covariance.values
        F, M = np.zeros((2, n, m, self._width), self._A.numpy().dtype)
        self._runs = Runs(
            self._A.numpy(),
            self._B.numpy(),
            F,
            M,
            self._padded(problem.dense_target.mT, m),
            self._padded(spectrum[..., None, :], 1)[:, 0].copy(),
        )
        number = self._A.numpy().dtype.type
        self._scale, self._ratio = number(plan.method.scale), number(descent.ratio)
        self._gains = self._as_gains(plan.method.scale * descent.learning_rate)[None]
        self._measured = self._nothing = self._empty(0, {}, 0)
        self._sine: Tensor | None = None
        self._at, self._frame, self._all = np.empty(0, np.int64), np.empty(0), False
        self.load((A, B), self.state)

    def _shown(self, A: Tensor, B: Tensor) -> Params:
        """(A, B) with batch axes, of the padded (n, r, w) and of (n, r, m)."""
        whole = A.view(*self._batch, *A.shape[1:])
        return whole[..., : self._d].mT, B.view(*self._batch, *B.shape[1:])

    def _padded(self, M: Tensor, rows: int) -> np.ndarray:
        """(n, rows, w) of a tensor (..., rows, d) that broadcasts to the runs."""
        n = self._batch.numel()
        space = M.new_zeros(n, rows, self._width)
        space[..., : self._d] = M.expand(*self._batch, rows, self._d).reshape(n, rows, self._d)
        return space.numpy()

    def _as_gains(self, rate: Scalar) -> np.ndarray:
        """ηs of every run, (n,)."""
        gain = torch.as_tensor(rate, dtype=self._A.dtype)
        return gain.expand(*self._batch, 1, 1).reshape(-1).contiguous().numpy()

    def watch(
        self,
        records: Mapping[str, Record],
        at: np.ndarray,
        threads: int,
        pool: ThreadPoolExecutor,
    ) -> dict[str, Tensor]:
        """The records that steps fill from now on, (times, *batch) each; what is at hand is in."""
        self._at, self._threads, self._pool = at, threads, pool
        self._all = len(at) > 0 and len(at) == at[-1] + 1 - at[0]
        n, found = self._batch.numel(), {}
        for name, row in records.items():
            if row is RECORDS.get(name) and self._serves(name):
                found[name] = self._A.new_full((len(at), n), torch.nan)
        rows = min(len(at), SHARED) if SINE in found else 0
        self._measured = self._empty(len(at), found, rows)
        if SINE in found:
            self._sine = found[SINE]
            U = self._plan.view(self.params, lift=False).reference.U
            self._frame = self._padded(U.mT, U.shape[-1])
        if len(at) and at[0] == 0:
            kernels.observe(self._runs, self._measured, 0)
            self._angles(np.zeros(1, np.int64), slice(0, n))
        return {name: value.unflatten(1, self._batch) for name, value in found.items()}

    def tell(self, steps: Sequence[int]) -> None:
        """None: its losses are among the records that it fills."""

    def settle(self) -> None:
        """Nothing waits."""

    def _serves(self, name: str) -> bool:
        if name == SINE:
            return self._problem.true_rank <= min(self._d, self._A.shape[1])
        isotropic = self._problem.population_covariance is None
        return name in LOSSES and (name != "risk" or isotropic)

    def _empty(self, times: int, found: Mapping[str, Tensor], rows: int) -> Measured:
        runs, kind = self._batch.numel(), self._A.numpy().dtype
        absent = np.empty((0, runs), kind)
        loss, risk, error = (found[n].numpy() if n in found else absent for n in LOSSES)
        states = np.empty((runs if rows else 0, rows, *self._A.shape[1:]), kind)
        return Measured(loss, risk, error, states)

    def step(self, t: int) -> None:
        """One step, which is not measured."""
        self._go(t, np.full(1, -1), self._nothing)

    def steps(self, first: int, stop: int) -> None:
        """Steps first, …, stop − 1, measured where that was asked for."""
        for start in range(first, stop, SHARED):
            times = np.arange(start + 1, min(start + SHARED, stop) + 1)
            self._go(start, self._rows_of(times), self._measured)

    def _rows_of(self, times: np.ndarray) -> np.ndarray:
        """The row that is measured at each time, −1 for none."""
        if self._all:
            return times - self._at[0]
        places = np.searchsorted(self._at, times)
        there = places < len(self._at)
        there[there] = self._at[places[there]] == times[there]
        return np.where(there, places, -1)

    def _go(self, first: int, rows: np.ndarray, measured: Measured) -> None:
        gains = self._gains
        if self._plan.batch.rates.scheduled:
            rates = (self._plan.batch.rates.at(t) for t in range(first, first + len(rows)))
            gains = np.stack([self._as_gains(self._plan.method.scale * rate) for rate in rates])

        def work(part: slice) -> None:
            among = (part.start, part.stop)
            kernels.advance(self._runs, measured, rows, gains, self._scale, self._ratio, among)
            if len(measured.states):
                self._angles(rows[rows >= 0], part)

        n = self._batch.numel()
        if n > 1 and self._measured is measured and n * len(rows) >= SHARED and self._threads > 1:
            side_by_side(self._pool, work, n, self._threads)
        else:
            work(slice(0, n))

    def _angles(self, rows: np.ndarray, part: slice) -> None:
        """The sines of the states that have just been taken, to their rows."""
        if self._sine is None or not len(rows):
            return
        found = np.empty(len(rows), self._frame.dtype)
        for i in range(part.start, part.stop):
            states = self._measured.states[i, : len(rows)]
            sines.largest_sines(states, self._frame[i], self._d, GRAM_GAP, found)
            self._sine.numpy()[rows, i] = found

    def finite(self) -> bool:
        """Whether no entry of A and B is NaN or infinite: an F that is finite says so."""
        with np.errstate(all="ignore"):
            total = self._runs.F.sum()
        return math.isfinite(total) or all_finite(*self.params)

    def saved(self) -> tuple[Params, State]:
        """Copies of the present tensors."""
        return self._shown(self._A.clone(), self._B.clone()), self.state

    def load(self, params: Params, state: State) -> None:
        """Go on from a saved state."""
        for old, new in zip(self.params, params, strict=True):
            old.copy_(new)
        self._A[..., self._d :] = 0  # 0·∞ where a run has diverged
        kernels.refresh(self._runs, self._scale)
        self.state = state
