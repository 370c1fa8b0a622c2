"""A regulariser on the factors' own scale keeps the rate free of κ; a constant one does not."""

import math

import pytest
import tolerance
import torch

import loraone_theory as lt
from loraone_theory.methods.rules import RULES
from loraone_theory.methods.rules.base import relative_damping

ETA, RANK, TARGET = 0.3, 4, 1e-10
KAPPAS = (1, 10, 100, 1000)


def steps_needed(kappa: float, size: float, damping: float, relative: float) -> int:
    """Steps to ‖E‖_F ≤ 1e-10 σ_r from a balanced start within 0.1 σ_r, Σ̂ = I and r = r*."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    S = size * torch.logspace(0, -math.log10(kappa), RANK, dtype=torch.float64)
    U, V = (torch.linalg.qr(draw(12, RANK)).Q for _ in range(2))
    noise = draw(12, 12)
    near = (U * S) @ V.mT + 0.1 * S[-1] * noise / noise.norm()
    left, values, right = torch.linalg.svd(near)
    root = values[:RANK].sqrt()
    start = lt.Factors(left[:, :RANK] * root, root[:, None] * right[:RANK])
    problem = lt.LinearProblem.population(shift=lt.Factors(U * S, V.mT))
    method = lt.methods.lora().trained_by("preconditioned", relative=relative)
    run = lt.simulate(
        problem,
        method,
        rank=RANK,
        learning_rate=ETA,
        damping=damping,
        steps=900,
        initial=start,
        record=("risk",),
    )
    error = (2 * run.records["risk"].flatten()).sqrt()
    reached = (error <= TARGET * S[-1]).nonzero()
    return int(reached[0]) if len(reached) else 900


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_steps_do_not_depend_on_conditioning_nor_on_size(size: float) -> None:
    needed = [steps_needed(kappa, size, 0.0, 1e-2) for kappa in KAPPAS]
    # (1 − η/(1 + c))ᵗ from 0.1 to 1e-10; the start's part along U and V is smaller than 0.1.
    predicted = math.log(1e-9) / math.log(1 - ETA / 1.01)
    assert all(0.9 * predicted <= t <= predicted + 2 for t in needed)


def test_a_constant_regulariser_competes_with_the_smallest_singular_value() -> None:
    """1 − ησ_r/(σ_r + λ): λ = 1e-2 is the one that PEFT ships."""
    needed = [steps_needed(kappa, 1.0, 1e-2, 0.0) for kappa in KAPPAS]
    for kappa, t in zip(KAPPAS, needed, strict=True):
        slow = math.log(1e-9) / math.log(1 - ETA / (1 + 1e-2 * kappa))
        assert 0.9 * slow <= t <= 1.02 * slow + 2
    assert needed[-1] > 10 * needed[0]


@pytest.mark.parametrize("rule", ["preconditioned", "scaled-adamw"])
def test_it_is_the_damping_of_each_factors_smallest_value(rule: str) -> None:
    g = torch.Generator().manual_seed(0)
    A, B = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((7, 3), (3, 5)))
    gradients = tuple(torch.randn(*P.shape, generator=g, dtype=torch.float64) for P in (A, B))
    more = {"order": "peft"} if rule == "scaled-adamw" else {}
    factory = RULES[rule]
    (new_A, new_B), _ = _step(factory(0.1, relative=0.5, **more), (A, B), gradients)
    least_A, least_B = (torch.linalg.eigvalsh(M)[0].item() for M in (A.mT @ A, B @ B.mT))
    (expected_A, _), _ = _step(factory(0.1, 0.5 * least_B, **more), (A, B), gradients)
    (_, expected_B), _ = _step(factory(0.1, 0.5 * least_A, **more), (A, B), gradients)
    # Eigenvalues, inverses and products of 3 x 3 Gram matrices of factors at most 7 long.
    worst = max(float(torch.linalg.cond(M)) for M in (A, B)) ** 2
    once = tolerance.rounding(7, operations=4, condition=worst)
    tolerance.close(new_A, expected_A, once)
    tolerance.close(new_B, expected_B, once)


def test_at_zero_factors_a_pseudo_inverse_is_taken() -> None:
    g = torch.Generator().manual_seed(0)
    A = torch.randn(7, 3, generator=g, dtype=torch.float64)
    B = torch.zeros(3, 5, dtype=torch.float64)
    gradients = (torch.ones_like(A), torch.ones_like(B))
    (new_A, new_B), _ = _step(RULES["preconditioned"](0.1, relative=1e-2), (A, B), gradients)
    assert torch.equal(new_A, A)
    assert bool(torch.isfinite(new_B).all())


def _step(rule, params, gradients):
    return rule.update(params, gradients, rule.init(params))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_regulariser_is_a_share_of_the_least_eigenvalue(size: float) -> None:
    """λ + cλ_min(M) by hand for diagonal M; λ alone once λ_min is within r·eps of the largest."""
    unit = tolerance.rounding(3)
    for least, counts in ((0.25, True), (100 * unit, True), (0.01 * unit, False)):
        M = size * torch.diag(torch.tensor([0.5, least, 1.0], dtype=torch.float64))
        found = float(relative_damping(M, 0.1 * size, 0.5))
        expected = 0.1 * size + (0.5 * least * size if counts else 0.0)
        # Eigenvalues of a diagonal matrix, a product and a sum: to rounding of the result.
        assert found == pytest.approx(expected, rel=unit)
    # The part that counts is seen by itself where the constant is zero.
    M = size * torch.diag(torch.tensor([0.5, 100 * unit, 1.0], dtype=torch.float64))
    assert float(relative_damping(M, 0.0, 0.5)) == pytest.approx(50 * unit * size, rel=0.02)
    M[1, 1] = 0.01 * unit * size
    assert float(relative_damping(M, 0.0, 0.5)) == 0.0
