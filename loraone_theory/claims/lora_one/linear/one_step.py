"""3.4: one step of E = AB − Δ in closed form, and the law of the balance AᵀA − BBᵀ."""

from __future__ import annotations

import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.sampling import sample_linear

D, K, RANK, RATIO = 16, 12, 3, 3
WIDER = RANK + 1
RATES = (0.05, 0.4)


def _instances(draws: Draws) -> tuple[LinearProblem, Factors]:
    """Instances with N = {RATIO}d and Gaussian factors of their own."""
    seeds = draws.seeds()
    problem = sample_linear(
        d=D, k=K, true_rank=RANK, samples=RATIO * D, condition_number=3.0, seeds=seeds,
        **draws.place,
    )  # fmt: skip
    A = per_seed(lambda rng: normal(rng, D, RANK), seeds, "A", problem.like)
    B = per_seed(lambda rng: normal(rng, RANK, K), seeds, "B", problem.like)
    return problem, Factors(0.5 * A, 0.5 * B)


def _step(problem: LinearProblem, start: Factors, method: str, rate: float) -> Factors:
    return simulate(
        problem,
        method,
        rank=RANK,
        learning_rate=rate,
        steps=1,
        initial=start,
        record=(),
        reduce="never",
    ).final


def _parts(problem: LinearProblem, start: Factors) -> tuple[Tensor, Tensor]:
    """E and M = Σ̂E."""
    E = start.dense() - problem.shift.dense()
    return E, problem.covariance.apply(E)


def _evidence(
    draws: Draws, gaps: list[Tensor], sizes: list[Tensor], conditions: Tensor | float
) -> Evidence:
    """Relative gaps; rounding of three products of length up to d, times the conditioning."""
    relative = torch.cat([gap / size for gap, size in zip(gaps, sizes, strict=True)]).cpu()
    tolerance = 3 * D * draws.eps * torch.as_tensor(conditions, dtype=torch.float64).cpu()
    return Evidence(
        lhs=relative.numpy(),
        rhs=0.0,
        tolerance=tolerance.expand(len(gaps), -1).flatten().numpy()
        if tolerance.ndim
        else float(tolerance),
        numbers={"largest relative gap": float(relative.max())},
    )


def _gd(draws: Draws, *, second_order: float) -> Evidence:
    problem, start = _instances(draws)
    A, B = start
    E, M = _parts(problem, start)
    gaps, sizes = [], []
    for rate in RATES:
        found = _step(problem, start, "lora", rate).dense() - problem.shift.dense()
        terms = (
            E,
            rate * M @ B.mT @ B,
            rate * A @ A.mT @ M,
            second_order * rate**2 * M @ (A @ B).mT @ M,
        )
        promised = terms[0] - terms[1] - terms[2] + terms[3]
        gaps.append(torch.linalg.matrix_norm(found - promised))
        sizes.append(torch.stack([torch.linalg.matrix_norm(term) for term in terms]).amax(0))
    return _evidence(draws, gaps, sizes, 1.0)


def _preconditioned(draws: Draws, *, overlap: bool) -> Evidence:
    """`overlap` counts P_A M P_B twice, as the step does; the mutant counts it once."""
    problem, start = _instances(draws)
    A, B = start
    E, M = _parts(problem, start)
    P_A, P_B = A @ torch.linalg.pinv(A), torch.linalg.pinv(B) @ B
    first = M @ P_B + P_A @ M - (0.0 if overlap else P_A @ M @ P_B)
    second = M @ torch.linalg.pinv(B) @ torch.linalg.pinv(A) @ M
    gaps, sizes = [], []
    for rate in RATES:
        found = _step(problem, start, "p-lora", rate).dense() - problem.shift.dense()
        promised = E - rate * first + rate**2 * second
        gaps.append(torch.linalg.matrix_norm(found - promised))
        largest = [torch.linalg.matrix_norm(term) for term in (E, rate * first, rate**2 * second)]
        sizes.append(torch.stack(largest).amax(0))
    # A Gram inverse has the relative error eps·cond², and two of them are multiplied.
    conditions = (torch.linalg.cond(A) * torch.linalg.cond(B)) ** 2
    return _evidence(draws, gaps, sizes, conditions)


