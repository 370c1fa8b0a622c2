"""5: local rates of any ensemble from the singular values of the tangent map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.claims.base import Claim, Draws, Evidence
from loraone_theory.claims.population import tangent_matrix
from loraone_theory.claims.sensing.base import (
    EPS,
    LAW,
    NO_PROOF,
    balanced,
    same_law,
)
from loraone_theory.core.factors import Factors
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.predict import RuleName
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

D, K, RANK = 8, 6, 2
DOF = RANK * (D + K - RANK)
ENSEMBLES = {
    "dense": 5 * DOF,
    "rank-one": 8 * DOF,
    "single-response": 10 * DOF,
    "multi-response": 20 * K,
    "completion": 6 * DOF,
}
METHODS: dict[RuleName, str] = {"gd": "lora", "preconditioned": "p-lora"}
# Relative size of the displacement: second-order terms are of this size, and rounding eps over it.
NEAR = 1e-7
KAPPAS, STRETCHED = (1.0, 4.0), 3.0
# The edge: shares of it, the size of the start, and how long it is followed.
BELOW, ABOVE, SMALL, FOLLOWED = 0.97, 1.03, 1e-4, 150


def _instances(draws: Draws, ensemble: str, kappa: float) -> SensingProblem:
    return sample_sensing(
        ensemble=ensemble,
        d=D,
        k=K,
        true_rank=RANK,
        measurements=ENSEMBLES[ensemble],
        condition_number=kappa,
        seeds=draws.seeds(),
    )


def _modes(problem: SensingProblem, at: Factors, rule: RuleName) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values of (X, Y) ↦ 𝒜(XB̄ + ĀY)/√m, and the moves of A and B along each mode."""
    P = Q = torch.eye(RANK, dtype=torch.float64).expand(*at.A.shape[:-2], -1, -1)
    if rule == "preconditioned":
        P, Q = _inverse_root(at.B @ at.B.mT), _inverse_root(at.A.mT @ at.A)
    turned = Factors(at.A @ Q, P @ at.B)
    J = tangent_matrix(problem.operator, turned) / problem.measurements**0.5
    _, S, Vh = torch.linalg.svd(J, full_matrices=False)
    X = Vh[..., : D * RANK].unflatten(-1, (D, RANK)) @ P[..., None, :, :]
    Y = Q[..., None, :, :] @ Vh[..., D * RANK :].unflatten(-1, (RANK, K))
    return S, X, Y


