"""3.9: which direction of W the rules of LoRA-Pro, P-LoRA and LoRA-GA move along."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.methods.rules.lora_pro import project
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, TRUE_RANK, RANK, SCALE, GAMMA, RATIO = 14, 11, 5, 3, 1.7, 4.0, 4
# Small enough that the second-order part of a step shows in a difference quotient as FIRST_ORDER.
STEP = 1e-6
EPS = np.finfo(np.float64).eps


def _instances(draws: Draws) -> tuple[LinearProblem, Factors]:
    seeds = draws.seeds()
    problem = sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=RATIO * D, condition_number=3.0, seeds=seeds
    )
    A = per_seed(lambda rng: normal(rng, D, RANK), seeds, "A", problem.like)
    B = per_seed(lambda rng: normal(rng, RANK, K), seeds, "B", problem.like)
    return problem, Factors(0.5 * A, 0.5 * B)


def _full_gradient(problem: LinearProblem, start: Factors) -> Tensor:
    """∇_W L = Σ̂(sAB − Δ)."""
    return problem.covariance.apply(SCALE * start.dense() - problem.shift.dense())


def _projectors(start: Factors) -> tuple[Tensor, Tensor]:
    A, B = start
    return A @ torch.linalg.pinv(A), torch.linalg.pinv(B) @ B


def _rounding(start: Factors) -> Tensor:
    """Gram inverses lose the square of the condition number, the Sylvester equation as much."""
    return 10 * D * EPS * (torch.linalg.cond(start.A) * torch.linalg.cond(start.B)) ** 2


def _equivalent(draws: Draws, *, overlap: bool) -> Evidence:
    """s(A g^B + g^A B) for two random Z and for the rule's own, against the closed form."""
    problem, start = _instances(draws)
    (A, B), full = start, _full_gradient(problem, start)
    gradients = (SCALE * full @ B.mT, SCALE * A.mT @ full)
    P_A, P_B = _projectors(start)
    promised = P_A @ full + full @ P_B - (0.0 if overlap else P_A @ full @ P_B)
    size = torch.linalg.matrix_norm(full)
    gaps, across = [], []
    for stream in (None, "Z1", "Z2"):
        free = None
        if stream is not None:
            free = per_seed(lambda rng: normal(rng, RANK, RANK), draws.seeds(), stream, A)
        steps = project(start, gradients, 0.0, SCALE, free).steps
        found = SCALE * (A @ steps.B + steps.A @ B)
        gaps.append(torch.linalg.matrix_norm(found - promised) / size)
        across.append(torch.linalg.matrix_norm(steps.A))
    tolerance = _rounding(start).expand(3, -1).flatten()
    return Evidence(
        lhs=torch.cat(gaps).numpy(),
        rhs=0.0,
        tolerance=tolerance.numpy(),
        numbers={
            "largest relative gap": float(torch.stack(gaps).max()),
            "largest change of ‖g^A‖ with Z": float((across[1] / across[0] - 1).abs().max()),
        },
    )


def _optimal(draws: Draws, *, preconditioned: bool) -> Evidence:
    """‖s(A Y + X B) − 𝒢‖_F of LoRA-Pro (or of the Gram-scaled steps) against least squares."""
    problem, start = _instances(draws)
    (A, B), full = start, _full_gradient(problem, start)
    if preconditioned:
        P_A, P_B = _projectors(start)
        step = P_A @ full + full @ P_B
    else:
        steps = project(start, (SCALE * full @ B.mT, SCALE * A.mT @ full), 0.0, SCALE).steps
        step = SCALE * (A @ steps.B + steps.A @ B)
    reached = torch.linalg.matrix_norm(step - full)
    least = torch.stack(
        [_least_squares(*pair) for pair in zip(A.unbind(), B.unbind(), full.unbind(), strict=True)]
    )
    size = torch.linalg.matrix_norm(full)
    return Evidence(
        lhs=(reached / size).numpy(),
        rhs=(least / size).numpy(),
        tolerance=_rounding(start).numpy(),
        numbers={"largest excess": float(((reached - least) / size).max())},
    )


def _least_squares(A: Tensor, B: Tensor, full: Tensor) -> Tensor:
    """min over X, Y of ‖AY + XB − 𝒢‖_F from the dense matrix of (X, Y) ↦ AY + XB."""
    d, k = full.shape
    of_Y = torch.kron(A, torch.eye(k, dtype=A.dtype))
    of_X = torch.kron(torch.eye(d, dtype=A.dtype), B.mT.contiguous())
    Q = torch.linalg.svd(torch.cat([of_Y, of_X], dim=1), full_matrices=False)
    basis = Q.U[:, Q.S > d * k * EPS * Q.S[0]]
    b = full.reshape(-1)
    return torch.linalg.vector_norm(b - basis @ (basis.mT @ b))


def _moved(problem: LinearProblem, method: methods.Method, start: Factors | None) -> Tensor:
    """(learned shift after one step − before)/η of a run with s = SCALE and η = STEP."""
    run = simulate(
        problem,
        method,
        rank=RANK,
        learning_rate=STEP,
        steps=1,
        initial=start,
        record=(),
        reduce="never",
    )
    before, after = run.initial, run.final
    # s(A₁B₁ − A₀B₀) without the cancellation: s(A₁ − A₀)B₀ + sA₁(B₁ − B₀).
    change = (after.A - before.A) @ before.B + after.A @ (after.B - before.B)
    return SCALE * change / STEP


