"""8: the symmetric factorisation UUᵀ: its recursion, its rates, and its sublinear tail."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import gaussian
from loraone_theory.claims.sensing.base import EPS
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import haar_frame, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods.parametrisations import Start
from loraone_theory.methods.symmetric import symmetric
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, SPECTRUM, RATE = 10, (1.0, 0.5), 0.2
STEPS, SHARE = 40, 0.02
RANK, START, LATE = 5, 0.3, 4000
NEAR = 1e-6
COUNT = 60  # measurements


def _population(draws: Draws) -> tuple[LinearProblem, Tensor, Tensor]:
    """Δ = Q diag(λ) Qᵀ with Q the first columns of a Haar frame, and the whole frame."""
    like = torch.empty(0, dtype=torch.float64)
    frame = per_seed(lambda rng: haar_frame(rng, D, D), draws.seeds(), "frame", like)
    lam = torch.tensor(SPECTRUM, dtype=torch.float64)
    Q = frame[..., : len(SPECTRUM)]
    return LinearProblem.population(shift=Factors(Q * lam, Q.mT)), frame, lam


def _after(problem: LinearProblem, start: Tensor, steps: int) -> Tensor:
    method = symmetric().with_init(lambda *_: Start((start,)), name="given")
    run = simulate(
        problem, method, rank=start.shape[-1], learning_rate=RATE, steps=steps, record=()
    )
    return run.final.dense() - problem.shift.dense()


def _recursion(draws: Draws, *, sign: float) -> Evidence:
    problem, frame, lam = _population(draws)
    E = _after(problem, frame[..., : len(lam)] * (SHARE * lam).sqrt(), STEPS)
    inside = frame[..., : len(lam)]
    found = -(inside.mT @ E @ inside).diagonal(dim1=-2, dim2=-1) / lam
    e, h = torch.full_like(lam, 1 - SHARE), RATE * lam
    for _ in range(STEPS):
        e = e * (1 - 2 * h + (2 * h - sign * h * h) * e + h * h * e * e)
    # Sums of d terms; a relative error of the start is multiplied by at most 1/SHARE.
    return Evidence(
        found.flatten().numpy(),
        e.repeat(len(found)).numpy(),
        tolerance=10 * STEPS * D * EPS / SHARE,
    )


def _rates(draws: Draws, *, geometric: bool) -> Evidence:
    """‖E₁‖/‖E₀‖ along each mode: λ_i + λ_j within the signal, λ_i off it."""
    problem, frame, lam = _population(draws)
    base = frame[..., : len(lam)] * lam.sqrt()
    found, promised = [], []
    for i in range(len(lam)):
        for j in range(i, len(lam) + 1):
            other = lam[j] if j < len(lam) else lam.new_zeros(())
            move = torch.zeros_like(base)
            move[..., i] = frame[..., j] * lam[i].sqrt()  # E = NEAR·λ_i(q_jq_iᵀ + q_iq_jᵀ)
            before = (base + NEAR * move) @ (base + NEAR * move).mT - problem.shift.dense()
            after = _after(problem, base + NEAR * move, 1)
            found.append(torch.linalg.matrix_norm(after) / torch.linalg.matrix_norm(before))
            mean = (lam[i] * other).sqrt() * 2 if geometric and j < len(lam) else lam[i] + other
            promised.append((1 - RATE * mean).expand(len(base)))
    # Second order in NEAR, and roundings of E of size eps over it.
    tolerance = 10 * NEAR + 10 * D * EPS / NEAR
    return Evidence(torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=tolerance)


def _over_rank(draws: Draws, *, more: int) -> Evidence:
    """2ηt‖E‖/√(r − r* + more) at t = LATE against 1."""
    problem, _, lam = _population(draws)
    run = simulate(
        problem, symmetric(init_std=START), rank=RANK, learning_rate=RATE, steps=LATE,
        seeds=draws.seeds(), record=("error",), every=LATE,
    )  # fmt: skip
    found = 2 * RATE * LATE * run["error"][-1] / (RANK - len(lam) + more) ** 0.5
    # 1/(2ηt q²) of a direction of squared start q², the least of a 8×3 Gaussian times α² = .09:
    # above .05 in all but rare draws.
    return Evidence(found.numpy(), 1.0, tolerance=1 / (2 * RATE * LATE * 0.05))


def _gradient(draws: Draws, *, half: float) -> Evidence:
    """⟨V, R_sU⟩ against the derivative of ‖𝒜(UUᵀ − X*)‖²/4m along V, a quartic, by four values."""
    problem = sample_sensing(
        ensemble="symmetric", d=D, k=D, true_rank=len(SPECTRUM), measurements=COUNT,
        spectrum=SPECTRUM, seeds=draws.seeds(),
    )  # fmt: skip
    U, V = (gaussian(D, 3, draws.seeds(), name) for name in ("U", "V"))

    def loss(step: float) -> Tensor:
        at = U + step * V
        return problem.loss(Factors(at, at.mT)) / 2

    # Four central values give the derivative of a quartic without a remainder.
    slope = (8 * (loss(1.0) - loss(-1.0)) - (loss(2.0) - loss(-2.0))) / 12
    miss = problem.operator.forward(Factors(U, U.mT)) - problem.targets
    R = problem.operator.adjoint(miss) / COUNT
    found = half * (V * (R @ U)).sum((-2, -1))
    size = torch.linalg.matrix_norm(V) * torch.linalg.matrix_norm(R @ U)
    # Losses at twice the step are up to 1e3 times the slope; sums over m measurements.
    return Evidence((found / size).numpy(), (slope / size).numpy(), tolerance=1e3 * COUNT * EPS)


_SIZES = f"d = {D}, λ = {', '.join(f'{s:g}' for s in SPECTRUM)}, η = {RATE}"
_MODEL = "population, Δ = Q diag(λ) Qᵀ"

CLAIMS = (
    Claim(
        id="sensing/symmetric/gradient",
        title="The gradient of UUᵀ",
        reference="derivations, sensing 8",
        statement="L = ‖𝒜(UUᵀ − X*)‖²/4m has the gradient R_sU, R = 𝒜*(𝒜(UUᵀ − X*))/m.",
        hypotheses=("symmetric measurements",),
        how=f"Along a Gaussian direction at Gaussian U, by a difference; d = {D}, m = {COUNT}.",
        kind="identity",
        measure=lambda draws: _gradient(draws, half=1.0),
        mutant_statement="2R_sU, that of A and B by the chain rule",
        mutant=lambda draws: _gradient(draws, half=2.0),
        trials=100,
        smoke_trials=5,
        derivation="sensing 8",
    ),
    Claim(
        id="sensing/symmetric",
        title="Descent on UUᵀ along eigenpairs",
        reference="derivations, sensing 8",
        statement="ε = 1 − u²/λ obeys ε⁺ = ε[1 − 2h + (2h − h²)ε + h²ε²], h = ηλ.",
        hypotheses=(_MODEL, "U on the eigenvectors of Δ"),
        how=f"{STEPS} steps from u² = {SHARE}λ; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _recursion(draws, sign=1.0),
        mutant_statement="2h + h² in place of 2h − h²",
        mutant=lambda draws: _recursion(draws, sign=-1.0),
        trials=100,
        smoke_trials=5,
        derivation="sensing 8",
    ),
    Claim(
        id="sensing/symmetric/rates",
        title="Local rates of UUᵀ at the true rank",
        reference="derivations, sensing 8",
        statement="μ = λ_i + λ_j within the signal and λ_i off it.",
        hypotheses=(_MODEL, "r = r*", "UUᵀ near Δ"),
        how=f"One step from {NEAR:g} along each kind of mode; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _rates(draws, geometric=False),
        mutant_statement="2√(λ_iλ_j) within the signal",
        mutant=lambda draws: _rates(draws, geometric=True),
        trials=100,
        smoke_trials=5,
        derivation="sensing 8",
        uses=("sensing/symmetric",),
    ),
    Claim(
        id="sensing/symmetric/over-rank",
        title="UUᵀ beyond the true rank is sublinear",
        reference="derivations, sensing 8",
        statement="r > r*: ‖E‖ → √(r − r*)/(2ηt).",
        hypotheses=(_MODEL, "r > r*", "t ≫ 1/(ηα²d)"),
        how=f"The share of the two at t = {LATE} from α = {START}, r = {RANK}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _over_rank(draws, more=0),
        mutant_statement="√(r − r* + 1)/(2ηt)",
        mutant=lambda draws: _over_rank(draws, more=1),
        trials=20,
        smoke_trials=4,
        derivation="sensing 8",
        uses=("sensing/symmetric",),
    ),
)
