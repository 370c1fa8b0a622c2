"""Is a problem what initialisations, rules, records and the loop take it for?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loraone_theory.core.arrays import DTYPES
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.core.implicit import Implicit
from loraone_theory.core.wording import kind
from loraone_theory.problems.base import Facts, Problem, fact, facts
from loraone_theory.testing.base import (
    ContractError,
    copied,
    draw,
    gap,
    random_states,
    require,
    same_bits,
)

MEMBERS = ("d", "k", "batch_shape", "like", "loss", "gradients", "one_step_gradient", "with_offset")
SIZE = 0.3  # of the entries of factors


def check_problem(problem: Problem) -> None:
    """Hold a problem without an offset to what the loop relies on; nothing is returned.

    Its members are there; losses and gradients have the dtype, the device and the batch shape they
    should; gradients agree with differences of the loss, and G with the gradient at W; nothing is
    mutated, drawn or remembered; runs in a batch are those alone; an offset is subtracted; and
    every fact that it states is true.

    Raises:
        ContractError: a promise is broken; the message says which.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> check_problem(sample_linear(d=6, k=5, true_rank=2, samples=40, seeds=(0, 1)))
    """
    for name in MEMBERS:
        require(hasattr(problem, name), f"a problem needs {name!r}; {kind(problem)} has none")
    for name in ("loss", "gradients", "one_step_gradient", "with_offset"):
        part = getattr(problem, name)
        require(callable(part), f"{name} of a problem must be a function; got {kind(part)}")
    like = problem.like
    require(
        isinstance(like, Tensor) and like.dtype in DTYPES,
        f"like must be a float32 or float64 tensor; got {kind(like)}",
    )
    at = _factors(problem, 1, (), min(2, problem.d, problem.k))
    _pure(problem, at)
    _shapes(problem, at)
    _slopes(problem, at)
    _batches(problem)
    _one_step(problem)
    _offsets(problem, at)
    _facts(problem, facts(problem), at)


def _factors(problem: Problem, seed: int, outer: tuple[int, ...], rank: int) -> Factors:
    batch = (*outer, *problem.batch_shape)
    like = problem.like
    A = draw(seed, *batch, problem.d, rank, dtype=like.dtype).to(like.device)
    B = draw(seed + 1, *batch, rank, problem.k, dtype=like.dtype).to(like.device)
    return Factors(SIZE * A, SIZE * B)


def _eps(problem: Problem) -> float:
    return torch.finfo(problem.like.dtype).eps


def _digits(problem: Problem) -> float:
    """Two ways to one number agree to half of the digits, whatever order they sum in."""
    return _eps(problem) ** 0.5


def _pure(problem: Problem, at: Factors) -> None:
    before, states = copied(at), random_states()
    loss, gradients = problem.loss(at), problem.gradients(at)
    require(isinstance(loss, Tensor), f"loss must give a tensor; got {kind(loss)}")
    require(isinstance(gradients, Factors), f"gradients must be lt.Factors; got {kind(gradients)}")
    first = (loss, *gradients)
    second = (problem.loss(at), *problem.gradients(at))
    require(same_bits(tuple(at), tuple(before)), "factors handed in must not be written to")
    require(same_bits(first, second), "the same factors must give the same loss and gradients")
    require(
        states == random_states(),
        "a problem must leave torch's global generator alone, and numpy's; draw data when it is "
        "made",
    )
    require(
        not any(tensor.requires_grad for tensor in first),
        "losses and gradients must be plain tensors; detach them from the graph",
    )


def _shapes(problem: Problem, at: Factors) -> None:
    batch, like = torch.Size(problem.batch_shape), problem.like
    loss, gradients = problem.loss(at), problem.gradients(at)
    wanted = {"loss": (loss, batch), "grad_A": (gradients.A, at.A.shape)}
    wanted["grad_B"] = (gradients.B, at.B.shape)
    for name, (found, shape) in wanted.items():
        require(found.shape == shape, f"{name} must be {tuple(shape)}; got {tuple(found.shape)}")
        require(
            found.dtype == like.dtype and found.device == like.device,
            f"{name} must be {like.dtype} on {like.device}; got {found.dtype} on {found.device}",
        )
        require(bool(torch.isfinite(found).all()), f"{name} must be finite at factors of size one")


def _slopes(problem: Problem, at: Factors) -> None:
    """Central differences along random directions: errors of h² and ε/h, h = ε^{1/3}."""
    h = _eps(problem) ** (1 / 3)
    gradients = problem.gradients(at)
    for seed in (11, 13, 15):
        along = _factors(problem, seed, (), at.rank)
        for name, step in (("A", (1, 0)), ("B", (0, 1))):
            move = Factors(step[0] * along.A, step[1] * along.B)
            ends = [
                problem.loss(Factors(at.A + sign * h * move.A, at.B + sign * h * move.B)).double()
                for sign in (1, -1)
            ]
            slope = (ends[0] - ends[1]) / (2 * h)
            pairs = list(zip(gradients, move, strict=True))
            expected = sum((g * m).double().sum((-2, -1)) for g, m in pairs)
            norms = [(g.double().norm(), m.double().norm()) for g, m in pairs]
            size = sum(float(g * m) for g, m in norms) + float(problem.loss(at).abs().max())
            off = float((slope - expected).abs().max())
            # A third of the digits, with room for curvature of size one.
            require(
                off <= 20 * h * size,
                f"grad_{name} must be the derivative of the loss: along a random direction the "
                f"loss changes by {slope.flatten()[0]:.6g} and the gradient says "
                f"{expected.flatten()[0]:.6g}",  # type: ignore[union-attr]
            )


def _batches(problem: Problem) -> None:
    """Runs along leading axes, of times and of a sweep, are the same alone."""
    for outer in ((3,), (2, 3)):
        many = _factors(problem, 21, outer, 1)
        found = _all(problem, many, f"{len(outer)} leading axes")
        for index in ((0,) * len(outer), tuple(n - 1 for n in outer)):
            alone = _all(problem, Factors(many.A[index], many.B[index]), "no leading axis")
            for name, whole, single in zip(("loss", "grad_A", "grad_B"), found, alone, strict=True):
                fits = whole.shape[: len(outer)] == outer
                off = gap(whole[index], single) if fits else float("inf")
                require(
                    off <= _digits(problem),
                    f"{name} of runs along a leading axis must be those of each run alone; "
                    f"{off:.1e} away",
                )
    _shared(problem)


def _all(problem: Problem, at: Factors, what: str) -> tuple[Tensor, ...]:
    try:
        return (problem.loss(at), *problem.gradients(at))
    except Exception as error:
        raise ContractError(
            f"loss and gradients must take factors with {what}; they raised "
            f"{type(error).__name__}: {error}; write products as A @ B, sums over (-2, -1)"
        ) from error


def _shared(problem: Problem) -> None:
    """A factor that all runs share comes without leading axes: I of full fine-tuning."""
    full = Factors(
        _factors(problem, 23, (3,), problem.k).A @ _factors(problem, 25, (), problem.k).B,
        torch.eye(problem.k).to(problem.like),
    )
    wide = Factors(full.A, full.B.expand(*full.A.shape[:-2], *full.B.shape))
    found, expected = (
        _all(problem, at, "leading axes in one of them alone") for at in (full, wide)
    )
    for name, one, other in zip(("loss", "grad_A"), found, expected, strict=False):
        off = gap(one, other)
        require(
            off <= _digits(problem),
            f"{name} must not depend on whether a factor that runs share is handed in once or for "
            f"each of them; {off:.1e} away",
        )


def _one_step(problem: Problem) -> None:
    """At A = I (as many columns as fit), B = 0: ∇_B = −AᵀG."""
    G = problem.one_step_gradient()
    wanted = f"one_step_gradient must be ({problem.d}, {problem.k}), dense or lt.Factors"
    require(isinstance(G, (Tensor, Factors, Implicit)), f"{wanted}; got {kind(G)}")
    dense = G if isinstance(G, Tensor) else G.dense()
    require(dense.shape[-2:] == (problem.d, problem.k), f"{wanted}; got {tuple(dense.shape)}")
    r = min(problem.d, problem.k)
    like = problem.like
    A = torch.eye(problem.d, r).to(like).expand(*problem.batch_shape, problem.d, r)
    B = like.new_zeros(*problem.batch_shape, r, problem.k)
    found = problem.gradients(Factors(A, B)).B
    expected = -dense[..., :r, :].expand(found.shape)
    off = gap(found, expected)
    require(
        off <= _digits(problem),
        f"one_step_gradient must be minus the gradient of the loss at W; {off:.1e} away",
    )


def _offsets(problem: Problem, at: Factors) -> None:
    offset = _factors(problem, 31, (), 1)
    before = problem.loss(at)
    moved = problem.with_offset(offset)
    found = moved.loss(concatenate(at, offset))
    off = gap(found, before)
    require(
        off <= _digits(problem),
        "with_offset(F) must have the frozen part W - F, so that learning F as well gives the "
        f"loss without it; {off:.1e} away",
    )
    require(same_bits(problem.loss(at), before), "with_offset must leave the problem as it was")
    for name in ("residual", "risk", "test_loss"):
        known, after = fact(problem, name), fact(moved, name)
        if known is not None:
            off = float("inf") if after is None else gap(after(concatenate(at, offset)), known(at))
            require(
                off <= _digits(problem),
                f"{name} of with_offset(F) must have the frozen part W - F too: learning F as well "
                f"gives the value without it; {off:.1e} away",
            )
    first, second = (p.one_step_gradient() for p in (problem, moved))
    dense = [G if isinstance(G, Tensor) else G.dense() for G in (first, second)]
    require(
        gap(dense[1].expand(dense[0].shape), dense[0]) <= _digits(problem),
        "one_step_gradient is that at W, whatever the offset",
    )


def _facts(problem: Problem, known: Facts, at: Factors) -> None:
    if known.true_rank is not None:
        fits = 1 <= known.true_rank <= min(problem.d, problem.k)
        require(fits, f"true_rank must be from 1 to min(d, k); got {known.true_rank}")
    if known.shift is not None:
        S = torch.linalg.svdvals(known.shift.dense())
        rank = int((S > max(problem.d, problem.k) * _eps(problem) * S[..., :1]).sum(-1).max())
        require(
            known.true_rank == rank == known.shift.rank,
            f"true_rank must be the rank of shift and its number of columns; got {known.true_rank} "
            f"for a shift of rank {rank} with {known.shift.rank} columns",
        )
    if known.shift is not None and known.residual is not None:
        off = gap(known.residual(at), at.dense() - known.shift.dense())
        require(off <= _digits(problem), f"residual must be learned - shift; {off:.1e} away")
    if known.pretrained is not None:
        shape = tuple(known.pretrained.shape[-2:])
        require(shape == (problem.d, problem.k), f"pretrained must be (..., d, k); got {shape}")
    if known.takes_residual:
        require(known.residual is not None, "takes_residual needs a residual to take")
        E = known.residual(at)  # type: ignore[misc]
        handed: Callable[..., Tensor] = problem.loss
        off = gap(handed(at, E), problem.loss(at))
        require(off <= _digits(problem), f"loss must not depend on being told E; {off:.1e} away")
    for name, measured in (("risk", known.risk), ("test_loss", known.test_loss)):
        if measured is not None:
            shape = tuple(measured(at).shape)
            wanted = tuple(problem.batch_shape)
            require(shape == wanted, f"{name} must be {wanted}; got {shape}")
    _rows(problem, known, at)
    try:
        json.dumps(known.recipe)
    except (TypeError, ValueError) as error:
        require(False, f"recipe must be plain JSON: {error}")


def _rows(problem: Problem, known: Facts, at: Factors) -> None:
    """The problem of all rows is the problem; halves average to it; fresh rows repeat."""
    N = known.samples
    if N is not None and known.batch is not None and known.has_rows:
        every = torch.arange(N, device=problem.like.device)
        order = every.flip(0)[None]
        cut = N // 2
        parts: list[tuple[Any, int]] = [(known.batch(order), N)]
        if cut:
            halves = [(known.batch(p), p.shape[-1]) for p in (order[:, :cut], order[:, cut:])]
            mean = torch.as_tensor(sum(part.loss(at) * size for part, size in halves) / N)
            off = gap(mean, problem.loss(at).expand(mean.shape))
            require(off <= _digits(problem), f"batches must average to the loss; {off:.1e} away")
        for found, expected in zip(parts[0][0].gradients(at), problem.gradients(at), strict=True):
            off = gap(found, expected.expand(found.shape))
            require(off <= _digits(problem), f"the batch of all rows is not it; {off:.1e} away")
    if known.fresh is not None:
        first, second = (known.fresh(3, 2, (5,)).loss(at) for _ in range(2))
        require(same_bits(first, second), "fresh rows must be a function of step and seed")
        others = (known.fresh(4, 2, (5,)).loss(at), known.fresh(3, 2, (6,)).loss(at))
        require(
            not any(same_bits(first, other) for other in others),
            "other steps and other seeds must get other fresh rows",
        )