def _inverse_root(M: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(M)
    return vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT


def _contraction(draws: Draws, ensemble: str, *, less: int) -> Evidence:
    """‖E₁‖/‖E₀‖ along the slowest and the fastest mode; the mutant divides by m − `less`."""
    found, promised, allowed = [], [], []
    for kappa in KAPPAS:
        problem = _instances(draws, ensemble, kappa)
        assert problem.shift is not None
        at = balanced(problem.shift)
        m = problem.measurements
        for rule, name in METHODS.items():
            # μ of the map's own matrix, and as predicted, by the adjoint as the gradient is.
            S, X, Y = _modes(problem, at, rule)
            own = S[:, [DOF - 1, 0]] ** 2
            predicted = predict.rates(problem, at, rule=rule).extremes
            near = [mu * (m / (m - less)) for mu in (own, predicted)]
            eta = 0.7 / float(near[0][:, 1].max())
            # E is NEAR times the root of its mode: relative errors grow by κ and that root.
            spread = (own[:, 1] / own[:, 0]).sqrt()
            bend = spread * kappa * (30 * NEAR + 30 * m * EPS / NEAR)
            for mode, end in ((DOF - 1, 0), (0, 1)):
                moved = Factors(at.A + NEAR * X[:, mode], at.B + NEAR * Y[:, mode])
                run = simulate(
                    problem, name, rank=RANK, learning_rate=eta, steps=1, initial=moved,
                    record=("error",),
                )  # fmt: skip
                for mu in near:
                    found.append(run["error"][1] / run["error"][0])
                    promised.append((1 - eta * mu[:, end]).abs())
                    allowed.append(bend)
    return Evidence(
        torch.cat(found).numpy(), torch.cat(promised).numpy(), tolerance=torch.cat(allowed).numpy()
    )


def _wishart(draws: Draws, *, doubled: float) -> Evidence:
    """μ_min and μ_max of preconditioned descent, against D^{1/2}WD^{1/2} of a Wishart W."""
    problem = _instances(draws, "dense", STRETCHED)
    assert problem.shift is not None
    near = predict.rates(problem, balanced(problem.shift), rule="preconditioned").extremes
    weights = torch.ones(DOF, dtype=torch.float64)
    weights[: RANK**2] = doubled
    m = problem.measurements
    g = per_seed(lambda rng: normal(rng, m, DOF), draws.seeds(block=1), "W", problem.like)
    ends = torch.linalg.svdvals(g * weights.sqrt())[:, [-1, 0]] ** 2 / m
    names = ("μ_min", "μ_max")
    return same_law(
        {n: near[:, i] for i, n in enumerate(names)}, {n: ends[:, i] for i, n in enumerate(names)}
    )


def _edge(draws: Draws, *, factor: float) -> Evidence:
    """1 for runs that stay within their start below the edge, or leave it above, from SMALL."""
    agrees = []
    for ensemble in ("dense", "completion"):
        problem = _instances(draws, ensemble, 1.0)
        assert problem.shift is not None
        at = balanced(problem.shift)
        _, X, Y = _modes(problem, at, "gd")
        mu = predict.rates(problem, at).extremes[:, 1].numpy()
        start = Factors(at.A + SMALL * X[:, 0], at.B + SMALL * Y[:, 0])
        for share, stable in ((BELOW, True), (ABOVE, False)):
            for i, top in enumerate(mu):
                rate = share * factor * 2 / top
                one = sample_sensing(
                    ensemble=ensemble, d=D, k=K, true_rank=RANK,
                    measurements=ENSEMBLES[ensemble], seeds=draws.seeds()[i : i + 1],
                )  # fmt: skip
                run = simulate(
                    one, "lora", rank=RANK, learning_rate=float(rate), steps=FOLLOWED,
                    initial=Factors(start.A[i : i + 1], start.B[i : i + 1]), record=("error",),
                )  # fmt: skip
                end = float(run["error"][-1] / run["error"][0])
                agrees.append(float((end < 0.5) == stable))
    return Evidence(np.array(agrees), 1.0)


def _undetermined(draws: Draws, *, missing: int) -> Evidence:
    """μ_min over μ_max at m = dof − `missing`, both rules: 0 or not."""
    problem = sample_sensing(
        ensemble="dense", d=D, k=K, true_rank=RANK, measurements=DOF - missing, seeds=draws.seeds()
    )
    assert problem.shift is not None
    at = balanced(problem.shift)
    found = []
    for rule in METHODS:
        near = predict.rates(problem, at, rule=rule).extremes
        found.append(near[:, 0] / near[:, 1])
    # Squares of singular values that are rounding of the largest.
    return Evidence(torch.cat(found).numpy(), 0.0, tolerance=(10 * DOF * EPS) ** 2)


def _rate_claim(ensemble: str) -> Claim:
    return Claim(
        id=f"sensing/local-rates/{ensemble}",
        title=f"Local rates, {ensemble}",
        reference="derivations, sensing 5",
        statement=(
            "Near AB = Δ mode i of E is multiplied by 1 − ημ_i, μ the top r(d + k − r) squared "
            "singular values of (X, Y) ↦ 𝒜(XB̄ + ĀY)/√m; Ā = A, B̄ = B for GD, orthonormalised for "
            "preconditioned GD."
        ),
        hypotheses=(f"{ensemble} measurements", "r = r*", "AB near Δ", "no noise"),
        how=(
            f"One step from {NEAR:g} along the slowest and the fastest mode, both rules, "
            f"κ ∈ {KAPPAS}; d = {D}, k = {K}, r = {RANK}, m = {ENSEMBLES[ensemble]}."
        ),
        kind="identity",
        measure=lambda draws: _contraction(draws, ensemble, less=0),
        mutant_statement="√(m − dof/2) in place of √m",
        mutant=lambda draws: _contraction(draws, ensemble, less=DOF // 2),
        trials=40,
        smoke_trials=3,
        derivation="sensing 5",
        figure="fig_sensing.png",
        uses=("lora-one/linear/one-step", "lora-one/linear/one-step/preconditioned"),
    )


CLAIMS = (
    *(_rate_claim(ensemble) for ensemble in ENSEMBLES),
    Claim(
        id="sensing/local-rates/wishart",
        title="The law of the local rates of dense sensing",
        reference="derivations, sensing 5",
        statement=(
            "Preconditioned: μ are the eigenvalues of D^{1/2}WD^{1/2}, W Wishart_dof(m)/m, D = 2 "
            "on r² coordinates and 1 on the others, whatever Δ is."
        ),
        hypotheses=("dense Gaussian measurements", "r = r*", "m >= dof"),
        how=(
            f"μ_min and μ_max; d = {D}, k = {K}, r = {RANK}, m = {ENSEMBLES['dense']}, "
            f"κ = {STRETCHED:g}; {LAW}."
        ),
        kind="bound",
        measure=lambda draws: _wishart(draws, doubled=2.0),
        mutant_statement="D = 1.8 on the r² coordinates",
        mutant=lambda draws: _wishart(draws, doubled=1.8),
        trials=1200,
        smoke_trials=250,
        explanation=NO_PROOF,
        derivation="sensing 5",
        uses=("sensing/local-rates/dense",),
    ),
    Claim(
        id="sensing/local-rates/edge",
        title="The stability edge of any ensemble",
        reference="derivations, sensing 5",
        statement="GD near AB = Δ contracts for η < 2/μ_max and does not for η above.",
        hypotheses=("r = r*", "AB near Δ", "m >= dof", "no noise"),
        how=(
            f"At {BELOW} and {ABOVE} of the edge, {FOLLOWED} steps from {SMALL:g} along the "
            "fastest mode: whether the error ends below half of its start; dense and "
            f"completion, d = {D}, k = {K}."
        ),
        kind="identity",
        measure=lambda draws: _edge(draws, factor=1.0),
        mutant_statement="an edge at 2.2/μ_max",
        mutant=lambda draws: _edge(draws, factor=1.1),
        trials=8,
        smoke_trials=2,
        derivation="sensing 5",
        uses=("sensing/local-rates/dense", "sensing/local-rates/completion"),
    ),
    Claim(
        id="sensing/local-rates/undetermined",
        title="Fewer measurements than degrees of freedom",
        reference="derivations, sensing 5",
        statement="For m < r(d + k − r) μ_min = 0: a part of E is at rest.",
        hypotheses=("r = r*", "AB near Δ", "m < dof"),
        how=f"μ_min/μ_max at m one less than dof, dense; d = {D}, k = {K}, r = {RANK}.",
        kind="identity",
        measure=lambda draws: _undetermined(draws, missing=1),
        mutant_statement="at m = dof too",
        mutant=lambda draws: _undetermined(draws, missing=0),
        trials=40,
        smoke_trials=5,
        derivation="sensing 5",
        uses=("sensing/local-rates/dense",),
    ),
)
