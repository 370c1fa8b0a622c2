"""Matrix sensing as a fitting problem: L = ‖𝒜(AB − offset) − y‖²/2m."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from loraone_theory.core import memory, validate
from loraone_theory.core.factors import Factors, concatenate, squared_norm
from loraone_theory.core.implicit import Implicit
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.core.validate import Array
from loraone_theory.problems.base import needed
from loraone_theory.problems.described import Described
from loraone_theory.problems.given import shift_and_pretrained
from loraone_theory.problems.rows import Fresh
from loraone_theory.problems.sensing import picked
from loraone_theory.problems.sensing.base import MeasurementOperator, Operator
from loraone_theory.problems.sensing.gram import Gram, pays
from loraone_theory.problems.sensing.operators import OPERATORS
from loraone_theory.problems.sensing.operators.dense import Dense


@dataclass(frozen=True, eq=False, repr=False)
class SensingProblem(Described):
    """Fit labels y_i = ⟨a_i, Δ⟩ + z_i by ⟨a_i, AB⟩ in least squares.

    With R = 𝒜*(𝒜(AB) − y)/m the gradients are ∇_A = RBᵀ and ∇_B = AᵀR, and G = 𝒜*(y)/m. The
    labels are those of the shift: what W itself would measure is taken off. Make one with
    `from_data` or `sample_sensing`.

    Args:
        operator: 𝒜, batch (...).
        labels: y (..., m).
        shift: Δ as Factors, where it is known; risk, error and alignments need it.
        pretrained: W (..., d, k), needed only by initialisations that use W.
        offset: what was subtracted from W in the frozen part: W_f = W − offset.
        seeds: the seed of each instance, where they were drawn.
        recipe: what made it, where it was drawn.
        ensemble: the name in `OPERATORS` that fresh measurements are drawn by; None where their
            law is not known.
        noise_std: σ of the labels of fresh measurements.
        gram: loss and gradients by K = 𝒜*𝒜/m, where that was found to be cheaper.
    """

    operator: MeasurementOperator
    labels: Tensor
    shift: Factors | None = None
    pretrained: Tensor | None = None
    offset: Factors | None = None
    seeds: tuple[int, ...] | None = None
    recipe: dict[str, Any] | None = None
    ensemble: str | None = None
    noise_std: float = 0.0
    gram: Gram | None = None

    one_by_one: ClassVar[bool] = True

    @classmethod
    def from_data(
        cls,
        operator: MeasurementOperator,
        labels: Array,
        *,
        shift: Array | Factors | None = None,
        pretrained: Array | None = None,
    ) -> SensingProblem:
        """The problem of given labels, with or without the Δ they came from.

        Args:
            operator: one of `problems.sensing.operators`, or one of your own with its methods. It
                is held and not copied: leave its tensors as they are.
            labels: y (..., m), less what W measures.
            shift: Δ (d, k), dense or Factors.
            pretrained: W (d, k).

        Raises:
            TypeError: a dtype other than the operator's.
            ValueError: labels, Δ or W that do not fit the operator; non-finite entries.

        >>> from loraone_theory.problems.sensing.operators import Dense
        >>> a = torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(0))
        >>> problem = SensingProblem.from_data(Dense(a), torch.ones(9))
        >>> problem.d, problem.k, problem.measurements, problem.true_rank
        (3, 2, 9, None)
        """
        validate.members(
            "operator",
            operator,
            MeasurementOperator,
            "take one of lt.operators, or lt.operators.Given.from_scipy(operator, d=d, k=k)",
        )
        y = validate.tensor("labels", labels, least_dims=1, owned=True)
        validate.same_kind(operator=operator.like, labels=y)
        validate.shapes_match(
            "labels must hold one number per measurement",
            y.shape[-1] == operator.measurements,
            labels=y.shape,
            measurements=(operator.measurements,),
        )
        validate.broadcastable("operator", operator.batch_shape, "labels", y.shape[:-1])
        _refuse_odd(operator)
        delta = weight = None
        if shift is not None:
            delta, weight = shift_and_pretrained(shift, pretrained)
        elif pretrained is not None:
            weight = validate.tensor("pretrained", pretrained, owned=True)
        for name, M in (("shift", delta), ("pretrained", weight)):
            if M is None:
                continue
            validate.shapes_match(
                f"{name} must have the shape (d, k) of the measured matrices",
                M.shape[-2:] == (operator.d, operator.k),
                **{name: M.shape, "operator": (operator.d, operator.k)},
            )
            validate.same_kind(labels=y, **{name: M.A if isinstance(M, Factors) else M})
        return cls(operator, y, delta, weight)

    @property
    def d(self) -> int:
        """Rows of the measured matrices."""
        return self.operator.d

    @property
    def k(self) -> int:
        """Columns of the measured matrices."""
        return self.operator.k

    @property
    def measurements(self) -> int:
        """m, the number of scalar measurements."""
        return self.operator.measurements

    @property
    def true_rank(self) -> int | None:
        """r*, the rank of Δ, where it is known."""
        return None if self.shift is None else self.shift.rank

    @property
    def unknown(self) -> frozenset[str]:
        """Facts that it cannot state."""
        return frozenset() if self.shift is not None else frozenset({"residual", "risk"})

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""
        shapes = [self.operator.batch_shape, self.labels.shape[:-1]]
        shapes += [F.shape[:-2] for F in (self.shift, self.offset) if F is not None]
        return torch.broadcast_shapes(*shapes)

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""
        return self.labels

    @property
    def replays(self) -> bool:
        """As its operator does, where that is one of the library's."""
        return isinstance(self.operator, Operator) and self.operator.replays

    @property
    def work(self) -> int:
        """Numbers that a step makes per instance: one for each measurement."""
        return self.measurements

    @cached_property
    def targets(self) -> Tensor:
        """What 𝒜(AB) has to equal: y, plus what the offset measures."""
        if self.offset is None:
            return self.labels
        return self.labels + self.operator.forward(self.offset)

    @property
    def target(self) -> Factors | None:
        """T = Δ + offset, what AB has to equal, where Δ is known."""
        if self.shift is None or self.offset is None:
            return self.shift
        return concatenate(self.shift, self.offset)

    def loss(self, shift: Factors) -> Tensor:
        """L = ‖𝒜(AB) − y‖²/2m, shape (...)."""
        if self.gram is not None:
            return self.gram.loss(shift)
        miss = self.operator.forward(shift) - self.targets
        return (miss * miss).sum(-1) / (2 * self.measurements)

    def gradients(self, shift: Factors) -> Factors:
        """(RBᵀ, AᵀR) with R = 𝒜*(𝒜(AB) − y)/m."""
        if self.gram is not None:
            return self.gram.pull(shift)
        _, pulled = self.operator.miss_and_pull(shift, self.targets)
        return Factors(pulled.A / self.measurements, pulled.B / self.measurements)

    def one_step_gradient(self) -> Tensor | Implicit:
        """G = 𝒜*(y)/m, by its products where the operator forms no d×k matrix."""
        batch = self.batch_shape
        return self.operator.gradient(
            self.labels.expand(*batch, self.measurements) / self.measurements
        )

    def residual(self, shift: Factors) -> Tensor:
        """E = AB − T (..., d, k), formed explicitly.

        Raises:
            ValueError: Δ is not known, or E has more than DENSE_LIMIT entries.
        """
        target = self._known_target("the residual")
        memory.refuse_beyond_dense("a residual", self.d, self.k, "record 'risk', which needs none")
        return shift.A @ shift.B - target.A @ target.B

    def risk(self, shift: Factors) -> Tensor:
        """½‖E‖_F², shape (...), without a d×k matrix.

        E = [A T_A]·[B; −T_B] = Q·(R[B; −T_B]) with QR of the first factor: as accurate as the
        difference itself.

        Raises:
            ValueError: Δ is not known.
        """
        target = self._known_target("the risk")
        E = concatenate(shift, Factors(target.A, -target.B))
        if 4 * E.rank > min(self.d, self.k):
            return 0.5 * (self.residual(shift) ** 2).sum((-2, -1))
        return 0.5 * squared_norm(E)

    def with_offset(self, offset: Factors) -> SensingProblem:
        """The same problem with W_f = W − offset."""
        total = offset if self.offset is None else concatenate(self.offset, offset)
        return replace(self, offset=total, gram=None)

    def lighter(self, evaluations: float = math.inf) -> SensingProblem:
        """The same problem in the form whose gradients are cheaper, if there are that many.

        Dense measurements are replaced by K = 𝒜*𝒜/m where m >= 2dk and evaluations >= dk/16, and
        where K fits in memory beside them. By default by sizes alone, as runs have it.
        """
        operator, entries = self.operator, self.d * self.k
        if not (isinstance(operator, Dense) and pays(entries, self.measurements, evaluations)):
            return self
        instances = operator.batch_shape.numel()
        if not memory.fits(4 * instances * entries**2 * self.like.element_size()):
            return self
        return replace(self, gram=Gram.of(operator, self.targets, self.target))

    @property
    def samples(self) -> int:
        """What minibatches are drawn from: measurements, or inputs with all of their outputs."""
        return picked.samples(self.operator)

    def batch(self, indices: Tensor) -> SensingProblem:
        """The problem of the samples `indices` (..., b), which broadcast to the runs."""
        operator = picked.pick(self.operator, indices)
        labels = picked.pick_labels(self.operator, self.labels, indices)
        return replace(self, operator=operator, labels=labels, recipe=None, gram=None)

    @property
    def fresh(self) -> Fresh | None:
        """(step, size, seeds) -> the problem of fresh samples, where their law is known."""
        return None if self.ensemble is None else self._fresh

    def _fresh(self, step: int, size: int, seeds: Sequence[int]) -> SensingProblem:
        assert self.ensemble is not None  # asked through `fresh`
        made, stream = OPERATORS[self.ensemble], f"fresh/{step}/"
        m = size * self.measurements // self.samples
        operator = made.sample(self.d, self.k, m, seeds, self.like, stream=stream)
        labels = operator.forward(needed(self, "shift", "a fresh label"))
        if self.noise_std > 0:
            noise = per_seed(lambda rng: normal(rng, m), seeds, f"{stream}noise", self.like)
            labels = labels + self.noise_std * operator.label_scale * noise
        return replace(self, operator=operator, labels=labels, recipe=None, gram=None)

    def _known_target(self, purpose: str) -> Factors:
        target = self.target
        if target is None:
            raise ValueError(
                f"{purpose} compares with the true shift, which this problem does not know; "
                "pass shift=Δ when making it"
            )
        return target


def _refuse_odd(operator: MeasurementOperator) -> None:
    """What an operator makes of a matrix of ones has no NaN, which it would have from its data."""
    like = operator.like
    ones = Factors(like.new_ones(operator.d, 1), like.new_ones(1, operator.k))
    values = operator.forward(ones)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            "operator must be finite; what it measures of a matrix of ones has "
            f"{int((~torch.isfinite(values)).sum())} NaN or infinite entries of {values.numel()}"
        )
