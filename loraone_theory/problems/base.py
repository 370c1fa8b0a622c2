"""What every fitting problem offers, and what it may state about itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.implicit import Implicit

P = TypeVar("P", bound="Problem")


class Problem(Protocol):
    """A loss over weights W + (learned shift), with the learned shift handed in as Factors.

    These members are all that a problem of one's own needs: every method without a W of its own
    runs on it. Tensors carry leading batch dimensions that broadcast against `batch_shape`. What
    else a problem knows it states under a name of `Facts`; whatever needs a fact that is missing
    says so by that name.
    """

    @property
    def d(self) -> int:
        """Input width."""

    @property
    def k(self) -> int:
        """Output width."""

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions: the instances."""

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""

    def loss(self, shift: Factors) -> Tensor:
        """The training loss L at W_f + AB, shape (...)."""

    def gradients(self, shift: Factors) -> Factors:
        """(∇_A L, ∇_B L)."""

    def one_step_gradient(self) -> Tensor | Factors | Implicit:
        """G = −∇_W L at W (..., d, k): dense, as Factors, or by its products alone."""

    def with_offset(self: P, offset: Factors) -> P:
        """The same problem with frozen part W_f = W − offset."""


def check_problem(problem: P) -> P:
    """`problem` if it is one, else TypeError."""
    remedy = "make one with lt.sample_linear, lt.from_loss or a class of your own"
    found: P = validate.members("problem", problem, Problem, remedy)
    return found


class Facts(NamedTuple):
    """What a problem knows besides the protocol; each is an attribute of the same name.

    Args:
        true_rank: r*, the rank of the shift that is to be learned.
        shift: Δ as Factors.
        pretrained: W (..., d, k).
        spectral_gamma: γ of Spectral-init: 1 in the linear model, 2 in the ReLU one.
        relative_shift: () -> max_m ‖Δ_m‖/‖w_m‖, shape (...), of a ReLU problem.
        samples: N; None for a population or where there are no samples to speak of.
        seeds: the seed of each instance, where they were drawn.
        matrix_free: the instances are known only up to a rotation of the input space.
        work: entries that a step goes through per instance, where they exceed the factors'.
        residual: Factors -> E = learned minus true shift (..., d, k).
        risk: the expected loss on a fresh sample, (Factors) -> (...).
        takes_residual: `loss` and `risk` take E as a second argument where it is known.
        batch: indices (..., b) -> the problem of those training rows.
        has_rows: whether the training rows were kept, so that `batch` can be asked.
        fresh: (step, size, seeds) -> the problem of `size` rows that were not seen before.
        test_loss: the loss on held-out rows, (Factors) -> (...).
        one_by_one: several points at once round otherwise than one by one, so that records, which
            do not depend on where a run stopped, take the points one by one.
        replays: gradients are the same work at every point: nothing is read back to decide on the
            way and nothing is kept from call to call, so that a device may record and replay it.
        reveals: it is drawn as a run goes, and what was drawn is not part of its recipe.
        recipe: the sampler that drew it and its arguments, as JSON; None where data were given.
    """

    true_rank: int | None = None
    shift: Factors | None = None
    pretrained: Tensor | None = None
    spectral_gamma: float = 1.0
    relative_shift: Callable[[], Tensor] | None = None
    samples: int | None = None
    seeds: tuple[int, ...] | None = None
    matrix_free: bool = False
    work: int = 0
    residual: Callable[[Factors], Tensor] | None = None
    risk: Callable[..., Tensor] | None = None
    takes_residual: bool = False
    batch: Callable[[Tensor], Any] | None = None
    has_rows: bool = True
    fresh: Callable[..., Any] | None = None
    test_loss: Callable[[Factors], Tensor] | None = None
    one_by_one: bool = False
    replays: bool = False
    reveals: bool = False
    recipe: Mapping[str, Any] | None = None


# Of the fields of a dataclass that fill while a problem is used: not part of its fingerprint.
REVEALED = {"revealed": True}

# Facts that cost something are read when they are asked for.
LAZY = frozenset({"relative_shift"})


def facts(problem: Problem) -> Facts:
    """What a problem states about itself, with the defaults of `Facts` for the rest.

    The one place where attributes of a problem are looked for. A problem that knows a fact of its
    kind only sometimes names those it lacks in an attribute `unknown`.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> known = facts(sample_linear(d=6, k=5, true_rank=2, samples=40))
    >>> known.true_rank, known.samples, known.spectral_gamma
    (2, 40, 1.0)
    """
    return Facts(**{name: fact(problem, name) for name in Facts._fields})


def fact(problem: Problem, name: str) -> Any:
    """One field of `facts(problem)`, without reading the others."""
    default = Facts._field_defaults[name]
    unknown: frozenset[str] = getattr(problem, "unknown", frozenset())
    if name in unknown:
        return default
    if name not in LAZY:
        return getattr(problem, name, default)
    missing = inspect.getattr_static(problem, name, None) is None
    return default if missing else _later(problem, name)


def _later(problem: Problem, name: str) -> Callable[[], Any]:
    return lambda: getattr(problem, name)


def needed(problem: Problem, name: str, purpose: str) -> Any:
    """A fact that has to be there.

    Args:
        problem: which.
        name: a field of `Facts`.
        purpose: what needs it, for the message.

    Raises:
        ValueError: the problem does not state it.
    """
    value = fact(problem, name)
    if value is None:
        raise ValueError(
            f"{purpose} needs {name!r}, which this {type(problem).__name__} does not know; "
            f"give it as an attribute {name} (problems.base.Facts says what it is)"
        )
    return value
