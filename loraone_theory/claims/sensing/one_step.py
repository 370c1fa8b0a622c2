"""1.6 and 3.1: how far one step from zero is off, to first order, for every ensemble."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import half_square, ratios, tangent_part
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, K, TRUE_RANK, NOISE = 4, 3, 1, 0.2
SAMPLES, COUNT, LOUD = 24, 60, 3.0
DOF = TRUE_RANK * (D + K - TRUE_RANK)
ALLOWANCE = 0.07


class Case(NamedTuple):
    """An ensemble, what is said of it, and what its mutant says.

    Args:
        m: measurements.
        statement: E‖P_T(G − Δ)‖².
        broken: the mutant's words.
        mutant: its value from the problem and the predicted value.
        options: of the sampler.
        sizes: (d, k).
        few: draws of a smoke run.
    """

    m: int
    statement: str
    broken: str
    mutant: Callable[[SensingProblem, Tensor], Tensor]
    options: Mapping[str, Any] = {}
    sizes: tuple[int, int] = (D, K)
    few: int = 3000


def _over_m(numerator: float) -> Callable[[SensingProblem, Tensor], Tensor]:
    """numerator·‖Δ‖²/m at λ* = 1."""
    return lambda problem, law: law.new_full(law.shape, numerator / problem.measurements)


def _narrow(problem: SensingProblem, law: Tensor) -> Tensor:
    """Of single-response measurements with d + 1 in place of d + 2."""
    assert problem.shift is not None
    V = problem.shift.B.mT  # λ* = 1
    t = (V**2).sum(-1)
    return law - K * (t * t).sum(-1) / problem.measurements


MATRIX = "t_ij = ‖U_i‖² + ‖V_j‖² − ‖U_i‖²‖V_j‖²"
CASES = {
    "dense": Case(COUNT, "(dof + 1)‖Δ‖²/m", "dof in place of dof + 1", _over_m(DOF)),
    "rank-one": Case(
        150, "[(r + 2)(d + k + 2 − r) − 1]‖Δ‖²/m", "d + k − r in place of d + k + 2 − r",
        _over_m(3 * (D + K - 1) - 1),
    ),
    "multi-response": Case(
        24 * K, "(d + 1)k‖Δ‖²/m", "d in place of d + 1", _over_m(D * K)
    ),
    "single-response": Case(
        60, "[kΣ_j‖Δ_j‖²((d + 2)t_j + (r + 2)(1 − t_j)) − ‖Δ‖²]/m, t_j = ‖V_j‖²",
        "d + 1 in place of d + 2", _narrow, few=5000,
    ),
    "completion": Case(
        3, f"[dkΣΔ_ij²t_ij − ‖Δ‖²]/m·(dk − m)/(dk − 1), {MATRIX}",
        "without the factor (dk − m)/(dk − 1) of distinct entries",
        lambda problem, law: law * (D * K - 1) / (D * K - problem.measurements),
        {"replace": False},
    ),
    "completion/replacement": Case(
        12, f"[dkΣΔ_ij²t_ij − ‖Δ‖²]/m, {MATRIX}", "without − ‖Δ‖²",
        lambda problem, law: law + TRUE_RANK / problem.measurements,
        sizes=(3, 2),  # the fewer entries, the more of it is ‖Δ‖²
        few=5000,
    ),
}  # fmt: skip


def _sensing(draws: Draws, name: str, *, wrong: bool) -> Evidence:
    case = CASES[name]
    d, k = case.sizes
    problem = sample_sensing(
        ensemble=name.partition("/")[0],
        d=d,
        k=k,
        true_rank=TRUE_RANK,
        measurements=case.m,
        seeds=draws.seeds(),
        **case.options,
    )
    assert problem.shift is not None
    G = problem.operator.adjoint(problem.labels) / case.m
    part = tangent_part(problem.shift, G - problem.shift.dense())
    law = predict.one_step_error(problem)
    return ratios((part**2).sum((-2, -1)), case.mutant(problem, law) if wrong else law, ALLOWANCE)


@functools.lru_cache(maxsize=1)
def _noisy(seeds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """‖P_T(G − Δ)‖² of dense measurements with a noise that is most of it, and its law."""
    problem = sample_sensing(
        ensemble="dense", d=D, k=K, true_rank=TRUE_RANK, measurements=COUNT, noise_std=LOUD,
        seeds=seeds,
    )  # fmt: skip
    assert problem.shift is not None
    G = problem.operator.adjoint(problem.labels) / COUNT
    part = tangent_part(problem.shift, G - problem.shift.dense())
    return (part**2).sum((-2, -1)), predict.one_step_error(problem, noise_std=LOUD)


def _noise(draws: Draws, *, freedom: int) -> Evidence:
    """It over the law with so many degrees of freedom."""
    error, law = _noisy(draws.seeds())
    return ratios(error, law + LOUD**2 * (freedom - DOF) / COUNT, ALLOWANCE)


def _threshold(draws: Draws, *, less: int) -> Evidence:
    """One step's ½‖·‖² over the in-sample floor where σ² = (d + 1)‖Δ‖²/dof."""
    sigma = ((D + 1 - less) * TRUE_RANK / DOF) ** 0.5
    problem = sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, noise_std=sigma, seeds=draws.seeds()
    )
    part = tangent_part(problem.shift, problem.one_step_gradient().dense() - problem.shift.dense())
    floor = sigma**2 * DOF / (2 * SAMPLES)
    return ratios(half_square(part), 2 * floor, ALLOWANCE)


