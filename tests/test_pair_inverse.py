"""The pseudo-inverse of the local dynamics of a pair, against a Hessian by autograd."""

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.predict import modes
from loraone_theory.predict.noiseless import noiseless
from loraone_theory.predict.pair_inverse import pair_inverse
from loraone_theory.predict.tangent_map import tangent_map

D, K = 7, 6
RULES = ("gd", "preconditioned")


def instance(noise_std: float = 0.2, seeds=(0, 1)) -> lt.LinearProblem:
    return lt.sample_linear(
        d=D, k=K, true_rank=2, spectrum=(1.0, 0.6), samples=60, noise_std=noise_std, seeds=seeds
    )


def parts(problem: lt.LinearProblem, rank: int):
    """Σ̂, the target, the least pair of this rank and the gradient in AB there, of each instance."""
    other = noiseless(problem)
    at = lt.predict.pair_solution(problem, rank=rank)
    Sigma = problem.covariance.apply(torch.eye(D).double().expand(*problem.batch_shape, D, D))
    return Sigma, at, Sigma @ (at.dense() - other.target.dense())


def root(S: torch.Tensor) -> torch.Tensor:
    values, V = torch.linalg.eigh(S)
    return V @ torch.diag(values.rsqrt()) @ V.mT


def hessian(Sigma, at: Factors, M, rule: str) -> np.ndarray:
    """Of ½‖Σ̂^{1/2}(AB − T)‖² in (A, B), between the roots of the rule's weights."""
    (d, r), k = at.A.shape, at.B.shape[-1]
    target = at.dense() - torch.linalg.solve(Sigma, M)

    def loss(x):
        E = x[: d * r].reshape(d, r) @ x[d * r :].reshape(r, k) - target
        return (E * (Sigma @ E)).sum() / 2

    flat = torch.cat([at.A.flatten(), at.B.flatten()])
    found = torch.autograd.functional.hessian(loss, flat)
    if rule == "preconditioned":
        on_A = torch.kron(torch.eye(d).double(), root(at.B @ at.B.mT))
        on_B = torch.kron(root(at.A.mT @ at.A), torch.eye(k).double())
        weights = torch.block_diag(on_A, on_B)
        found = weights @ found @ weights
    return found.numpy()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_it_is_the_pseudo_inverse(rule: str, rank: int) -> None:
    """With a residual below, at and beyond r*, instances in one batch."""
    Sigma, at, M = parts(instance(), rank)
    solve = pair_inverse(Sigma, tangent_map(at, rule), M)
    assert solve is not None
    size = rank * (D + K)
    x = torch.eye(size).double()[:, None].expand(size, 2, size)
    split = x.split([rank * D, rank * K], dim=-1)
    found = solve(Factors(split[0].unflatten(-1, (D, rank)), split[1].unflatten(-1, (rank, K))))
    matrix = torch.cat([part.flatten(-2) for part in found], dim=-1).numpy()
    for i in range(2):
        full = hessian(Sigma[i], Factors(at.A[i], at.B[i]), M[i], rule)
        values = np.linalg.eigvalsh(full)
        moving = values[rank**2 :]  # the gauge is at rest
        condition = moving[-1] / moving[0]
        expected = np.linalg.pinv(full, rcond=moving[0] / moving[-1] / 2, hermitian=True)
        # The stationary pair, and so the Hessian, is known to rounding times its own condition.
        wrong = rounding(size, operations=10, condition=condition**2) * np.abs(expected).max()
        np.testing.assert_allclose(matrix[:, i], expected, rtol=0, atol=wrong)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_extremes_by_it_are_those_by_lapack(rule, rank, monkeypatch) -> None:
    problem = instance()
    at = lt.predict.pair_solution(problem, rank=rank)
    dense = lt.predict.rates(problem, at, rule=rule).extremes
    monkeypatch.setattr(modes, "INVERSE_SIZE", 1)
    monkeypatch.setattr(modes, "_dense", None)  # is not called
    found = lt.predict.rates(problem, at, rule=rule).extremes
    # Both ends are known to where the iteration stops, the smallest by its inverse.
    torch.testing.assert_close(found, dense, rtol=10 * modes.LANCZOS, atol=0)


def test_there_is_none_where_more_than_the_gauge_is_at_rest() -> None:
    Sigma, at, M = parts(instance(), 2)
    short = Sigma.clone()
    short[1, 0], short[1, :, 0] = 0, 0
    tangent = tangent_map(at)
    assert pair_inverse(short, tangent, 0 * M) is None  # an input that is never seen
    assert pair_inverse(Sigma, tangent_map(Factors(0 * at.A, at.B)), M) is None
    assert pair_inverse(Sigma, tangent_map(at, "lora-pro"), M) is None  # B spares its row space
    assert pair_inverse(Sigma, tangent, 100 * M) is None  # a saddle: bends more than it curves


