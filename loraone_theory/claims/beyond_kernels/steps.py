"""Rank-one fine-tuning on fresh samples takes a number of steps linear in d."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import exponent, exponents, gaussian
from loraone_theory.core.factors import Params
from loraone_theory.methods.rules.gd import gd

K, WIDTHS, SMALL = 6, (16, 32, 64), (16, 64)
NEAR, CHUNK, MOST, CLIP = 0.2, 50, 400, 5.0
GROUP, ENOUGH = 8, 5  # runs whose median is one draw: known once so many are there
LINEAR, POWER, SLOPE = 1.0, 1.2, 0.1
FEW = 8  # groups of the other activations, which are among the numbers


class Activation(NamedTuple):
    """φ, φ′, and the learning rate times d."""

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    rate: float


RELU = Activation("ReLU", torch.relu, lambda z: (z > 0).to(z), 0.4)
# How many steps tanh takes hangs on its rate and on v. With the signs of v below and an overlap at
# random, half of 32 runs at d = 64 and 128 have arrived after 3100 and 7000 steps at 1.6/d, after
# 1800 and 3700 at 3.2/d, and no one rate gives the 550, 1000, 2900 and 3900 that others have
# measured at d = 16, 32, 64 and 128. With a generic v, of Gaussian entries, and 0.8/d half of 96
# runs have after 700, 1150, 2550 and 5600, a fifth not within 16000, and medians of eight spread
# so widely that the four are their percentiles 20, 28, 59 and 21.
OTHERS = (
    Activation("tanh", torch.tanh, lambda z: 1 - z.tanh().square(), 1.6),
    Activation("He₃", lambda z: z**3 - 3 * z, lambda z: 3 * z * z - 3, 0.01),
)


@functools.lru_cache(maxsize=3 * len(WIDTHS))
def _steps(d: int, seeds: tuple[int, ...], phi: Activation = RELU) -> np.ndarray:
    """Steps to ‖AB − Δ‖ ≤ 0.2 on fresh single samples, to a multiple of CHUNK: (groups, GROUP).

    The labels are Σ_j φ(⟨w_j + Δ_j, x⟩), w_j orthonormal, Δ = uvᵀ of norm one with generic u. What
    steps vary by most is the start's overlap with u; it is 1/√d here, that of a random one. Groups
    whose median is known are not gone on with.

    `simulate` with sampling="fresh" takes the same steps, but draws a problem for each of them and
    keeps a generator for each run; here a thousand runs take thousands of steps, so that samples
    are drawn a chunk at a time.
    """
    runs = tuple(seed + i for seed in seeds for i in range(GROUP))
    W = torch.eye(d, K, dtype=torch.float64)
    u, g = (_unit(gaussian(d, 1, runs, f"{name} {d}")) for name in "uA")
    v = torch.tensor([(-1.0) ** j for j in range(K)], dtype=torch.float64) / K**0.5
    shift = u * v
    off = _unit(g - u * (u.mT @ g))
    whole = (u / d**0.5 + (1 - 1 / d) ** 0.5 * off, torch.zeros_like(shift[:, :1]), shift)
    # (groups, GROUP, ...), those that are not known yet.
    A, B, shift = (M.unflatten(0, (-1, GROUP)) for M in whole)
    rule = gd(phi.rate / d)
    left, reached = np.arange(len(seeds)), np.full((len(seeds), GROUP), np.inf)
    for chunk in range(MOST * d // CHUNK):
        named = tuple(seeds[i] for i in left)
        samples = gaussian(GROUP * CHUNK, d, named, f"x {d} {chunk}").unflatten(1, (GROUP, CHUNK))
        for X in samples.unbind(-2):
            gradients = _gradients((A, B), X[..., None, :], W, shift, phi)
            (A, B), _ = rule.update((A, B), gradients, None)
        near = (torch.linalg.matrix_norm(A @ B - shift) <= NEAR).numpy()
        before = reached[left]
        reached[left] = np.where(near & np.isinf(before), (chunk + 1) * CHUNK, before)
        open_ = np.isfinite(reached[left]).sum(-1) < ENOUGH
        if not open_.any():
            break
        left = left[open_]
        A, B, shift = (M[torch.from_numpy(open_)] for M in (A, B, shift))
    return reached


def _unit(M: Tensor) -> Tensor:
    return M / torch.linalg.matrix_norm(M, keepdim=True)


def _gradients(params: Params, x: Tensor, W: Tensor, shift: Tensor, phi: Activation) -> Params:
    """Of ½(student − teacher)² at one sample x (n, 1, d), the residual clipped."""
    A, B = params
    z = x @ W + (x @ A) @ B
    miss = (phi.value(z) - phi.value(x @ (W + shift))).sum(-1, keepdim=True).clamp(-CLIP, CLIP)
    pull = miss * phi.slope(z)  # (n, 1, K)
    return x.mT @ (pull @ B.mT), (x @ A).mT @ pull


def _growth(draws: Draws, *, promised: float) -> Evidence:
    """Exponent in d of the median of GROUP runs' steps."""
    widths = SMALL if draws.smoke else WIDTHS
    taken = np.array([np.median(_steps(d, draws.seeds()), -1) for d in widths])
    pairs = zip(widths, taken, strict=True)
    means = {f"median steps at d = {d}": float(np.median(row)) for d, row in pairs}
    for phi in () if draws.smoke else OTHERS:
        rows = np.array([np.median(_steps(d, draws.seeds(FEW), phi)) for d in widths])
        means |= {
            f"median steps at d = {d}, {phi.name}": float(v)
            for d, v in zip(widths, rows, strict=True)
        }
        means[f"exponent, {phi.name}"] = float(exponents(widths, rows[:, None])[0])
    return exponent(exponents(widths, taken), promised, SLOPE, **means)


