"""Closed forms of the ReLU model against 80 digits, against sampling, and inside their bounds."""

import math

import mpmath
import numpy as np
import pytest
import torch
from tolerance import rounding

from loraone_theory.problems.relu import closed_forms as relu_math

DTYPES = [torch.float64, torch.float32]
# The least ‖E‖/‖w'‖ of the columns drawn at random.
SMALLEST = 1e-5


def exact(E, w):
    """J and E(y − ŷ)² of one column from the two Gaussian moments, in 80 digits."""
    with mpmath.workdps(80):
        E, w = mpmath.matrix(E.tolist()), mpmath.matrix(w.tolist())
        target = E + w
        size, other = mpmath.norm(w), mpmath.norm(target)
        if size == 0:
            return [mpmath.mpf(0)] * len(E), other**2 / 2
        if other == 0:
            return [-x / 2 for x in w], size**2 / 2
        cosine = mpmath.fdot(target, w) / size / other
        theta = mpmath.acos(min(max(cosine, mpmath.mpf(-1)), mpmath.mpf(1)))
        straight, bent = mpmath.pi - theta, other * mpmath.sin(theta) / size
        J = [
            (straight * t + bent * x) / (2 * mpmath.pi) - x / 2
            for t, x in zip(target, w, strict=True)
        ]
        moment = size * other / (2 * mpmath.pi) * (mpmath.sin(theta) + straight * cosine)
        return J, size**2 / 2 + other**2 / 2 - 2 * moment


def cases(dtype, d=5):
    """(name, E, w'), every direction of E at every size, and the degenerate columns."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(d)
    w /= np.linalg.norm(w)
    across = rng.standard_normal(d)
    across -= w * (across @ w)
    across /= np.linalg.norm(across)
    directions = {"parallel": w, "opposite": -w, "orthogonal": across, "generic": w - 2 * across}
    directions |= {"nearly opposite": -w + 1e-3 * across, "nearly parallel": w + 1e-5 * across}
    for name, direction in directions.items():
        for exponent in range(9):
            yield f"{name} 1e-{exponent}", 10.0**-exponent * direction, w
    yield "antiparallel", -2.5 * w, w
    yield "nearly antiparallel", -2.5 * w + 1e-6 * across, w
    yield "far antiparallel", -50 * w, w
    yield "large", 40 * across + 3 * w, w
    yield "scaled down", 1e-12 * across, 1e-10 * w
    yield "zero weight", across, 0 * w
    yield "zero target", -w, w
    yield "zero error", 0 * w, w
    yield "all zero", 0 * w, 0 * w


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_and_risk_to_80_digits(dtype):
    for name, E, w in cases(dtype):
        E, w = (torch.from_numpy(v).to(dtype)[:, None] for v in (E, w))
        J, risk = relu_math.negative_gradient(E, w)[:, 0], relu_math.squared_error(E, w)
        expected, expected_risk = exact(E[:, 0].double(), w[:, 0].double())
        with mpmath.workdps(80):
            miss = mpmath.norm([mpmath.mpf(float(a)) - b for a, b in zip(J, expected, strict=True)])

            miss_risk = abs(mpmath.mpf(float(risk)) - expected_risk)
        # What θ errs by moves J along w̃ only, so everything is relative to ‖E‖: ‖w'‖, E·w' and
        # E_⊥ are sums over d, together 2d + 6 roundings, weighted by less than 4; the risk, at
        # least ¼‖E‖², has the same through g, whose relative slope is 3/θ, and two squares more.
        d = len(E)
        assert miss <= rounding(d, operations=4, dtype=dtype) * float(E.norm()), (name, float(miss))
        assert miss_risk <= rounding(d, operations=9, dtype=dtype) * expected_risk, name
        assert torch.isfinite(J).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_g_keeps_its_relative_accuracy(dtype):
    angles = torch.cat([10 ** torch.linspace(-8, 0, 60), torch.linspace(0.9, math.pi, 60)])
    for angle in angles.to(dtype).clamp(max=math.pi):
        with mpmath.workdps(80):
            theta = mpmath.mpf(float(angle))
            expected = mpmath.sin(theta) - theta * mpmath.cos(theta)
            miss = abs(mpmath.mpf(float(relu_math.g(angle))) / expected - 1)
        # Cancellation above θ = 1 costs at most (sin + θ cos)/g < 5 units.
        assert miss <= 10 * torch.finfo(dtype).eps, float(angle)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_exactly_zero_at_the_target(dtype):
    weight = torch.randn(3, 6, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    weight[0, :, 1] = 0
    E = torch.zeros_like(weight)
    assert (relu_math.negative_gradient(E, weight) == 0).all()
    assert (relu_math.squared_error(E, weight) == 0).all()


def test_small_errors_survive_where_an_arc_cosine_is_blind():
    # Beside a unit weight, cos θ rounds to 1 here, and so does everything made from it.
    w = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    E = torch.tensor([[0.0], [1e-9]], dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(w + E, w, dim=0)
    assert cosine == 1
    weights = relu_math.gradient_weights(relu_math.columns(E, w))
    # Four roundings of a number just below ½.
    assert 0.5 - float(weights[0]) == pytest.approx(1e-9 / (2 * math.pi), abs=rounding(1))


def test_against_sampling():
    """4·10⁶ Gaussian inputs; all |z| ≤ 4.5 over 19 comparisons (one fails once in 7000)."""
    d, k, blocks, block = 4, 4, 16, 250_000
    rng = np.random.default_rng(1)
    W = torch.from_numpy(rng.standard_normal((d, k)))
    E = torch.from_numpy(rng.standard_normal((d, k))) * torch.tensor([1.0, 0.3, 0.1, 2.0])
    total, squares = torch.zeros(d * k + 1).double(), torch.zeros(d * k + 1).double()
    for _ in range(blocks):
        X = torch.from_numpy(rng.standard_normal((block, d)))
        now = X @ W
        miss = (X @ (W + E)).relu_() - now.relu()
        error = (miss * miss).sum(1, keepdim=True)
        M = miss * (now > 0)
        J = (X[:, :, None] * M[:, None, :]).flatten(1)
        values = torch.cat([J, error], dim=1)
        total += values.sum(0)
        squares += (values * values).sum(0)
    n = blocks * block
    mean = total / n
    deviation = ((squares / n - mean**2) / n).sqrt()
    expected = torch.cat(
        [
            relu_math.negative_gradient(E, W).flatten(),
            relu_math.squared_error(E, W)[None],
        ]
    )
    assert (((mean - expected) / deviation).abs() <= 4.5).all()


def random_columns(count=100_000, d=4):
    """Relative sizes ‖E‖/‖w'‖ from SMALLEST to 1e3."""
    rng = np.random.default_rng(2)
    W, E = rng.standard_normal((2, d, count))
    sizes = 10.0 ** rng.uniform(math.log10(SMALLEST), 3, count)
    E *= sizes * np.linalg.norm(W, axis=0) / np.linalg.norm(E, axis=0)
    # A quarter of them orthogonal and a quarter opposite to w', where the bounds are sharp.
    quarter = count // 4
    unit = W / np.linalg.norm(W, axis=0)
    E[:, :quarter] -= (unit * (unit * E).sum(0))[:, :quarter]
    E[:, quarter : 2 * quarter] = (-unit * np.linalg.norm(E, axis=0))[:, quarter : 2 * quarter]
    return torch.from_numpy(E), torch.from_numpy(W)


