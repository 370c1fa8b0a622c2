"""3.2: the linear problem in fewer coordinates is the same dynamics, against loops over X."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.core.factors import Factors
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.core.randomness import haar_frame, normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.linear.reduction import Reduction, reduce

D, K, TRUE_RANK, RANK, RATIO, STEPS, RATE = 20, 16, 3, 5, 8, 120, 0.2
WIDE, WIDE_RATIO, WIDE_STEPS = 100, 16, 1500
EPS = np.finfo(np.float64).eps


def _instances(
    seeds: tuple[int, ...], d: int, k: int, samples: int, *, whitened: bool = False
) -> tuple[Tensor, Tensor, Factors]:
    """X, W and Δ; `whitened` X has XᵀX/N = I to rounding."""
    like = torch.empty(0, dtype=torch.float64)
    if whitened:
        frame = per_seed(lambda rng: haar_frame(rng, samples, d), seeds, "inputs", like)
        X = samples**0.5 * frame
    else:
        X = per_seed(lambda rng: normal(rng, samples, d), seeds, "inputs", like)
    W = per_seed(lambda rng: normal(rng, d, k), seeds, "pretrained", like)
    U = per_seed(lambda rng: haar_frame(rng, d, TRUE_RANK), seeds, "left frame", like)
    V = per_seed(lambda rng: haar_frame(rng, k, TRUE_RANK), seeds, "right frame", like)
    spectrum = torch.tensor(np.geomspace(1, 0.5, TRUE_RANK))
    return X, W, Factors(U * spectrum, V.mT)


def _loop(
    X: Tensor, W: Tensor, shift: Factors, start: Factors, steps: int, preconditioned: bool
) -> Tensor:
    """A_TB_T from W, X and Y = X(W + Δ), in the coordinates they are given in."""
    Y, N = X @ (W + shift.dense()), X.shape[-2]

    def gradients(pair: Factors) -> Factors:
        gradient = X.mT @ (X @ (W + pair.dense()) - Y) / N
        return Factors(gradient @ pair.B.mT, pair.A.mT @ gradient)

    return _descend(gradients, start, steps, preconditioned).dense()


def _small(reduction: Reduction, start: Factors, steps: int, preconditioned: bool) -> Tensor:
    """A_TB_T from the reduced problem and the reduced start, taken back."""
    gradients, lowered = reduction.problem.gradients, reduction.lower(start)
    return reduction.lift(_descend(gradients, lowered, steps, preconditioned)).dense()


def _descend(
    gradients: Callable[[Factors], Factors], start: Factors, steps: int, preconditioned: bool
) -> Factors:
    A, B = start
    for _ in range(steps):
        grad_A, grad_B = gradients(Factors(A, B))
        if preconditioned:
            left, right = inverse_psd(A.mT @ A).matrix, inverse_psd(B @ B.mT).matrix
            grad_A, grad_B = grad_A @ right, left @ grad_B
        A, B = A - RATE * grad_A, B - RATE * grad_B
    return Factors(A, B)


def _starts(problem: LinearProblem, seeds: tuple[int, ...]) -> dict[str, tuple[Factors, bool]]:
    """LoRA-init, Spectral-init under both rules, and factors with a B₀ of its own."""
    lora = Factors(*methods.lora(init_std=0.1).init(problem, RANK, seeds).trainable)
    spectral = Factors(*methods.lora_one().init(problem, TRUE_RANK, seeds).trainable)
    noise = per_seed(lambda rng: normal(rng, RANK, problem.k), seeds, "B0", lora.A)
    return {
        "LoRA-init, GD": (lora, False),
        "Spectral-init, GD": (spectral, False),
        "Spectral-init, preconditioned GD": (spectral, True),
        "general B₀, GD": (Factors(lora.A, 0.1 * noise), False),
    }


def _reduced(draws: Draws, *, forget: bool = False, population: bool = False) -> Evidence:
    """Relative distance of reduced and X-based A_TB_T; `forget` leaves B₀ out of the basis."""
    seeds = draws.seeds()
    X, W, shift = _instances(seeds, D, K, RATIO * D, whitened=population)
    sampled = LinearProblem.from_data(X, shift=shift, pretrained=W)
    known = LinearProblem.population(shift=shift) if population else sampled
    found, numbers = [], {}
    for name, (start, preconditioned) in _starts(sampled, seeds).items():
        kept = Factors(start.A, torch.zeros_like(start.B)) if forget else start
        reduction = reduce(known, kept)
        ours = _small(reduction, start, STEPS, preconditioned)
        theirs = _loop(X, W, shift, start, STEPS, preconditioned)
        found.append(_relative(ours - theirs, shift))
        sizes = f"d = {reduction.problem.d}, k = {reduction.problem.k}"
        numbers[f"largest relative difference, {name}, reduced to {sizes}"] = float(found[-1].max())
    if not (draws.smoke or forget or population):
        found.append(_wide(seeds[:1]))
        numbers[f"the same at d = k = {WIDE} after {WIDE_STEPS} steps of LoRA"] = float(found[-1])
    # The runs converge, so rounding is not enlarged towards the end: T steps with products of
    # length d, and the eigenbasis of Σ̂ good to d·eps.
    tolerance = EPS * WIDE * WIDE_STEPS
    return Evidence(torch.cat(found).numpy(), 0.0, tolerance=tolerance, numbers=numbers)


def _wide(seeds: tuple[int, ...]) -> Tensor:
    X, W, shift = _instances(seeds, WIDE, WIDE, WIDE_RATIO * WIDE)
    problem = LinearProblem.from_data(X, shift=shift, pretrained=W)
    start = Factors(*methods.lora(init_std=0.1).init(problem, RANK, seeds).trainable)
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=WIDE_STEPS, initial=start, record=()
    )
    theirs = _loop(X, W, shift, start, WIDE_STEPS, False)
    return _relative(run.final.dense() - theirs, shift)


def _relative(difference: Tensor, shift: Factors) -> Tensor:
    return torch.linalg.matrix_norm(difference) / torch.linalg.matrix_norm(shift.dense())


_HOW = (
    f"Loops over X, W and Y at d = {D}, k = {K}, N = {RATIO}d, r* = {TRUE_RANK}, r = {RANK}, "
    f"{STEPS} steps, from four starts; relative difference of A_TB_T."
)

CLAIMS = (
    Claim(
        id="lora-one/linear/reduction",
        aliases=("3.2",),
        title="The linear problem reduces exactly",
        reference="derivations 3.2",
        statement=(
            "In the eigenbasis of Σ̂ and a basis of span(V, rows of B₀), of dimension m ≤ r* + r "
            "(m = r* for LoRA-init and Spectral-init), the dynamics is that of a problem with "
            "diagonal Σ̂ and k = m."
        ),
        hypotheses=("linear model, noiseless labels", "a rotation-equivariant rule"),
        how=f"{_HOW} One more instance at d = k = {WIDE}, N = {WIDE_RATIO}d, {WIDE_STEPS} steps.",
        kind="identity",
        measure=_reduced,
        mutant_statement="the rows of B₀ left out of the basis",
        mutant=lambda draws: _reduced(draws, forget=True),
        trials=40,
        smoke_trials=4,
        derivation="3.2",
        uses=("lora-one/linear/rotation",),
    ),
    Claim(
        id="lora-one/linear/reduction/population",
        aliases=("3.2/population",),
        title="The population problem reduces on both sides",
        reference="derivations 3.2",
        statement="For Σ̂ = I also d becomes dim span(U, A₀) ≤ r* + r.",
        hypotheses=("linear model, noiseless labels", "Σ̂ = I", "a rotation-equivariant rule"),
        how=f"{_HOW} X has orthonormal columns times √N.",
        kind="identity",
        measure=lambda draws: _reduced(draws, population=True),
        mutant_statement="the rows of B₀ left out of the basis",
        mutant=lambda draws: _reduced(draws, forget=True, population=True),
        trials=40,
        smoke_trials=4,
        derivation="3.2",
        uses=("lora-one/linear/reduction",),
    ),
)
