"""Is an initialisation what the loop takes it for?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.methods.inits import Init
from loraone_theory.methods.parametrisations import PARAMETRISATIONS, Start, check_start
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.testing.base import (
    RANK,
    ContractError,
    D,
    K,
    copied,
    gap,
    leaves,
    random_states,
    require,
    same_bits,
)

SEEDS = (3, 4, 5)
# Half of the digits: the singular vectors of one instance and of the batch differ by roundings,
# and gaps between singular values are no smaller than a thousandth of the largest.
DIGITS = torch.finfo(torch.float64).eps ** 0.5


def check_init(init: Init, *, trains: str = "pair") -> None:
    """Hold an initialisation to what the loop relies on; nothing is returned.

    It returns a Start whose tensors fit the problem and the rank, in the problem's dtype; the same
    call gives the same bits and touches neither the problem nor torch's global generator; trial i
    depends on instance i and seed i only.

    Args:
        init: (problem, rank, seeds) -> Start.
        trains: what its trainable tensors are: "pair", "full", "core" or "triplets".

    Raises:
        ContractError: a promise is broken; the message says which.

    >>> from loraone_theory.methods import inits
    >>> check_init(inits.gaussian(0.1))
    """
    validate.choice("trains", trains, PARAMETRISATIONS)
    form = PARAMETRISATIONS[trains](1.0)
    for dtype in (torch.float64, torch.float32):
        problem = _problem(SEEDS, dtype)
        before, states = copied(_tensors(problem)), random_states()
        for rank in (RANK, 1):
            start = init(problem, rank, SEEDS)
            try:
                check_start(start, form, problem, rank, "given")
            except (TypeError, ValueError) as error:
                raise ContractError(str(error)) from error
            _batch(start)
            again = init(problem, rank, SEEDS)
            require(
                same_bits(_held(start), _held(again)),
                "the same call must give the same bits; a second one gave others: draw from "
                "generators made from the seeds",
            )
        require(
            same_bits(_tensors(problem), before),
            "an initialisation must not write to the problem; one of its tensors has changed",
        )
        require(
            states == random_states(),
            "an initialisation must leave torch's global generator alone, and numpy's, whose "
            "numbers others wait for; make a torch.Generator or a numpy one from the seed",
        )
    _trials(init)


def _problem(seeds: tuple[int, ...], dtype: torch.dtype = torch.float64) -> LinearProblem:
    return sample_linear(d=D, k=K, true_rank=4, samples=8 * D, seeds=seeds, dtype=dtype)


def _tensors(problem: LinearProblem) -> tuple[Tensor, ...]:
    known = (*problem.shift, problem.covariance.apply(torch.eye(D).to(problem.like)))
    return known if problem.pretrained is None else (*known, problem.pretrained)


def _held(start: Start) -> Any:
    return (start.trainable, start.frozen, () if start.offset is None else tuple(start.offset))


def _batch(start: Start) -> None:
    for tensor in leaves(_held(start)):
        shape = tuple(tensor.shape[:-2])
        require(
            shape in ((), (1,), (len(SEEDS),)),
            f"tensors must have a batch axis of one entry per seed ({len(SEEDS)},) or none; got "
            f"{shape}",
        )


def _trials(init: Init) -> None:
    whole = list(leaves(_held(init(_problem(SEEDS), RANK, SEEDS))))
    for i, seed in enumerate(SEEDS):
        alone = list(leaves(_held(init(_problem((seed,)), RANK, (seed,)))))
        for together, single in zip(whole, alone, strict=True):
            mine = together.expand(len(SEEDS), *together.shape[-2:])[i]
            off = gap(mine, single.reshape(mine.shape))
            require(
                off <= DIGITS,
                f"trial {i} must depend on instance {i} and seed {seed} only; made alone it is "
                f"{off:.1e} away",
            )
