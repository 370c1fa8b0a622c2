"""The restricted isometry constant: against exact values, exhaustive search, and known figures."""

import math

import numpy as np
import pytest
import torch
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.problems.sensing import rip, search
from loraone_theory.problems.sensing.operators import (
    OPERATORS,
    Completion,
    Dense,
    MultiResponse,
    RankOne,
    Symmetric,
)

LIKE = torch.empty(0, dtype=torch.float64)


def explicit(operator) -> torch.Tensor:
    """K = 𝒜*𝒜/m on R^{dk}, column by column, (n, dk, dk)."""
    columns = []
    for p in range(operator.d):
        for q in range(operator.k):
            A, B = torch.zeros(operator.d, 1).double(), torch.zeros(1, operator.k).double()
            A[p], B[0, q] = 1.0, 1.0
            image = operator.adjoint(operator.forward(Factors(A, B)))
            columns.append(image.flatten(-2) / operator.measurements)
    return torch.stack(columns, dim=-1)


@pytest.mark.parametrize("name", [n for n in OPERATORS if n not in ("symmetric", "completion")])
def test_at_full_rank_it_is_a_spectrum(name: str) -> None:
    """Every matrix has rank at most d, so the suprema are the extreme eigenvalues of K."""
    operator = OPERATORS[name].sample(3, 4, 24, (0, 1), LIKE)
    values = torch.linalg.eigvalsh(explicit(operator))
    found = lt.rip.estimate(operator, rank=3, restarts=2)
    # One half-step is an eigenvalue problem of the whole of K; 12 numbers of size one.
    wrong = rounding(24 + 12, operations=4, condition=float(values.max()))
    torch.testing.assert_close(found.upper, values[:, -1] - 1, rtol=0, atol=wrong)
    torch.testing.assert_close(found.lower, 1 - values[:, 0], rtol=0, atol=wrong)


def test_symmetric_matrices_at_full_rank() -> None:
    """On symmetric matrices: K in an orthonormal basis of those."""
    operator = Symmetric.sample(3, 3, 20, (0, 1), LIKE)
    rows, columns = torch.triu_indices(3, 3)
    basis = torch.zeros(6, 3, 3).double()
    size = torch.where(rows == columns, 1.0, 0.5**0.5).double()
    basis[torch.arange(6), rows, columns] = size
    basis[torch.arange(6), columns, rows] = size
    basis = basis.flatten(-2)
    values = torch.linalg.eigvalsh(basis @ explicit(operator) @ basis.mT)
    stop, gap = 1e-9, 1e-2
    found = lt.rip.estimate(operator, rank=3, tolerance=stop)
    # The linearised search stops at relative changes of `stop` in a sweep, of which 1/gap and more
    # may be to come where the next eigenvalue is within `gap`, on either side.
    torch.testing.assert_close(found.upper, values[:, -1] - 1, rtol=0, atol=10 * stop / gap)
    torch.testing.assert_close(found.lower, 1 - values[:, 0], rtol=0, atol=10 * stop / gap)
    for M in (found.least, found.greatest):
        assert torch.equal(M.dense().round(decimals=12), M.dense().mT.round(decimals=12))


@pytest.mark.parametrize("name", ["dense", "rank-one", "single-response"])
def test_rank_one_against_every_pair_of_directions(name: str) -> None:
    """On 2×2 matrices u(θ)v(φ)ᵀ a grid of step h misses the optimum by at most 4h²‖K‖."""
    operator = OPERATORS[name].sample(2, 2, 12, (3,), LIKE)
    K, count = explicit(operator)[0], 200
    angles = torch.arange(count).double() * math.pi / count
    u = torch.stack([angles.cos(), angles.sin()], dim=-1)
    M = (u[:, None, :, None] * u[None, :, None, :]).reshape(-1, 4)
    values = ((M @ K) * M).sum(-1)
    found = lt.rip.estimate(operator, rank=1)
    slack = 4 * (math.pi / count) ** 2 * float(K.norm())
    assert 0 <= float(found.upper) + 1 - float(values.max()) <= slack
    assert 0 <= float(values.min()) - (1 - float(found.lower)) <= slack