def test_a_saddle_goes_by_lapack_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second and third directions of the target in place of the first: none is least."""
    shift = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    problem = lt.LinearProblem.population(shift=shift)
    at = Factors(shift[:, 1:3], torch.eye(5, dtype=torch.float64)[1:3])
    dense = lt.predict.rates(problem, at).extremes
    assert float(dense[..., 0]) < 0
    monkeypatch.setattr(modes, "INVERSE_SIZE", 1)
    found = lt.predict.rates(problem, at).extremes
    torch.testing.assert_close(found, dense, rtol=0, atol=0)


def update(x: np.ndarray, sizes: tuple[int, int, int], S, T, rule: str, s: float, damping: float):
    """The step over η of (A, B), flattened; of complex x too."""
    d, r, k = sizes
    A, B = x[: d * r].reshape(d, r), x[d * r :].reshape(r, k)
    M = s * S @ (s * A @ B - T)
    on_A, on_B = M @ B.T, A.T @ M
    if rule == "preconditioned":
        on_A = on_A @ np.linalg.inv(B @ B.T + damping * np.eye(r))
        on_B = np.linalg.inv(A.T @ A + damping * np.eye(r)) @ on_B
    return np.concatenate([on_A.ravel(), on_B.ravel()])


# d, k, r, r*, N: r beyond r*, r = k < d, N = d and d + 1, one output; and κ, σ, s, λ.
ODD = [
    ((7, 6, 3, 2, 60), (1.0, 0.2, 2.5, 0.0)),
    ((9, 3, 3, 1, 30), (1.0, 30.0, 0.4, 0.3)),
    ((6, 6, 2, 2, 6), (1e3, 1e-6, 1.0, 0.0)),
    ((6, 6, 1, 2, 7), (10.0, 0.2, 1.0, 0.1)),
    ((5, 1, 1, 1, 30), (1.0, 1e-3, 2.5, 0.0)),
    ((3, 9, 2, 2, 8), (1.0, 0.2, 0.4, 0.0)),
]


@pytest.mark.parametrize(("sizes", "values"), ODD, ids=[str(i) for i in range(len(ODD))])
@pytest.mark.parametrize("rule", RULES)
def test_odd_shapes_against_complex_steps_of_the_rule(rule, sizes, values, monkeypatch) -> None:
    """1 − ημ are eigenvalues of the Jacobian of one step, which complex steps give exactly."""
    (d, k, r, true, N), (kappa, sigma, s, damping) = sizes, values
    problem = lt.sample_linear(
        d=d, k=k, true_rank=true, samples=N, noise_std=sigma, condition_number=kappa, seeds=(3,)
    )
    at = Factors(*(part / s**0.5 for part in lt.predict.pair_solution(problem, rank=r)))
    Sigma = problem.covariance.apply(torch.eye(d).double()[None])[0].numpy()
    T = noiseless(problem).shift.dense()[0].numpy()
    x = np.concatenate([part[0].numpy().ravel() for part in at]).astype(complex)
    step = 1e-30
    columns = [
        update(x + 1j * step * e, (d, r, k), Sigma, T, rule, s, damping).imag / step
        for e in np.eye(len(x))
    ]
    mu = np.linalg.eigvals(np.stack(columns, 1)).real
    moving = np.sort(mu[np.argsort(np.abs(mu))[r * r :]])  # the gauge is at rest
    monkeypatch.setattr(modes, "INVERSE_SIZE", 1)
    found = lt.predict.rates(problem, at, rule=rule, scale=s, damping=damping).extremes[0]
    # Σ̂, its root and the pair's own accuracy: rounding times condition numbers of both.
    spread = np.linalg.cond(Sigma) ** 0.5 * moving[-1] / moving[0]
    wrong = rounding(len(x), operations=10, condition=spread) + 10 * modes.LANCZOS
    assert found.tolist() == pytest.approx([moving[0], moving[-1]], rel=wrong)


def test_a_pair_that_is_stationary_only_nearly_goes_by_lapack(monkeypatch) -> None:
    """The closed form is no inverse there: off by the gradient, far more than iteration leaves."""
    problem = instance(seeds=(0,))
    source = torch.Generator().manual_seed(0)
    at = Factors(
        *(
            part + 1e-4 * torch.randn(part.shape, generator=source, dtype=part.dtype)
            for part in lt.predict.pair_solution(problem, rank=3)
        )
    )
    dense = lt.predict.rates(problem, at).extremes
    monkeypatch.setattr(modes, "INVERSE_SIZE", 1)
    torch.testing.assert_close(lt.predict.rates(problem, at).extremes, dense, rtol=0, atol=0)


def test_a_mode_that_float32_cannot_tell_from_rest_is_said_to_be_so() -> None:
    """T of singular values 1 and 1 − δ at rank one: μ_min = δ of GD, below 10·size·eps."""
    gap = 2.0**-17
    shift = torch.diag(torch.tensor([1.0, 1.0 - gap], dtype=torch.float64))
    for dtype, known in ((torch.float64, True), (torch.float32, False)):
        problem = lt.LinearProblem.population(shift=shift.to(dtype))
        at = Factors(torch.eye(2, 1, dtype=dtype), torch.eye(1, 2, dtype=dtype))
        near = lt.predict.rates(problem, at)
        if known:
            assert float(near.extremes[0]) == pytest.approx(gap, rel=rounding(4, condition=1 / gap))
            assert near.notes == ()
        else:
            assert float(near.extremes[0]) == 0
            assert "in float32 and given as 0" in near.notes[0]


def test_in_float32_it_knows_slow_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 10·size·eps of the largest, which a matrix in float32 is trusted to."""
    small, ends = 2e-5, []
    for dtype in (torch.float64, torch.float32):
        shift = torch.diag(torch.tensor([1.0, small, 0, 0, 0, 0])).to(dtype)
        problem = lt.LinearProblem.population(
            shift=shift, covariance=torch.linspace(1, 2, 6).to(dtype)
        )
        at = lt.predict.pair_solution(problem, rank=2)
        if dtype == torch.float32:
            monkeypatch.setattr(modes, "INVERSE_SIZE", 1)
            monkeypatch.setattr(modes, "_dense", None)  # is not called
        near = lt.predict.rates(problem, at)
        assert near.notes == ()
        ends.append(near.extremes.double())
    wrong = rounding(16, operations=4, condition=2 / small, dtype=torch.float32)
    torch.testing.assert_close(ends[1], ends[0], rtol=wrong, atol=0)
    assert float(ends[0][0]) < 10 * 16 * np.finfo(np.float32).eps * float(ends[0][1])