def _direction(draws: Draws, *, overlap: bool) -> Evidence:
    """First-order move of W under preconditioned GD."""
    problem, start = _instances(draws)
    full = _full_gradient(problem, start)
    P_A, P_B = _projectors(start)
    counted = P_A @ full + full @ P_B - (0.0 if overlap else P_A @ full @ P_B)
    promised = -(SCALE**2) * counted
    found = _moved(problem, methods.p_lora(scale=SCALE), start)
    # Second order: η s ∇̃_A∇̃_B = η s³ 𝒢(AB)†𝒢.
    inverse = torch.linalg.pinv(start.B) @ torch.linalg.pinv(start.A)
    second = STEP * SCALE**3 * torch.linalg.matrix_norm(full @ inverse @ full)
    return _move_evidence(found, promised, second, _rounding(start))


def _lora_ga(draws: Draws, *, rank: int) -> Evidence:
    """First-order move of W under LoRA-GA's first GD step; `rank` of the part of 𝒢 promised."""
    problem, _ = _instances(draws)
    G = problem.one_step_gradient().dense()
    U, S, Vh = torch.linalg.svd(G, full_matrices=False)
    best = (U[..., :rank] * S[..., None, :rank]) @ Vh[..., :rank, :]
    zeta2 = K**0.5 / GAMMA
    # −ηs²(√k/γ) times the part of 𝒢 = −G.
    promised = SCALE**2 * zeta2 * best
    found = _moved(problem, methods.lora_ga(gamma=GAMMA, scale=SCALE), None)
    second = STEP * SCALE**3 * zeta2 * torch.linalg.matrix_norm(G, 2) ** 2 * RANK**0.5
    gap = (S[..., 0] / (S[..., RANK - 1] - S[..., RANK])).abs()
    return _move_evidence(found, promised, second, 10 * D * EPS * gap)


def _move_evidence(found: Tensor, promised: Tensor, second: Tensor, rounding: Tensor) -> Evidence:
    """Relative gap; allowed: the exact second-order part, and rounding of entries over η."""
    size = torch.linalg.matrix_norm(promised)
    gap = torch.linalg.matrix_norm(found - promised) / size
    # Factors of size one, and those of norm √(dr), are stored to eps each and divided by η.
    stored = EPS * (D * K) ** 0.5 * SCALE * (1 + K**0.5) / STEP / size
    tolerance = 1.01 * second / size + stored + rounding
    return Evidence(
        lhs=gap.numpy(),
        rhs=0.0,
        tolerance=tolerance.numpy(),
        numbers={
            "largest relative gap": float(gap.max()),
            "largest tolerance": float(tolerance.max()),
        },
    )


_SIZES = f"d = {D}, k = {K}, r* = {TRUE_RANK}, r = {RANK}, s = {SCALE}, N = {RATIO}d"

CLAIMS = (
    Claim(
        id="lora-one/linear/lora-pro",
        aliases=("3.9",),
        title="The equivalent full gradient of LoRA-Pro",
        reference="derivations 3.9",
        statement="s(A g^B + g^A B) = P_A𝒢 + (I − P_A)𝒢P_B for any free matrix Z.",
        hypotheses=("A, B of full rank r",),
        how=f"The rule's own Z and two random ones; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _equivalent(draws, overlap=False),
        mutant_statement="P_A𝒢 + 𝒢P_B, the direction of preconditioned GD",
        mutant=lambda draws: _equivalent(draws, overlap=True),
        trials=500,
        smoke_trials=30,
        derivation="3.9",
    ),
    Claim(
        id="lora-one/linear/lora-pro/optimum",
        aliases=("3.9/optimum",),
        title="LoRA-Pro is the least-squares optimum",
        reference="derivations 3.9",
        statement="‖s(A g^B + g^A B) − 𝒢‖_F = min over X, Y of ‖s(AY + XB) − 𝒢‖_F.",
        hypotheses=("A, B of full rank r",),
        how=f"Against a dense least-squares solution in all dr + rk unknowns; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _optimal(draws, preconditioned=False),
        mutant_statement="the same of P_A𝒢 + 𝒢P_B",
        mutant=lambda draws: _optimal(draws, preconditioned=True),
        trials=200,
        smoke_trials=10,
        derivation="3.9",
        uses=("lora-one/linear/lora-pro",),
    ),
    Claim(
        id="lora-one/linear/lora-pro/preconditioned",
        aliases=("3.9/preconditioned",),
        title="Preconditioned GD counts the overlap twice",
        reference="derivations 3.9",
        statement="To first order in η preconditioned GD moves W by −ηs²(P_A𝒢 + 𝒢P_B).",
        hypotheses=("A, B of full rank r", "no damping"),
        how=f"One step of η = {STEP:g}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _direction(draws, overlap=True),
        mutant_statement="P_A𝒢P_B counted once",
        mutant=lambda draws: _direction(draws, overlap=False),
        trials=500,
        smoke_trials=30,
        derivation="3.9",
        uses=("lora-one/linear/lora-pro",),
    ),
    Claim(
        id="lora-one/linear/lora-pro/lora-ga",
        aliases=("3.9/LoRA-GA",),
        title="The first step of LoRA-GA is a rank-2r gradient step",
        reference="derivations 3.9",
        statement="It moves W by −ηs²(√k/γ) × (best rank-2r part of 𝒢), to first order in η.",
        hypotheses=("LoRA-GA, A₀ from U_{1:r}, B₀ from V_{r+1:2r}, ζ = k^{1/4}/√γ",),
        how=f"One step of η = {STEP:g}, γ = {GAMMA:g}; {_SIZES}.",
        kind="identity",
        measure=lambda draws: _lora_ga(draws, rank=2 * RANK),
        mutant_statement="the best rank-r part",
        mutant=lambda draws: _lora_ga(draws, rank=RANK),
        trials=500,
        smoke_trials=30,
        derivation="3.9",
        uses=("lora-one/linear/one-step",),
    ),
)