@pytest.mark.parametrize("rank", [1, 2])
def test_bounds_are_attained_by_the_matrices_returned(rank: int) -> None:
    operator = RankOne.sample(6, 5, 90, (0, 1), LIKE)
    found = lt.rip.estimate(operator, rank=rank, restarts=2)
    a = operator.X[..., :, :, None] * operator.Z[..., :, None, :]
    for M, value in ((found.greatest, found.upper + 1), (found.least, 1 - found.lower)):
        dense = M.A @ M.B
        assert M.rank == rank
        once = rounding(90 + 30, operations=2)  # 90 forms of 30 entries
        torch.testing.assert_close(
            dense.norm(dim=(-2, -1)), torch.ones(2).double(), rtol=once, atol=0
        )
        image = torch.einsum("nmdk,ndk->nm", a, dense)
        attained = image.square().sum(-1) / 90
        # Relative to the largest value of the form.
        top = once * float(found.upper.max() + 1)
        torch.testing.assert_close(attained, value, rtol=once, atol=top)
    # M ∝ x_i z_iᵀ is one of the candidates in the supremum.
    sizes = operator.X.square().sum(-1) * operator.Z.square().sum(-1)
    assert (found.upper >= 0.9 * (sizes.amax(-1) / 90 - 1)).all()


def test_multi_response_has_one_constant_for_all_ranks() -> None:
    """δ_r = ‖Σ̂ − I‖_op for every r >= 1."""
    operator = MultiResponse.sample(8, 8, 8 * 40, (0, 1), LIKE)
    problem = lt.sample_linear(d=8, k=8, true_rank=1, samples=40, seeds=(0, 1))
    for rank in (1, 2):
        stop = 1e-6
        found = lt.rip.estimate(operator, rank=rank, tolerance=stop).delta
        # The search stops at this relative change in a sweep, with as many as ten like it to come.
        expected = problem.covariance_deviation()
        torch.testing.assert_close(found, expected, rtol=10 * stop, atol=0)


@pytest.mark.parametrize("name", ["dense", "single-response"])
def test_by_products_as_by_the_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single responses split into outputs, which exhausts Krylov spaces early."""
    operator = OPERATORS[name].sample(7, 6, 60, (0, 1), LIKE)
    options = {"rank": 2, "restarts": 1, "sweeps": 1}
    formed = lt.rip.estimate(operator, **options)
    monkeypatch.setattr(search, "FORMED", 0)
    products = lt.rip.estimate(operator, **options)
    # One sweep from the same start: later ones may end in different local optima by rounding. In
    # Krylov spaces of all d·r = 14 dimensions lies every eigenvector, so a half-sweep's value is
    # exact to rounding and its vector to rounding over the form's gap.
    gap = 1e-9
    for one, two in ((formed.upper, products.upper), (formed.lower, products.lower)):
        torch.testing.assert_close(one, two, rtol=rounding(14, condition=1 / gap), atol=0)
    # Whatever the search found, its value is attained by the matrix that comes with it.
    for value, matrix in (
        (1 + products.upper, products.greatest),
        (1 - products.lower, products.least),
    ):
        attained = operator.forward(matrix).square().sum(-1) / operator.measurements
        norm = torch.linalg.matrix_norm(matrix.dense()) ** 2
        once = rounding(200, operations=4, condition=float(products.upper.max() + 1))
        torch.testing.assert_close(attained / norm, value, rtol=once, atol=once)


@pytest.mark.parametrize(("c", "upper", "lower"), [(5, 1.25, 0.75), (10, 0.87, 0.60)])
def test_known_figures_of_the_dense_ensemble(c: int, upper: float, lower: float) -> None:
    """d = k = 16, r = 1: below Gordon's bounds, and where other code found them."""
    operator = Dense.sample(16, 16, 32 * c, (0, 1), LIKE)
    found = lt.rip.estimate(operator, rank=1)
    top, bottom = found.gordon
    # 8 % is three times the spread over instances of those figures, themselves means of three.
    assert float(found.upper.mean()) == pytest.approx(upper, rel=0.08)
    assert float(found.lower.mean()) == pytest.approx(lower, rel=0.08)
    # Gordon's bounds hold in the mean; suprema of Gaussians deviate by 2(1 + w/√m)/√m at most.
    slack = 3 * 2 * (1 + top) ** 0.5 / (32 * c) ** 0.5
    assert float(found.upper.max()) < top + slack
    assert float(found.lower.max()) < bottom + slack