CLAIMS = (
    Claim(
        id="beyond-kernels/steps",
        title="Fine-tuning by rank one takes a number of samples linear in d",
        reference=(
            "Dayi, Chen, arXiv 2411.15385, abstract: d·k^{O(1)} steps whatever the activation's "
            "Hermite expansion; the power of k is not tested, other activations are among the "
            "numbers"
        ),
        statement=f"The steps to ‖AB − Δ‖ ≤ {NEAR:g}‖Δ‖ are Θ(d), up to logarithms: exponent 1.",
        hypotheses=(
            "student and teacher Σ_j φ(⟨w_j + Δ_j, x⟩), φ the ReLU, w_j orthonormal, Δ of rank one",
            "fresh Gaussian samples, one a step; learning rate ∝ 1/d",
            "Δ = uvᵀ with u generic and v of alternating signs, ±1/√6: the exponent hangs on v",
            "B₀ = 0; ‖A₀‖ = 1 with the overlap 1/√d of a random start",
        ),
        how=(
            f"Median of {GROUP} runs, to {CHUNK} steps; d = {listed(WIDTHS)}, {K} neurons, r = r*, "
            f"learning rate {RELU.rate:g}/d, residuals clipped at {CLIP:g}; exponent ± {SLOPE:g}."
        ),
        kind="value",
        measure=lambda draws: _growth(draws, promised=LINEAR),
        mutant_statement=f"exponent {POWER:g}",
        mutant=lambda draws: _growth(draws, promised=POWER),
        trials=192,
        smoke_trials=200,
        explanation=(
            "The start's overlap adds a factor ln d, of the order of a tenth of an exponent. With "
            "tanh the exponent is nearer to that of d ln d at these widths and beyond; He₃ asks "
            "for a learning rate forty times as small, or runs end in their own noise. That noise "
            "weighs most at small d, so the exponent of He₃ hangs on the rate: with generic v and "
            "a start at random it is 1.17 at 0.003/d and 0.85 at 0.01/d between d = 16 and 64, "
            "and at 0.02/d most runs at d = 16 never arrive."
        ),
    ),
)
