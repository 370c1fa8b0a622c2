"""Examples and counterexamples that docs/derivations.md states, worked out longhand."""

import numpy as np
import pytest
import torch

import loraone_theory as lt


def test_the_frobenius_norm_need_not_approach_its_rate_from_below() -> None:
    """3.7: Σ̂ = [[2, 1.2], [1.2, 1]], U = e₁, preconditioned, η = 0.105."""
    Sigma, eta = np.array([[2.0, 1.2], [1.2, 1.0]]), 0.105
    operator = (np.eye(2) + np.diag([1.0, 0.0])) @ Sigma
    values, vectors = np.linalg.eig(operator)
    order = np.argsort(values)
    values, vectors = values[order], vectors[:, order]
    np.testing.assert_allclose(values, [0.235, 4.765], atol=5e-4)
    rate = abs(1 - eta * values).max()
    assert rate == pytest.approx(0.9753, abs=1e-4)
    shift = lt.Factors(torch.eye(2, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    X = np.sqrt(2) * np.linalg.cholesky(Sigma).T  # XᵀX/N = Σ̂ with N = 2
    problem = lt.LinearProblem.from_data(X, shift=shift)
    predicted = lt.predict.local_rate(problem, "preconditioned", learning_rate=eta)
    assert float(predicted) == pytest.approx(rate, rel=1e-12)
    slow, fast = vectors.T
    E = slow - 0.15 * np.sign(slow @ fast) * fast
    norms, losses = [], []
    for _ in range(9):
        norms.append(np.linalg.norm(E))
        losses.append(E @ Sigma @ E)
        E = E - eta * operator @ E
    ratios, falls = np.divide(norms[1:], norms[:-1]), np.divide(losses[1:], losses[:-1])
    assert ratios[0] == pytest.approx(0.986, abs=1e-3)
    assert (np.diff(ratios) < 0).all()
    assert (ratios > rate).all()
    assert ratios[-1] == pytest.approx(rate, abs=1e-3)
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
        assert float(lt.predict.floor(population, name, rank=rank)) <= 1e-28 * size
        assert float(lt.predict.floor(drawn, name, rank=rank)) > 1e-3 * size
