"""How the loop advances a batch of runs: in place where that is the same, else by the rule."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import tall
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.dynamics import capture
from loraone_theory.dynamics.by_rule import ByRule
from loraone_theory.dynamics.plan import Plan
from loraone_theory.dynamics.stepper import Stepper
from loraone_theory.methods.rules.base import Descent, State
from loraone_theory.problems.base import fact
from loraone_theory.problems.linear.covariance import Covariance
from loraone_theory.problems.linear.problem import BLOCK_BYTES, LinearProblem


def make(plan: Plan) -> Stepper:
    """The stepper of a plan: in place where rule, parametrisation and problem allow it."""
    if plan.settings.engine == "numba":
        # Loaded on demand: numba takes half a second, and may be absent.
        found: Stepper = importlib.import_module("loraone_theory.dynamics.compiled").make(plan)
        return found
    descent = plan.rule.descent
    pair = plan.method.parametrisation.is_pair
    whole = plan.settings.batches is None
    if descent is not None and pair and whole and type(plan.problem) is LinearProblem:
        return InPlace(plan, plan.problem, descent)
    return ByRule(plan)


class _Piece(NamedTuple):
    """Views of the rows that are worked on together; n runs, w rows, and their neighbours."""

    known: tuple[Tensor, Tensor] | None  # where columns of F go that the last piece has computed
    target: Tensor  # (n, m, ·) those that are new
    inputs: Tensor  # (n, r, ·)
    F: Tensor  # (n, m, ·)
    covariance: Covariance
    F_rows: Tensor  # (*batch, ·, m) known and new
    M_rows: Tensor  # (*batch, ·, m)
    A: Tensor  # (n, r, w)
    M: Tensor  # (n, m, w)
    noise: Tensor | None  # CᵀZ̃, (n, m, w)


class InPlace(Stepper):
    """A `Descent` of a pair on the linear problem, without temporaries.

    With F = T − sAB and M = ηs(Σ̂F + CᵀZ̃), all from time-t values: A ← A + M(RB)ᵀ, B ← B + ρL AᵀM.
    Matrices are held transposed, which makes the long axis contiguous (`tall`). Rows are worked
    through in pieces; as A is overwritten piece by piece, the columns of F that both a piece and
    the next one need are handed on.
    """

    def __init__(self, plan: Plan, problem: LinearProblem, descent: Descent) -> None:
        batch, scale = plan.batch.shape, plan.method.scale
        A, B = plan.start.trainable
        (d, r), m, n = A.shape[-2:], problem.k, batch.numel()
        packed = torch.contiguous_format
        self._A = A.mT.reshape(n, r, d).clone(memory_format=packed)
        self._B = B.reshape(n, r, m).clone(memory_format=packed)
        self._next = self._B.clone()  # equal to B between steps
        self.params: Params = (self._A.view(*batch, r, d).mT, self._B.view(*batch, r, m))
        self.state = plan.rule.init(self.params)
        self._inverses, self._ratio, self._scale = descent.inverses, descent.ratio, scale
        self._rates = plan.batch.rates
        self._gain = scale * descent.learning_rate
        if self._rates.scheduled:  # a tensor that stays where it is, for the recorded step to read
            self._gain = self._as_gain(descent.learning_rate).clone()
        self._pieces = self._cut(problem, batch)
        mutated = (self._A, self._B, self._next)
        self._recorded = None
        if plan.rule.replays and fact(problem, "replays"):
            self._recorded = capture.recorded(self._advance, self.state, mutated, like=self._A)
        if self._recorded is not None:
            self.state = self._recorded.buffers

    def _as_gain(self, rate: Scalar) -> Tensor:
        return torch.as_tensor(self._scale * rate, dtype=self._A.dtype, device=self._A.device)

    def _cut(self, problem: LinearProblem, batch: torch.Size) -> list[_Piece]:
        n, r, d = self._A.shape
        m, reach, like = problem.k, problem.covariance.reach, self._A
        fit = BLOCK_BYTES // (like.element_size() * n * (r + 2 * m))
        count = 1 if reach is None else -(-d // max(fit, 256))
        height, reach = -(-d // count), reach or 0
        T = problem.dense_target.mT.expand(*batch, m, d).reshape(n, m, d)
        H = problem.noise
        if H is not None:
            H = problem.covariance.half_transposed(H).mT.expand(*batch, m, d).reshape(n, m, d)
        F, M = (like.new_zeros(n, m, min(height + 2 * reach, d)) for _ in range(2))
        F_batch, M_batch = (X.view(*batch, m, X.shape[-1]) for X in (F, M))
        pieces: list[_Piece] = []
        seen = before = 0  # rows of F computed so far, and where the last piece began
        for start in range(0, d, height):
            stop = min(start + height, d)
            low, high = max(start - reach, 0), min(stop + reach, d)
            known = None
            if seen > low:
                known = (F[..., : seen - low], F[..., low - before : seen - before])
            inner = slice(start - low, stop - low)
            whole = count == 1
            pieces.append(
                _Piece(
                    known,
                    T[..., seen:high],
                    self._A[..., seen:high],
                    F[..., seen - low : high - low],
                    problem.covariance if whole else problem.covariance.rows(low, high),
                    F_batch[..., : high - low].mT,
                    M_batch[..., : high - low].mT,
                    self._A[..., start:stop],
                    M[..., inner],
                    None if H is None else H[..., start:stop],
                )
            )
            seen, before = high, low
        return pieces

    def step(self, t: int) -> None:
        """One step from time-t values."""
        if self._rates.scheduled:
            self._gain.copy_(self._as_gain(self._rates.at(t)))  # type: ignore[union-attr]
        if self._recorded is None:
            self.state = self._advance(self.state)
        else:
            self._recorded.graph.replay()

    def _advance(self, state: State) -> State:
        RB, gathered, ratio = self._B, self._next, self._ratio
        if self._inverses is not None:
            L, R, state = self._inverses(self.params, state)
            RB, gathered = (R @ self.params[1]).view_as(self._B), torch.zeros_like(self._B)
        for piece in self._pieces:
            if piece.known is not None:
                piece.known[0].copy_(piece.known[1])
            torch.baddbmm(
                piece.target, self._B.mT, piece.inputs, alpha=-self._scale, out=piece.F
            )  # fmt: skip
            piece.covariance.apply(piece.F_rows, out=piece.M_rows)
            if piece.noise is not None:
                piece.M.add_(piece.noise)
            # Not as a factor of the products: so runs of a sweep round as single runs do.
            piece.M_rows.mul_(self._gain)
            _add_inner(gathered, piece.A, piece.M, ratio)
            piece.A.baddbmm_(RB, piece.M)
        if self._inverses is not None:
            self._next.baddbmm_(L.reshape(-1, *L.shape[-2:]), gathered)
        self._B.copy_(self._next)
        return state

    def settle(self) -> None:
        """Nothing waits."""

    def saved(self) -> tuple[Params, State]:
        """Copies of the present tensors."""
        state = self.state if self._recorded is None else self._recorded.saved()
        return tuple(p.clone() for p in self.params), state

    def load(self, params: Params, state: State) -> None:
        """Go on from a saved state."""
        for old, new in zip(self.params, params, strict=True):
            old.copy_(new)
        self._next.copy_(self._B)
        if self._recorded is None:
            self.state = state
        else:
            self._recorded.load(state)


def _add_inner(total: Tensor, A: Tensor, M: Tensor, factor: float) -> None:
    """total += factor·AᵀM, with A and M held transposed (n, r, w), (n, m, w)."""
    if A.shape[0] == 1 and A.shape[-1] >= tall.HALVES:
        total.add_(tall.inner(A.mT, M.mT), alpha=factor)
    else:
        total.baddbmm_(A, M.mT, alpha=factor)