def _linear(draws: Draws, *, wrong: bool) -> Evidence:
    problem = sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, noise_std=NOISE, seeds=draws.seeds()
    )
    part = tangent_part(problem.shift, problem.one_step_gradient().dense() - problem.shift.dense())
    law = predict.one_step_error(problem, noise_std=NOISE)
    if wrong:
        law = law - 1 / SAMPLES
    return ratios((part**2).sum((-2, -1)), law, ALLOWANCE)


def _claim(name: str) -> Claim:
    case, ensemble = CASES[name], name.partition("/")[0]
    d, k = case.sizes
    kind = "with replacement, " if name.endswith("replacement") else ""
    return Claim(
        id=f"sensing/one-step/{name}",
        title=f"One-step error, {name.replace('/', ' with ')}",
        reference="derivations, sensing 3.1",
        statement=f"E‖P_T(G − Δ)‖² = {case.statement}, which Spectral-init has to first order.",
        hypotheses=(f"{ensemble} measurements", "r = r*", "no noise"),
        how=f"{kind}d = {d}, k = {k}, r = {TRUE_RANK}, m = {case.m}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _sensing(draws, name, wrong=False),
        mutant_statement=case.broken,
        mutant=lambda draws: _sensing(draws, name, wrong=True),
        trials=8000,
        smoke_trials=case.few,
        derivation="sensing 3.1",
        uses=("sensing/input-laws/gaussian",) if name == "multi-response" else (),
    )


CLAIMS = (
    Claim(
        id="sensing/one-step",
        title="One-step error under label noise",
        reference="derivations, sensing 1.6",
        statement="E‖P_T(G − Δ)‖² = [(d + 1)‖Δ‖² + σ²r(d + k − r)]/N.",
        hypotheses=("linear model", "Gaussian inputs", "r = r*"),
        how=(
            f"d = {D}, k = {K}, r = {TRUE_RANK}, N = {SAMPLES}, σ = {NOISE}; "
            f"within {ALLOWANCE:.0%}."
        ),
        kind="value",
        measure=lambda draws: _linear(draws, wrong=False),
        mutant_statement="d in place of d + 1",
        mutant=lambda draws: _linear(draws, wrong=True),
        trials=8000,
        smoke_trials=3000,
        derivation="sensing 1.6",
        uses=("sensing/equivalence", "sensing/input-laws/gaussian"),
    ),
    Claim(
        id="sensing/one-step/threshold",
        title="When one step is near the floor",
        reference="derivations, sensing 1.6",
        statement=(
            "At σ² = (d + 1)‖Δ‖²/(r(d + k − r)) the risk of one step is twice σ²r(d + k − r)/2N, "
            "to first order; above it is less."
        ),
        hypotheses=("linear model", "Gaussian inputs", "r = r*", "N ≫ d"),
        how=f"d = {D}, k = {K}, r = {TRUE_RANK}, N = {SAMPLES}; within {ALLOWANCE:.0%}.",
        kind="value",
        measure=lambda draws: _threshold(draws, less=0),
        mutant_statement="d‖Δ‖² in place of (d + 1)‖Δ‖²",
        mutant=lambda draws: _threshold(draws, less=1),
        trials=8000,
        smoke_trials=12_000,
        derivation="sensing 1.6",
        uses=("sensing/one-step", "sensing/noise-floor/in-sample"),
    ),
    Claim(
        id="sensing/one-step/noise",
        title="What noise adds to one step of measurements",
        reference="derivations, sensing 3.1",
        statement="Label noise adds σ²r(d + k − r)/m to E‖P_T(G − Δ)‖².",
        hypotheses=("dense measurements", "r = r*"),
        how=(
            f"d = {D}, k = {K}, r = {TRUE_RANK}, m = {COUNT}, σ = {LOUD:g}; within {ALLOWANCE:.0%}."
        ),
        kind="value",
        measure=lambda draws: _noise(draws, freedom=DOF),
        mutant_statement="σ²r(d + k)/m",
        mutant=lambda draws: _noise(draws, freedom=TRUE_RANK * (D + K)),
        trials=8000,
        smoke_trials=6000,
        derivation="sensing 3.1",
        uses=("sensing/one-step/dense",),
    ),
    *(_claim(name) for name in CASES),
)