def test_gordon_width() -> None:
    """w(16, 16, 1) = 7.38 and w(16, 16, 2) = 9.87, from (1 + w/√m)² at m = 1."""
    for rank, width in ((1, 7.38), (2, 9.87)):
        top, bottom = rip.gordon_bounds(16, 16, rank, 1)
        assert (1 + top) ** 0.5 - 1 == pytest.approx(width, abs=0.1)
        assert bottom == 1


def test_completion_is_reported_as_what_it_is() -> None:
    """A missing entry: lower side 1. The most frequent one: dk/m·count − 1 above."""
    without = Completion.sample(16, 16, 200, (0,), LIKE, replace=False)
    found = lt.rip.estimate(without, rank=3)
    assert found.exact
    assert float(found.lower) == 1
    assert float(found.upper) == pytest.approx(
        256 / 200 - 1, rel=rounding(1, operations=4, condition=1.28 / 0.28)
    )
    often = Completion.sample(16, 16, 512, (0, 1), LIKE)
    found = lt.rip.estimate(often, rank=1)
    flat = often.rows * 16 + often.columns
    counts = [row.bincount(minlength=256) for row in flat]
    most, fewest = ([float(f(c)) / 2 - 1 for c in counts] for f in (torch.max, torch.min))
    assert found.upper.tolist() == pytest.approx(most, rel=rounding(4))
    assert found.lower.tolist() == pytest.approx([-x for x in fewest], rel=rounding(4))
    image = often.forward(found.greatest).square().sum(-1) / 512
    # A sum of 512 squares, of which those of one entry are not 0.
    torch.testing.assert_close(image, found.upper + 1, rtol=rounding(512), atol=0)


def test_incoherence() -> None:
    flat = Factors(torch.ones(6, 1), torch.ones(1, 4))
    spike = Factors(torch.eye(6)[:, :1], torch.ones(1, 4))
    # A QR or SVD of 6 rows and a sum of squares, in float32.
    single = rounding(6, operations=2, dtype=torch.float32)
    assert float(lt.rip.incoherence(flat)) == pytest.approx(1, rel=single)
    assert float(lt.rip.incoherence(spike)) == pytest.approx(6, rel=single)
    assert float(lt.rip.incoherence(spike.dense(), rank=1)) == pytest.approx(6, rel=single)
    with pytest.raises(ValueError, match="needs its rank"):
        lt.rip.incoherence(spike.dense())


