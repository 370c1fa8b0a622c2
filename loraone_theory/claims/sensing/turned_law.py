"""3.2: rotations that the laws of ensembles do not change under, though their instances do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import haar
from loraone_theory.claims.sensing.base import LAW, NO_PROOF, same_law
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, K, RANK, STEPS, RATE, START = 6, 4, 1, 8, 0.05, 0.3


class Sides(NamedTuple):
    """Measurements, and the sides on which Δ may be laid along the axes.

    Args:
        m: how many.
        left: rows.
        right: columns.
    """

    m: int
    left: bool
    right: bool


# So few measurements that the law of each shows.
GROUPS = {
    "dense": Sides(12, True, True),
    "rank-one": Sides(12, True, True),
    "symmetric": Sides(12, True, True),
    "multi-response": Sides(3 * K, True, False),
    "single-response": Sides(4, True, False),
}
BEYOND = {"single-response": Sides(4, True, True)}
# Of rotations that mix both sides: Δ of rank one and of this rank, at so few measurements.
RANKS, FEW = (1, 4), 2


def _frames(draws: Draws, n: int, name: str, *, fixed: bool) -> Tensor:
    """Haar frames, or the first axes."""
    if fixed:
        return torch.eye(n, RANK).double().expand(draws.trials, n, RANK)
    return haar(n, RANK, draws.seeds(block=name), name)


def _statistics(draws: Draws, ensemble: str, sides: Sides, block: str) -> dict[str, Tensor]:
    """‖G − Δ‖_op and the risk of some steps."""
    k = D if ensemble == "symmetric" else K
    seeds = draws.seeds(block=block)
    drawn = sample_sensing(
        ensemble=ensemble, d=D, k=k, true_rank=RANK, measurements=sides.m, seeds=seeds
    )
    U = _frames(draws, D, f"{block} U", fixed=sides.left)
    V = U if ensemble == "symmetric" else _frames(draws, k, f"{block} V", fixed=sides.right)
    shift = Factors(U, V.mT)
    labels = drawn.operator.forward(shift)
    problem = SensingProblem.from_data(drawn.operator, labels, shift=shift)
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=STEPS, every=STEPS, seeds=seeds,
        init_std=START, record=("risk",),
    )  # fmt: skip
    miss = drawn.operator.adjoint(labels) / drawn.measurements - shift.dense()
    return {
        f"‖G − Δ‖_op, {ensemble}": torch.linalg.matrix_norm(miss, 2),
        f"risk after {STEPS} steps, {ensemble}": run["risk"][-1],
    }


def _turned(draws: Draws, groups: Mapping[str, Sides]) -> Evidence:
    """Δ with Haar frames, against Δ along the axes on the sides of the group."""
    free: dict[str, Tensor] = {}
    fixed: dict[str, Tensor] = {}
    for ensemble, sides in groups.items():
        anyhow = Sides(sides.m, left=False, right=False)
        free |= _statistics(draws, ensemble, anyhow, f"{ensemble}, free")
        fixed |= _statistics(draws, ensemble, sides, f"{ensemble}, fixed")
    return same_law(free, fixed)


def _mixed(draws: Draws, ensemble: str) -> Evidence:
    """‖y‖² and ‖G − Δ‖ of Δ of two ranks, ‖Δ‖ = 1."""
    found = []
    for rank in RANKS:
        problem = sample_sensing(
            ensemble=ensemble, d=D, k=K, true_rank=rank, measurements=FEW,
            spectrum=[rank**-0.5] * rank, seeds=draws.seeds(block=rank),
        )  # fmt: skip
        assert problem.shift is not None
        shift = problem.shift.dense()
        G = problem.operator.adjoint(problem.labels) / FEW
        found.append(
            {
                "‖y‖²": problem.labels.square().sum(-1),
                "‖G − Δ‖": torch.linalg.matrix_norm(G - shift),
            }
        )
    return same_law(*found)


CLAIMS = (
    Claim(
        id="sensing/invariance/law",
        title="Rotations that keep the law of measurements",
        reference="derivations, sensing 3.2",
        statement=(
            "In law 𝒜 is unchanged under M ↦ QM for dense, rank-one, symmetric (M ↦ QMQᵀ), multi- "
            "and single-response measurements and under M ↦ MO for dense and rank-one ones; so is "
            "every run of a rotation-equivariant rule."
        ),
        hypotheses=("Q and O orthogonal", "a rotation-equivariant rule", "a Gaussian start"),
        how=(
            "Two statistics of each ensemble for Δ along the axes on those sides and for Haar "
            f"frames; d = {D}, k = {K}, r = r* = {RANK}, {STEPS} steps; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _turned(draws, GROUPS),
        mutant_statement="M ↦ MO for single-response measurements too",
        mutant=lambda draws: _turned(draws, BEYOND),
        trials=1000,
        smoke_trials=600,
        explanation=NO_PROOF,
        derivation="sensing 3.2",
        uses=("lora-one/linear/rotation",),
    ),
    Claim(
        id="sensing/invariance/law/dense",
        title="All rotations keep the law of dense measurements",
        reference="derivations, sensing 3.2",
        statement="The law of (‖y‖, ‖G − Δ‖_F) depends on ‖Δ‖_F alone, not on the rank of Δ.",
        hypotheses=("dense Gaussian measurements", "no noise"),
        how=(
            f"Δ of ranks {RANKS[0]} and {RANKS[1]} with equal singular values and of norm one; "
            f"d = {D}, k = {K}, m = {FEW}; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _mixed(draws, "dense"),
        mutant_statement="of rank-one measurements",
        mutant=lambda draws: _mixed(draws, "rank-one"),
        trials=2000,
        smoke_trials=1250,
        explanation=NO_PROOF,
        derivation="sensing 3.2",
        uses=("sensing/invariance/law",),
    ),
)
