"""4.2: one letter γ for three different scales."""

from __future__ import annotations

import numpy as np
import torch

from loraone_theory import methods
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.problems.linear.sampling import sample_linear

D, TRUE_RANK, RANK = 24, 6, 4
WIDTHS, GAMMAS = (16, 64), (2.0, 8.0)
EPS = np.finfo(np.float64).eps
# Method -> exponents of γ and of k in A₀B₀, at the same gradient directions.
EXPONENTS = {"lora-one": (1.0, 0.0), "lora-one-released": (-1.0, 0.0), "lora-ga": (-1.0, 0.5)}


def _exponents(draws: Draws, promised: dict[str, tuple[float, float]]) -> Evidence:
    """Exponents of γ and k in ‖A₀B₀‖_op, over the length of the gradient where it enters."""
    found, rhs, numbers = [], [], {}
    for name, exponents in promised.items():
        sizes = np.empty((len(GAMMAS), len(WIDTHS), draws.trials))
        for j, k in enumerate(WIDTHS):
            problem = sample_linear(
                d=D, k=k, true_rank=TRUE_RANK, samples=16 * D, condition_number=3.0,
                seeds=draws.seeds(),
            )  # fmt: skip
            for i, gamma in enumerate(GAMMAS):
                method = methods.METHODS[name](gamma=gamma)
                A, B = method.init(problem, RANK, draws.seeds()).trainable
                sizes[i, j] = torch.linalg.matrix_norm(A @ B, 2).numpy()
        logs = np.log(sizes)
        by_gamma = (logs[1, 0] - logs[0, 0]) / np.log(GAMMAS[1] / GAMMAS[0])
        # X and U are the same at both widths, and V only turns the output space: G has the same
        # singular values.
        by_width = (logs[0, 1] - logs[0, 0]) / np.log(WIDTHS[1] / WIDTHS[0])
        numbers[f"exponent of γ, {name}"] = float(by_gamma.mean())
        numbers[f"exponent of k, {name}"] = float(by_width.mean())
        found += [by_gamma, by_width]
        rhs += [np.full(draws.trials, e) for e in exponents]
    return Evidence(
        np.concatenate(found), np.concatenate(rhs), tolerance=EPS * D * 64, numbers=numbers
    )


CLAIMS = (
    Claim(
        id="lora-one/discrepancies/three-gammas",
        aliases=("4.2",),
        title="γ multiplies, divides, or divides with √k",
        reference="Spectral-init, Algorithm 1 and LoRA-GA",
        statement=(
            "A₀B₀ ∝ γ in Spectral-init, ∝ 1/γ in the released code, and ∝ √k/γ in LoRA-GA: one "
            "letter, three meanings."
        ),
        hypotheses=(),
        how=(
            f"‖A₀B₀‖_op at γ = {listed(GAMMAS)} and k = {listed(WIDTHS)}, same X and U; d = {D}, "
            f"r = {RANK}."
        ),
        kind="identity",
        measure=lambda draws: _exponents(draws, EXPONENTS),
        mutant_statement="γ means the same in all three: it multiplies",
        mutant=lambda draws: _exponents(draws, dict.fromkeys(EXPONENTS, (1.0, 0.0))),
        trials=30,
        smoke_trials=4,
        explanation="This library calls them `gamma` of each method and says in each which it is.",
        uses=("lora-one/algorithm-1",),
    ),
)
