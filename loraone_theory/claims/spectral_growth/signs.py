"""From two Gaussian factors a determinant's sign decides whether the smallest is late."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import Population, gaussian, population
from loraone_theory.claims.spectral_growth.base import arrivals
from loraone_theory.core.factors import Factors
from loraone_theory.dynamics.loop import simulate
from loraone_theory.dynamics.trajectory import Trajectory

D, SPECTRUM, STD, ETA, TIME = 10, (3.0, 2.0, 1.0), 1e-6, 2e-3, 2.2
SHARE, LATE = 0.9, 0.06


def _run(draws: Draws, steps: int) -> tuple[Population, Factors, Tensor, Trajectory]:
    """Problem, start, the product of determinants (n,), and the run."""
    seeds, S = draws.seeds(), torch.tensor(SPECTRUM, dtype=torch.float64)
    of, rank = population(D, D, S, seeds), len(SPECTRUM)
    start = Factors(STD * gaussian(D, rank, seeds, "A0"), STD * gaussian(rank, D, seeds, "B0"))
    run = simulate(
        of.problem, "muon", rank=rank, learning_rate=ETA, steps=steps, initial=start,
        record=("singular_values",),
    )  # fmt: skip
    product = torch.linalg.det(of.U.mT @ start.A) * torch.linalg.det(start.B @ of.V)
    return of, start, product, run


def _on_time(draws: Draws, *, sign: int) -> Evidence:
    """How late the last σ_i(AB) is, relatively; inside are the draws with this sign."""
    of, _, product, run = _run(draws, round(TIME / ETA))
    values = run["singular_values"][..., : len(SPECTRUM)]
    late = (arrivals(values, of.S, ETA, SHARE) / (SHARE * of.S).sqrt() - 1).amax(-1)
    numbers = {
        f"share on time, {name}": float((late[which] <= LATE).double().mean())
        for name, which in (("product > 0", product > 0), ("product < 0", product < 0))
    }
    return Evidence(late.numpy(), LATE, inside=(sign * product > 0).numpy(), numbers=numbers)


def _second(draws: Draws, *, sign: int) -> Evidence:
    """σ_min(UᵀA₂)/η."""
    of, start, product, run = _run(draws, 2)
    least = torch.linalg.svdvals(of.U.mT @ run.final.A)[..., -1] / ETA
    # What the start is in η, and what it turns msign(Sb₀ᵀ) by: ‖·‖κ/η.
    turn = SPECTRUM[0] / SPECTRUM[-1]
    sizes = [torch.linalg.matrix_norm(M) for M in start]
    return Evidence(
        least.numpy(),
        0.0,
        inside=(sign * product > 0).numpy(),
        tolerance=((sizes[0] + turn * sizes[1]) / ETA).numpy(),
    )


POSITIVE, NEGATIVE = "det(UᵀA₀)·det(B₀V) > 0", "det(UᵀA₀)·det(B₀V) < 0"
SIZES = f"d = k = {D}, σ = {listed(SPECTRUM)}, standard deviation {STD:g}, η = {ETA:g}"
MODEL = ("𝒜 = I", "r = r*", "A₀ and B₀ Gaussian, far smaller than one step")
CLAIMS = (
    Claim(
        id="spectral-growth/signs",
        title="From two Gaussian factors the smallest is on time where two signs agree",
        reference="derivations, neighbours 10",
        statement=(
            f"{POSITIVE} implies that every σ_i(AB) is at {SHARE:g}σ_i at √({SHARE:g}σ_i), at most "
            f"{LATE:.0%} later."
        ),
        hypotheses=(*MODEL, f"{POSITIVE}, looked at in every draw"),
        how=f"The latest arrival relative to the law; {SIZES}.",
        kind="bound",
        measure=lambda draws: _on_time(draws, sign=1),
        mutant_statement="the product < 0",
        mutant=lambda draws: _on_time(draws, sign=-1),
        trials=40,
        smoke_trials=24,
        explanation=(
            "A law of steps, not of the flow: where steps are far shorter than the start, draws of "
            "either sign are on time, since to pass zero takes a time of the order of the start."
        ),
        derivation="neighbours 10",
        uses=("spectral-growth/times", "spectral-growth/signs/second-step"),
    ),
    Claim(
        id="spectral-growth/signs/second-step",
        title="Where they do not, a direction is lost in the second step",
        reference="derivations, neighbours 10",
        statement=f"{NEGATIVE} implies that σ_min(UᵀA₂)/η = 0, up to the size of the start.",
        hypotheses=(*MODEL, f"{NEGATIVE}, looked at in every draw"),
        how=f"σ_min(UᵀA₂)/η against (‖A₀‖ + κ‖B₀‖)/η; {SIZES}.",
        kind="identity",
        measure=lambda draws: _second(draws, sign=-1),
        mutant_statement="the product > 0",
        mutant=lambda draws: _second(draws, sign=1),
        trials=100,
        smoke_trials=24,
        derivation="neighbours 10",
    ),
)
