"""Noisy labels as noiseless ones of another shift (derivations of sensing 1.1)."""

from __future__ import annotations

from dataclasses import replace

import torch

from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.problems.linear.problem import LinearProblem


def noiseless(problem: LinearProblem) -> LinearProblem:
    """The problem with the same gradients, and a loss less by a constant, whose labels are XΔ̂.

    Δ̂ = Δ + C†Z̃, which is Δ + Σ̂⁻¹XᵀZ/N for an invertible Σ̂; the problem itself where there is no
    noise. C† amplifies rounding by the root of Σ̂'s condition number, which a run by Z̃ does not.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=6, k=5, true_rank=2, samples=40, noise_std=0.1)
    >>> other = noiseless(problem)
    >>> G = problem.one_step_gradient().dense() - other.one_step_gradient().dense()
    >>> other.true_rank, bool(G.abs().max() < 1e-12)
    (5, True)
    """
    if problem.noise is None:
        return problem
    eye = torch.eye(problem.d).to(problem.like)
    C = problem.covariance.half(eye.expand(*problem.covariance.batch_shape, *eye.shape))
    U, S, Vh = torch.linalg.svd(C, full_matrices=False)
    kept = S > max(C.shape[-2:]) * linalg.eps(S) * S[..., :1]
    weights = torch.where(kept, 1 / torch.where(kept, S, 1.0), 0.0)
    fit = problem.shift.dense() + (Vh.mT * weights[..., None, :]) @ (U.mT @ problem.noise)
    L, S, V = linalg.truncated_svd(fit, min(problem.d, problem.k))
    return replace(
        problem,
        shift=Factors(L * S[..., None, :], V.mT),
        noise=None,
        constant=None,
        row_noise=None,
        noise_std=0.0,
    )
