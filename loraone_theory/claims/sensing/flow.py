"""7: gradient flow at Σ̂ = I in closed form, and the recursions of descent beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.sensing.base import EPS
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import haar_frame, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, TRUE_RANK, RANK = 10, 8, 3, 5
SPECTRUM = (1.0, 0.6, 0.25)
RATES, STARTS = (0.3, 0.5), (0.05, 0.4)
STEPS, RHO, SLOW = 40, 0.05, 0.1
SIZE, FAST, FLOWN = 0.1, 0.25, (8, 40, 120)
TIMES = tuple(FAST * t for t in FLOWN)
END, DELTA = SLOW * STEPS, SIZE**2
# Tolerance of the integrator, relative; it is allowed as much in every step.
RTOL = 1e-10


def _population(draws: Draws) -> tuple[LinearProblem, Tensor, Tensor, Tensor]:
    drawn = sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=D, spectrum=SPECTRUM, seeds=draws.seeds()
    )
    problem = LinearProblem.population(shift=drawn.shift)
    return problem, *linalg.truncated_svd(problem.shift, TRUE_RANK)


def _on_pairs(method: str, draws: Draws, rate: float, start: float, steps: int) -> Tensor:
    """UᵀABV/λ on the pairs of Δ, from a balanced start at ρλ, (draw, pair)."""
    problem, U, S, V = _population(draws)
    root = (start * S).sqrt()
    run = simulate(
        problem, method, rank=TRUE_RANK, learning_rate=rate, steps=steps, record=(),
        initial=Factors(U * root[..., None, :], root[..., None] * V.mT),
    )  # fmt: skip
    return (U.mT @ run.final.A @ (run.final.B @ V)).diagonal(dim1=-2, dim2=-1) / S


def _balanced(draws: Draws, *, share: float) -> Evidence:
    """ε(t) against (1−ρ)x/(ρ + share·x), share = 1 − ρ, and against what is predicted."""
    lam = torch.tensor(SPECTRUM, dtype=torch.float64)
    found = 1 - _on_pairs("flow", draws, SLOW, RHO, STEPS)
    x = torch.exp(-2 * lam * END)
    promised = [(1 - RHO) * x / (RHO + share * x), predict.flow.balanced(lam, RHO, [END])[0]]
    return Evidence(
        found.repeat(1, 2).flatten().numpy(), torch.cat(promised).repeat(len(found)).numpy(),
        # Errors of the integrator grow like 1/ρ while the start does.
        tolerance=STEPS * RTOL / RHO,
    )  # fmt: skip


def _descent(draws: Draws, *, sign: float) -> Evidence:
    """ε_t against the recursion, as written here and as predicted; `sign` is that of h²."""
    found, promised = [], []
    lam = torch.tensor(SPECTRUM, dtype=torch.float64)
    for rate in RATES:
        for start in STARTS:
            share = 1 - _on_pairs("lora", draws, rate, start, STEPS)
            e, h = torch.full_like(lam, 1 - start), rate * lam
            for _ in range(STEPS):
                e = e * (1 - 2 * h + (2 * h - sign * h * h) * e + h * h * e * e)
            predicted = predict.flow.balanced_descent(h, 1 - start, STEPS)[-1]
            for law in (e, predicted):
                found.append(share.flatten())
                promised.append(law.repeat(len(share)))
    # Sums of d terms; a relative error of the start is multiplied by at most 1/ρ.
    tolerance = 10 * STEPS * D * EPS / min(STARTS)
    return Evidence(torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=tolerance)


def _preconditioned(draws: Draws, *, power: int) -> Evidence:
    """u⁺ = (u + η(1 − u))²/u on every pair, as written here and as predicted."""
    found, promised = [], []
    for rate in RATES:
        for start in STARTS:
            u = start
            for _ in range(3):
                u = (u + rate * (1 - u)) ** 2 / u**power
            share = _on_pairs("p-lora", draws, rate, start, 3).flatten()
            predicted = predict.flow.preconditioned_descent(rate, start, 3)[-1]
            for law in (u, float(predicted)):
                found.append(share)
                promised.append(torch.full_like(share, law))
    # Gram inverses of condition number max λ/min λ, and u grows to at most 10 on the way.
    return Evidence(
        torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=1e3 * D * EPS / STARTS[0]
    )


def _lora_init(draws: Draws, *, larger: float) -> Evidence:
    """E at three times, from A₀ with orthogonal columns of squared size δ."""
    problem, *_ = _population(draws)
    frame = per_seed(lambda rng: haar_frame(rng, D, RANK), draws.seeds(), "A", problem.like)
    A = SIZE * frame
    promised = predict.flow.lora_init(problem.shift, larger**0.5 * A, TIMES).dense()
    gaps = []
    for t, expected in zip(FLOWN, promised, strict=True):
        run = simulate(
            problem, "flow", rank=RANK, learning_rate=FAST, steps=t, record=(),
            initial=Factors(A, A.new_zeros(*A.shape[:-2], RANK, K)),
        )  # fmt: skip
        miss = run.final.dense() - problem.shift.dense() - expected
        gaps.append(torch.linalg.matrix_norm(miss))
    # Errors of the integrator in a start of size 0.1 grow with it to size one.
    return Evidence(torch.cat(gaps).numpy(), 0.0, tolerance=max(FLOWN) * RTOL / SIZE)


_SIZES = f"d = {D}, k = {K}, λ = {', '.join(f'{s:g}' for s in SPECTRUM)}"
_HYPOTHESES = ("linear model", "Σ̂ = I", "no noise")
_START = "balanced start on the pairs of Δ"

CLAIMS = (
    Claim(
        id="sensing/flow/balanced",
        title="Gradient flow of a balanced start",
        reference="derivations, sensing 7.1",
        statement="1 − σ/λ = (1 − ρ)x/(ρ + (1 − ρ)x), x = e^{−2λt}, from σ(0) = ρλ.",
        hypotheses=(*_HYPOTHESES, _START),
        how=f"The integrator to t = {END:g} from ρ = {RHO}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _balanced(draws, share=1 - RHO),
        mutant_statement="ρ + x in place of ρ + (1 − ρ)x",
        mutant=lambda draws: _balanced(draws, share=1.0),
        trials=20,
        smoke_trials=2,
        derivation="sensing 7.1",
    ),
    Claim(
        id="sensing/flow/descent",
        title="Gradient descent of a balanced start",
        reference="derivations, sensing 7.1",
        statement="ε = 1 − σ/λ obeys ε⁺ = ε[1 − 2h + (2h − h²)ε + h²ε²], h = ηλ.",
        hypotheses=(*_HYPOTHESES, _START),
        how=f"{STEPS} steps at η ∈ {set(RATES)} from ρ ∈ {set(STARTS)}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _descent(draws, sign=1.0),
        mutant_statement="2h + h² in place of 2h − h²",
        mutant=lambda draws: _descent(draws, sign=-1.0),
        trials=100,
        smoke_trials=5,
        derivation="sensing 7.1",
        uses=("lora-one/linear/one-step",),
    ),
    Claim(
        id="sensing/flow/preconditioned",
        title="Preconditioned descent of a balanced start",
        reference="derivations, sensing 7.1",
        statement="u = σ/λ obeys u⁺ = (u + η(1 − u))²/u, whatever λ is.",
        hypotheses=(*_HYPOTHESES, _START),
        how=f"Three steps at η ∈ {set(RATES)} from ρ ∈ {set(STARTS)}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _preconditioned(draws, power=1),
        mutant_statement="u⁺ = (u + η(1 − u))²",
        mutant=lambda draws: _preconditioned(draws, power=0),
        trials=100,
        smoke_trials=5,
        derivation="sensing 7.1",
        uses=("lora-one/linear/one-step/preconditioned",),
    ),
    Claim(
        id="sensing/flow/lora-init",
        title="Gradient flow from LoRA-init",
        reference="derivations, sensing 7.2",
        statement=(
            "From B₀ = 0, A₀ᵀA₀ = δI: UᵀEV = −diag(c)S and (I − P_U)EV = e^{δt/2}A_pN⁻¹aᵀS in "
            "closed form."
        ),
        hypotheses=(*_HYPOTHESES, "A₀ᵀA₀ = δI", "r >= r*"),
        how=f"The integrator at t ∈ {TIMES}; {_SIZES}, r = {RANK}, δ = {DELTA:g}.",
        kind="identity",
        measure=lambda draws: _lora_init(draws, larger=1.0),
        mutant_statement="δ 5 % larger",
        mutant=lambda draws: _lora_init(draws, larger=1.05),
        trials=10,
        smoke_trials=2,
        derivation="sensing 7.2",
        uses=("lora-one/linear/one-step/balance",),
    ),
)