@pytest.mark.parametrize("extreme", [False, True])
def test_designed_operators_have_their_constant(extreme: bool) -> None:
    operator = lt.rip.designed(4, 3, 0.2, extreme=extreme, seeds=(0, 1))
    gap = explicit(operator) - torch.eye(12).double()
    once = rounding(12, operations=4)  # products and an eigenvalue problem of 12 at size 1.2
    torch.testing.assert_close(gap, gap.mT, rtol=0, atol=once)
    values = torch.linalg.eigvalsh(gap)
    expected = torch.linspace(-0.2, 0.2, 12, dtype=torch.float64)
    if extreme:
        expected = 0.2 * expected.sign()
    torch.testing.assert_close(values, expected.expand(2, 12), rtol=0, atol=once)
    for rank in (1, 2):
        assert (lt.rip.estimate(operator, rank=rank).delta <= 0.2 + once).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: lt.rip.estimate(o, 0), "rank must be >= 1"),
        (lambda o: lt.rip.estimate(o, 4), "rank must satisfy"),
        (lambda o: lt.rip.estimate(o, 1, 0), "restarts must be >= 1"),
        (lambda o: lt.rip.designed(3, 3, 1.0), "delta must satisfy 0 <= delta < 1"),
        (lambda o: lt.rip.designed(3, 3, -0.1), "delta must be finite and >= 0"),
    ],
)
def test_bad_arguments(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(Dense.sample(3, 3, 10, (0,), LIKE))


class Weighed:
    """Symmetric 2×2 matrices, every entry measured by itself: K multiplies entries by `weights`."""

    measurements = 1
    like = LIKE

    def __init__(self, weights: list[list[float]]) -> None:
        self.root = torch.tensor(weights).double().sqrt()

    def forward(self, F: lt.Factors) -> torch.Tensor:
        return (self.root * F.dense()).flatten(-2)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.root * y.unflatten(-1, (2, 2))


@pytest.mark.parametrize(
    "weights", [[[1.0, 0.5], [0.5, 0.25]], [[1.0, 0.995], [0.995, 0.985]]], ids=["apart", "close"]
)
def test_the_symmetric_search_ends_at_single_entries(weights: list[list[float]]) -> None:
    """At full rank the extremes of ⟨M, KM⟩/‖M‖² are the largest weight and the smallest.

    The step towards the smallest is one of c − K: with c below ‖K‖ it would lead to the largest
    where all weights are near it.
    """
    operator, stop = Weighed(weights), 1e-9
    for largest, expected in ((True, weights[0][0]), (False, weights[1][1])):
        rng = np.random.default_rng(0)
        found = search.alternate_symmetric(operator, rng, (3, 2, 2, 2), largest, 200, stop)
        image = operator.adjoint(operator.forward(found))
        value = (found.dense() * image).sum((-2, -1)) / found.dense().square().sum((-2, -1))
        # It stops at changes of `stop`/20; later ones shrink by 0.995² at least, twice for slack.
        allowed = 2 * (stop / 20) / (1 - 0.995**2)
        torch.testing.assert_close(value, torch.full((3,), expected).double(), rtol=allowed, atol=0)


def test_an_exhausted_krylov_space_gets_no_further_directions() -> None:
    """A form with eigenvalues 1 and 2, six entries each: the space has two dimensions."""
    weights = torch.tensor([1.0, 2.0]).double().repeat(6).reshape(3, 4)
    start = torch.from_numpy(np.random.default_rng(0).standard_normal((500, 3, 4)))
    # A product of twelve entries, orthogonalised twice against two directions.
    allowed = rounding(12, operations=8, condition=2)
    for largest, expected in ((True, 2.0), (False, 1.0)):
        best, value = search._lanczos(lambda M: weights * M, start, largest)
        wanted = torch.full((500,), expected).double()
        torch.testing.assert_close(value, wanted, rtol=allowed, atol=0)
        attained = (best * weights * best).sum((-2, -1))
        torch.testing.assert_close(attained, value, rtol=allowed, atol=0)


@pytest.mark.parametrize("form", ["formed", "products"])
@pytest.mark.parametrize("ensemble", ["dense", "symmetric", "rank-one"])
def test_what_is_found_does_not_depend_on_the_batch(monkeypatch, ensemble, form):
    """The starts are those of every instance, and each search ends by itself."""
    if form == "products":
        monkeypatch.setattr(search, "FORMED", 0)
    options = {"ensemble": ensemble, "d": 6, "k": 6, "true_rank": 1, "measurements": 90}
    together = lt.sample_sensing(**options, seeds=(3, 4, 5)).operator
    found = lt.rip.estimate(together, 2, 2, tolerance=1e-3)
    for i, seed in enumerate((3, 4, 5)):
        alone = lt.rip.estimate(
            lt.sample_sensing(**options, seeds=(seed,)).operator, 2, 2, tolerance=1e-3
        )
        for a, b in ((found.upper[i], alone.upper[0]), (found.lower[i], alone.lower[0])):
            # Sums of 90 squares in another order, through eigenvectors at gaps of a hundredth.
            allowed = rounding(90, operations=100, condition=100)
            assert float(a) == pytest.approx(float(b), rel=allowed)
