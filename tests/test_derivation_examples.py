"""Examples and counterexamples that docs/derivations.md states, worked out longhand."""

import numpy as np
import pytest
import torch
from tolerance import printed, rounding

import loraone_theory as lt


def test_the_frobenius_norm_need_not_approach_its_rate_from_below() -> None:
    """3.7: Σ̂ = [[2, 1.2], [1.2, 1]], U = e₁, preconditioned, η = 0.105."""
    Sigma, eta = np.array([[2.0, 1.2], [1.2, 1.0]]), 0.105
    operator = (np.eye(2) + np.diag([1.0, 0.0])) @ Sigma
    values, vectors = np.linalg.eig(operator)
    order = np.argsort(values)
    values, vectors = values[order], vectors[:, order]
    np.testing.assert_allclose(values, [0.235, 4.765], rtol=0, atol=printed(3))
    rate = abs(1 - eta * values).max()
    assert rate == pytest.approx(0.9753, abs=printed(4))
    shift = lt.Factors(torch.eye(2, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    X = np.sqrt(2) * np.linalg.cholesky(Sigma).T  # XᵀX/N = Σ̂ with N = 2
    problem = lt.LinearProblem.from_data(X, shift=shift)
    predicted = lt.predict.local_rate(problem, "preconditioned", learning_rate=eta)
    assert float(predicted) == pytest.approx(rate, rel=rounding(2, operations=10))
    slow, fast = vectors.T
    E = slow - 0.15 * np.sign(slow @ fast) * fast
    norms, losses = [], []
    for _ in range(9):
        norms.append(np.linalg.norm(E))
        losses.append(E @ Sigma @ E)
        E = E - eta * operator @ E
    ratios, falls = np.divide(norms[1:], norms[:-1]), np.divide(losses[1:], losses[:-1])
    assert ratios[0] == pytest.approx(0.986, abs=printed(3))
    assert (np.diff(ratios) < 0).all()
    assert (ratios > rate).all()
    # What is left of the fast mode after eight steps, in its ratio to the slow one.
    left = (abs(1 - eta * values[1]) / rate) ** 8
    assert ratios[-1] == pytest.approx(rate, abs=0.15 * left)
    assert (np.diff(falls) > 0).all()
    assert (falls < rate**2).all()


@pytest.mark.parametrize("rank", [3, 4])
def test_offsets_cost_nothing_in_population(rank: int) -> None:
    """3.5: at Σ̂ = I and r >= r* the floors of LoRA-GA and LoRA-SB are 0, and not at N = 16 d."""
    drawn = lt.sample_linear(d=16, k=12, true_rank=3, samples=256, spectrum=(1.0, 0.7, 0.4))
    population = lt.LinearProblem.population(shift=drawn.shift)
    size = float(0.5 * (drawn.shift.dense() ** 2).sum())
    for name in ("lora-ga", "lora-sb"):
        # Rounding of T squared, relative to the loss at zero.
        least = rounding(16, operations=2) ** 2 * size
        assert float(lt.predict.floor(population, name, rank=rank)) <= least
        assert float(lt.predict.floor(drawn, name, rank=rank)) > 1e-3 * size
