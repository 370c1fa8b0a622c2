"""4.4: what the reference notebook computes, against what it says."""

from __future__ import annotations

import numpy as np

from loraone_theory.claims.base import Claim, Draws, Evidence, Finding
from loraone_theory.core.randomness import generator, normal

EPS = np.finfo(np.float64).eps
D, K, SAMPLES, RANK, ETA, LOGGED = 10, 8, 40, 3, 0.1, 20


def _start(draws: Draws, *, power: int, any_scale: bool = False) -> Evidence:
    """¼Σ yᵢ^power xᵢ against −∇L(0) by central differences, exact for a quadratic loss."""
    found = []
    for seed in draws.seeds():
        rng = generator(seed, "4.4")
        X, shift = normal(rng, 4, 2), normal(rng, 2)
        y = X @ shift

        def loss(w: np.ndarray, X: np.ndarray = X, y: np.ndarray = y) -> float:
            return float(((X @ w - y) ** 2).sum() / 8)

        true = np.array([loss(-e) - loss(e) for e in np.eye(2)]) / 2
        given = (y**power) @ X / 4
        scale = given @ true / (given @ given) if any_scale else 1.0
        found.append(np.linalg.norm(scale * given - true) / np.linalg.norm(true))
    # The differences subtract losses that may be a thousand times larger than the gradient.
    return Evidence(
        np.array(found), 0.0, tolerance=1e3 * 8 * EPS, numbers={"mean": float(np.mean(found))}
    )


def _first_losses(draws: Draws, *, redraw: bool, overwrite: bool) -> Evidence:
    """Loss at t = 0 of a second method over that of a first one, both started at AB = offset."""
    found = []
    for seed in draws.seeds():
        rng = generator(seed, "4.4 comparison")
        X, W = normal(rng, SAMPLES, D), normal(rng, D, K)
        shift, offset = normal(rng, D, 2) @ normal(rng, 2, K), normal(rng, D, RANK)
        first = np.linalg.norm(X @ shift) ** 2
        if redraw:
            X = normal(rng, SAMPLES, D)
        used = W - offset @ normal(rng, RANK, K) if overwrite else W
        found.append(np.linalg.norm(X @ (W + shift) - X @ used) ** 2 / first)
    numbers = {"mean ratio": float(np.mean(found)), "spread": float(np.std(found))}
    return Evidence(np.array(found), 1.0, tolerance=EPS * SAMPLES * D * K, numbers=numbers)


def _logged(draws: Draws, *, lag: int) -> Evidence:
    """Risk at t against loss at t + lag where Σ̂ = I, so that they are one function."""
    found = []
    for seed in draws.seeds():
        rng = generator(seed, "4.4 log")
        shift = normal(rng, D, 2) @ normal(rng, 2, K) / 10
        X = np.sqrt(D) * np.eye(D)  # XᵀX/N = I
        A, B = normal(rng, D, RANK), np.zeros((RANK, K))
        risks, losses = [], []
        for _ in range(LOGGED + lag):
            E = A @ B - shift
            risks.append((E**2).sum() / 2)
            losses.append(((X @ E) ** 2).sum() / (2 * D))
            A, B = A - ETA / D * E @ B.T, B - ETA / D * A.T @ E
        pairs = zip(risks[:LOGGED], losses[lag : LOGGED + lag], strict=True)
        found.append(max(abs(loss / risk - 1) for risk, loss in pairs))
    return Evidence(
        np.array(found), 0.0, tolerance=EPS * D * K, numbers={"mean": float(np.mean(found))}
    )


_NOTEBOOK = "Reference notebook"

CLAIMS = (
    Claim(
        id="lora-one/discrepancies/notebook",
        aliases=("4.4",),
        title="The notebook's spectral start is a gradient",
        reference=f"{_NOTEBOOK}, trajectory cell",
        statement="g = ¼Σ yᵢ²xᵢ is −∇L at zero.",
        hypotheses=("d = 2, N = 4",),
        how="Against central differences of L, exact for a quadratic.",
        kind="identity",
        measure=lambda draws: _start(draws, power=2),
        mutant_statement="up to a factor",
        mutant=lambda draws: _start(draws, power=2, any_scale=True),
        trials=200,
        smoke_trials=20,
        expected=Finding.VIOLATED,
        explanation="One y too many: −∇L(0) = ¼Σ yᵢxᵢ, which the next claim confirms.",
    ),
    Claim(
        id="lora-one/discrepancies/notebook/gradient",
        aliases=("4.4/gradient",),
        title="The gradient at zero",
        reference=f"{_NOTEBOOK}, trajectory cell, corrected",
        statement="¼Σ yᵢxᵢ is −∇L at zero.",
        hypotheses=("d = 2, N = 4",),
        how="Against central differences of L, exact for a quadratic.",
        kind="identity",
        measure=lambda draws: _start(draws, power=1),
        mutant_statement="¼Σ yᵢ²xᵢ",
        mutant=lambda draws: _start(draws, power=2),
        trials=200,
        smoke_trials=20,
    ),
    Claim(
        id="lora-one/discrepancies/notebook/instances",
        aliases=("4.4/instances",),
        title="The notebook's curves are of one instance",
        reference=f"{_NOTEBOOK}, comparison cell",
        statement="Two methods that leave the function unchanged at t = 0 start at one loss.",
        hypotheses=("X drawn anew for each method", "W replaced by W − A₀B₀ of the method before"),
        how=f"Longhand, d = {D}, k = {K}, N = {SAMPLES}, labels from the original W + Δ.",
        kind="identity",
        measure=lambda draws: _first_losses(draws, redraw=True, overwrite=True),
        mutant_statement="the same with X kept and W replaced",
        mutant=lambda draws: _first_losses(draws, redraw=False, overwrite=True),
        trials=200,
        smoke_trials=20,
        expected=Finding.VIOLATED,
        explanation="Each curve is of another instance; with X and W kept the losses are equal.",
    ),
    Claim(
        id="lora-one/discrepancies/notebook/log",
        aliases=("4.4/log",),
        title="The notebook's risk and loss are of the same weights",
        reference=f"{_NOTEBOOK}, comparison cell",
        statement="Logged risk and loss agree where Σ̂ = I, risk at t and loss at t + 1.",
        hypotheses=("Σ̂ = I",),
        how=f"{LOGGED} steps of gradient descent written out; at one t they agree to rounding.",
        kind="identity",
        measure=lambda draws: _logged(draws, lag=1),
        mutant_statement="risk at t and loss at t + 2",
        mutant=lambda draws: _logged(draws, lag=2),
        trials=100,
        smoke_trials=10,
        expected=Finding.VIOLATED,
        explanation="The loss is taken after the update that the risk precedes.",
    ),
)