def _balance(draws: Draws, *, second_order: float) -> Evidence:
    problem, start = _instances(draws)
    A, B = start
    _, M = _parts(problem, start)
    grad_A, grad_B = M @ B.mT, A.mT @ M
    before = A.mT @ A - B @ B.mT
    gaps, sizes = [], []
    for rate in RATES:
        A1, B1 = _step(problem, start, "lora", rate)
        change = rate**2 * (grad_A.mT @ grad_A - grad_B @ grad_B.mT)
        found = A1.mT @ A1 - B1 @ B1.mT
        gaps.append(torch.linalg.matrix_norm(found - before - second_order * change))
        # Rounding is that of the Gram matrices and of the cross terms ηAᵀ∇_A that cancel.
        largest = [A1.mT @ A1, B1 @ B1.mT, A.mT @ A, B @ B.mT, rate * A.mT @ grad_A, change]
        sizes.append(torch.stack([torch.linalg.matrix_norm(M) for M in largest]).amax(0))
    return _evidence(draws, gaps, sizes, 1.0)


def _spectral_balance(draws: Draws, *, uneven: float) -> Evidence:
    """‖D₀‖_F at Spectral-init, relative to ‖G‖; `uneven` moves a share of S from A to B."""
    seeds = draws.seeds()
    problem = sample_linear(
        d=D, k=K, true_rank=RANK, samples=RATIO * D, condition_number=3.0, seeds=seeds,
        **draws.place,
    )  # fmt: skip
    run = simulate(
        problem, "lora-one", rank=WIDER, learning_rate=0.1, steps=1, record=(), reduce="never"
    )
    A, B = (1 + uneven) * run.initial.A, run.initial.B / (1 + uneven)
    gap = torch.linalg.matrix_norm(A.mT @ A - B @ B.mT)
    size = torch.linalg.matrix_norm(problem.one_step_gradient().dense())
    return _evidence(draws, [gap], [size], 1.0)


_HYPOTHESES = ("linear model",)
_HOW = f"One unreduced step at d = {D}, k = {K}, r = r* = {RANK}, N = {RATIO}d, η ∈ {set(RATES)}."

CLAIMS = (
    Claim(
        id="lora-one/linear/one-step",
        aliases=("3.4",),
        title="One step of gradient descent",
        reference="derivations 3.4",
        statement="E⁺ = E − η(M BᵀB + AAᵀM) + η² M(AB)ᵀM with M = Σ̂E.",
        hypotheses=_HYPOTHESES,
        how=_HOW,
        kind="identity",
        measure=lambda draws: _gd(draws, second_order=1.0),
        mutant_statement="the second-order term with the other sign",
        mutant=lambda draws: _gd(draws, second_order=-1.0),
        trials=1000,
        smoke_trials=50,
        derivation="3.4",
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    Claim(
        id="lora-one/linear/one-step/preconditioned",
        aliases=("3.4/preconditioned",),
        title="One step of preconditioned gradient descent",
        reference="derivations 3.4",
        statement="E⁺ = E − η(M P_B + P_A M) + η² M(AB)†M with M = Σ̂E.",
        hypotheses=(*_HYPOTHESES, "A, B of full rank r"),
        how=_HOW,
        kind="identity",
        measure=lambda draws: _preconditioned(draws, overlap=True),
        mutant_statement="P_A M P_B counted once, as a projection would",
        mutant=lambda draws: _preconditioned(draws, overlap=False),
        trials=1000,
        smoke_trials=50,
        derivation="3.4",
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    Claim(
        id="lora-one/linear/one-step/balance",
        aliases=("3.4/balance",),
        title="The balance moves at second order only",
        reference="derivations 3.4",
        statement="D = AᵀA − BBᵀ obeys D⁺ = D + η²(∇_Aᵀ∇_A − ∇_B∇_Bᵀ) under GD.",
        hypotheses=_HYPOTHESES,
        how=_HOW,
        kind="identity",
        measure=lambda draws: _balance(draws, second_order=1.0),
        mutant_statement="D⁺ = D, as for gradient flow",
        mutant=lambda draws: _balance(draws, second_order=0.0),
        trials=1000,
        smoke_trials=50,
        derivation="3.4",
        dtypes=("float64", "float32"),
        devices=("cpu", "cuda"),
    ),
    Claim(
        id="lora-one/linear/one-step/spectral",
        aliases=("3.4/spectral",),
        title="Spectral-init is balanced",
        reference="derivations 3.4",
        statement="A₀ᵀA₀ = B₀B₀ᵀ at Spectral-init.",
        hypotheses=("Spectral-init",),
        how=f"d = {D}, k = {K}, r* = {RANK}, r = {WIDER}, N = {RATIO}d.",
        kind="identity",
        measure=lambda draws: _spectral_balance(draws, uneven=0.0),
        mutant_statement="one part in a million of A moved to B",
        mutant=lambda draws: _spectral_balance(draws, uneven=1e-6),
        trials=1000,
        smoke_trials=50,
        derivation="3.4",
    ),
)