def test_lemma_a_bounds_the_residual_of_the_gradient():
    E, W = random_columns()
    J = relu_math.negative_gradient(E, W)
    left = torch.linalg.vector_norm(2 * J - E, dim=0)
    right = (E * E).sum(0) / (math.pi * torch.linalg.vector_norm(W, dim=0))
    # 2J errs by 2·4d units of ‖E‖ and the norms by 2d more; the bound is ‖E‖/π‖w'‖ of ‖E‖.
    slack = rounding(4, operations=10) * math.pi / SMALLEST
    assert (left <= right * (1 + slack)).all()
    # Attained to second order in the size where E ⊥ w', and many of those are below 1e-3.
    assert float((left / right).max()) > 1 - 1e-3**2


def test_lemma_b_bounds_the_risk_on_both_sides():
    E, W = random_columns()
    risk = relu_math.squared_error(E.T[:, :, None], W.T[:, :, None])
    square = (E * E).sum(0)
    slack = rounding(4, operations=10)  # of the risk, as above, and of ‖E‖²
    assert (risk <= 0.5 * square * (1 + slack)).all()
    assert (risk >= 0.25 * square * (1 - slack)).all()
    # Opposite targets of the same size reach the lower bound, small shifts the upper one.
    assert float((risk / square).min()) < 0.2501
    assert float((risk / square).max()) > 0.4999


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3, 4), (5, 1, 2)])
@pytest.mark.parametrize("most", [0, 1, 2, 5, 1000])
def test_pieces_cover_a_batch_once(batch, most):
    seen = torch.zeros(batch)
    for index in relu_math.pieces(torch.Size(batch), most):
        assert seen[index].numel() <= max(1, most)
        seen[index] += 1
    assert (seen == 1).all()
