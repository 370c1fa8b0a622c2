"""Angles: accuracy at every size, and the laws of a distance between subspaces."""

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerance import near, rounding

import loraone_theory as lt
from loraone_theory import testing
from loraone_theory.core.randomness import generator, haar_frame

SINE, ANGLES = lt.metrics.subspace_sine, lt.metrics.principal_angles
# Two frames by QR or SVD, two products and an SVD of matrices of 12 rows.
FRAMES = rounding(12, operations=5)
# Step of the finite differences: they err by eps/h of values of size one, and by h² times third
# derivatives; both are multiplied by the curvature of a sine, up to 1/gap² = 100 in these draws.
H = 1e-6
slopes = {"rtol": 0.0, "atol": 100 * (rounding(12, operations=5) / H + H**2)}


def pair_at(angles, n=12, dtype=np.float64):
    """Two frames at given principal angles, in coordinates where they are exact to rounding."""
    p = len(angles)
    P, Q = np.zeros((n, p), dtype), np.zeros((n, p), dtype)
    P[:p] = np.eye(p)
    Q[:p], Q[p : 2 * p] = np.diag(np.cos(angles)), np.diag(np.sin(angles))
    return P, Q


@pytest.mark.parametrize("exponent", range(0, 15))
def test_small_angles_keep_twelve_digits(exponent):
    angles = np.array([10.0**-exponent, 3.0 * 10.0 ** -(exponent + 1)])
    P, Q = pair_at(angles)
    np.testing.assert_allclose(ANGLES(P, Q, rank=2), angles, rtol=FRAMES)
    np.testing.assert_allclose(SINE(P, Q, rank=2), np.sin(angles[0]), rtol=FRAMES)
    np.testing.assert_allclose(
        ANGLES(P.T.copy(), Q.T.copy(), rank=2, side="right"), angles, rtol=FRAMES
    )


@pytest.mark.parametrize("small", [1e-4, 1e-10, 1e-14])
def test_a_small_angle_beside_a_large_one_survives_a_change_of_basis(small):
    P, Q = pair_at(np.array([1.2, small]))
    mix = np.random.default_rng(0).standard_normal((2, 2)) + 3 * np.eye(2)
    # The mix is of condition 3 at most, and the cosine of 1.2 is 0.36.
    np.testing.assert_allclose(ANGLES(P, Q @ mix, rank=2), [1.2, small], rtol=3 * FRAMES)


def test_against_scipy_where_scipy_is_safe():
    rng = np.random.default_rng(1)
    for _ in range(20):
        M1, M2 = rng.standard_normal((9, 3)), rng.standard_normal((9, 3))
        expected = scipy.linalg.subspace_angles(M1, M2)
        worst = max(np.linalg.cond(M1), np.linalg.cond(M2))
        # Scipy's arcsin magnifies the rounding of a sine by one over the cosine.
        once = worst * FRAMES / np.cos(expected).min()
        np.testing.assert_allclose(ANGLES(M1, M2, rank=3), expected, rtol=0, atol=once)


def test_against_eighty_digits_on_dense_frames():
    """Absolute accuracy is a few eps for any orientation; the oracle uses the rounded inputs."""
    rng = np.random.default_rng(2)
    basis = haar_frame(generator(3, "basis"), 8, 8)
    for angle in (1.0, 1e-3, 1e-6):
        P, Q = (basis @ M for M in pair_at(np.array([angle]), n=8))
        Q = Q * rng.uniform(0.5, 2)
        with mpmath.workdps(80):
            p, q = mpmath.matrix(P.tolist()), mpmath.matrix(Q.tolist())
            c = (p.T * q)[0] / (mpmath.norm(p) * mpmath.norm(q))
            exact = float(mpmath.acos(c))
        eps = np.finfo(np.float64).eps
        np.testing.assert_allclose(ANGLES(P, Q, rank=1), exact, atol=8 * eps, rtol=8 * eps)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 3), st.data())
def test_symmetric_and_independent_of_the_basis(seed, p, extra, data):
    rng = np.random.default_rng(seed)
    n = 2 * p + extra
    M1, M2 = rng.standard_normal((n, p)), rng.standard_normal((n, p))
    angles = ANGLES(M1, M2, rank=p)
    assert (np.diff(angles) <= 0).all()
    assert ((angles >= 0) & (angles <= np.pi / 2 + rounding(2))).all()
    # A frame's rounding is eps times the conditioning of what it was made from.
    tol = FRAMES * max(np.linalg.cond(M1), np.linalg.cond(M2)) ** 2
    np.testing.assert_allclose(ANGLES(M2, M1, rank=p), angles, atol=tol)
    Q, O = (data.draw(testing.orthogonal(size)).numpy() for size in (p, n))
    np.testing.assert_allclose(ANGLES(M1 @ Q, M2, rank=p), angles, atol=tol)
    np.testing.assert_allclose(ANGLES(O @ M1, O @ M2, rank=p), angles, atol=tol)
    np.testing.assert_allclose(SINE(M1, M2, rank=p), np.sin(angles[0]), atol=tol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kind_dtype_batch_and_device(dtype, device):
    rng = np.random.default_rng(6)
    M1, M2 = (
        torch.from_numpy(rng.standard_normal(shape)).to(device, dtype)
        for shape in ((4, 3, 9, 5), (3, 9, 6))
    )
    angles = ANGLES(M1, M2, rank=2)
    assert angles.shape == (4, 3, 2)
    assert (angles.dtype, angles.device) == (dtype, M1.device)
    single = ANGLES(M1[2, 1], M2[1], rank=2)
    # Singular frames of Gaussian matrices, known to rounding over the gaps of singular values.
    by_entry = near(9, operations=4, condition=20, scale=1.0, dtype=dtype)
    torch.testing.assert_close(angles[2, 1], single, **by_entry)
    assert isinstance(
        SINE(M1[0, 0].cpu().numpy(), M2[0].cpu().numpy(), rank=2), np.generic | np.ndarray
    )


def test_undefined_subspaces_are_nan():
    e = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    short = torch.zeros(4, 3, dtype=torch.float64)
    short[0, 0] = 1.0
    assert bool(SINE(e, short, rank=2).isnan())
    assert not bool(SINE(e, short, rank=1).isnan())
    both = torch.stack([short, e[:, :3]])
    assert SINE(e, both, rank=2).isnan().tolist() == [True, False]
    tied = torch.eye(4, dtype=torch.float64)
    assert bool(SINE(e, tied, rank=2).isnan())
    assert not bool(SINE(e, tied, rank=4).isnan())


@pytest.mark.parametrize("rank", [2, 5])
def test_tall_frames_equal_those_of_the_complete_factorisation(rank, monkeypatch):
    """The shortcut for tall matrices, at condition numbers up to 1e6, and its undefined cases."""
    rng = np.random.default_rng(4)
    for spread in (1.0, 1e-3, 1e-6):
        V = haar_frame(rng, 5, 5)
        M = rng.standard_normal((2, 900, 5)) * np.geomspace(1, spread, 5) @ V
        M[1, :, :] = M[1, :, :1]  # rank one
        frames = {}
        for tall in (64, 10**9):
            monkeypatch.setattr("loraone_theory.core.linalg.TALL", tall)
            frames[tall] = lt.linalg.left_frame(torch.from_numpy(M), rank)
        (fast, defined), (slow, _) = frames[64], frames[10**9]
        assert defined.tolist() == [True, False]
        # A product, whose columns' errors add like a random walk, and a QR of rank columns.
        gram, eye = fast[0].T @ fast[0], torch.eye(rank).double()
        torch.testing.assert_close(gram, eye, rtol=0, atol=rounding(30, operations=4))
        # The subspace itself is known to eps times the spread of the singular values.
        assert (
            float(lt.linalg.largest_sine(fast[0], slow[0]))
            < rounding(30, operations=4 * rank) / spread
        )


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("angles", [(1.2, 0.3), (1.2, 1e-3), (0.7, 0.2, 0.05)])
def test_gradients_of_angles_are_those_of_differences(angles, extra):
    """Large beside small angles, batches, and subspaces led by all or by some of the columns."""
    p, rng = len(angles), generator(0, f"angle gradients {angles} {extra}")
    theta = torch.tensor(angles, dtype=torch.float64)

    def gaussian(*shape):
        return torch.from_numpy(rng.standard_normal(shape))

    def pair():
        O = torch.from_numpy(haar_frame(rng, 9, 9))
        P, Q = O[:, :p], O[:, :p] * theta.cos() + O[:, p : 2 * p] * theta.sin()
        S = torch.linspace(3, 2, p, dtype=torch.float64)
        turns = [torch.linalg.qr(gaussian(p, p)).Q for _ in range(2)]
        return [
            torch.cat([(F * S) @ turn, 0.01 * gaussian(9, extra)], dim=1)
            for F, turn in zip((P, Q), turns, strict=True)
        ]

    M1, M2 = (torch.stack(parts).requires_grad_() for parts in zip(pair(), pair(), strict=True))
    for measure in (lt.metrics.principal_angles, lt.metrics.subspace_sine):
        # Differences of step h on angles >= 1e-3: curvature h²/θ² relative, rounding eps/(hθ).
        assert torch.autograd.gradcheck(
            lambda a, b, f=measure: f(a, b, rank=p), (M1, M2), eps=H, **slopes
        )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_float32(dtype, side):
    g = torch.Generator().manual_seed(0)
    M1, M2 = (torch.randn(7, 7, generator=g).to(dtype) for _ in range(2))
    for measure in (SINE, ANGLES):
        found = measure(M1, M2, rank=2, side=side)
        assert found.dtype == torch.float32
        assert torch.equal(found, measure(M1.float(), M2.float(), rank=2, side=side))
    halves = (M.float().numpy().astype(np.float16) for M in (M1, M2))
    assert SINE(*halves, rank=2).dtype == np.float32


def test_layers_are_measured_one_by_one():
    g = torch.Generator().manual_seed(0)
    ones = {n: torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (5, 8)}
    others = {n: torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (8, 5)}
    for measure in (SINE, ANGLES):
        found = measure(ones, others, rank=2)
        assert list(found) == [5, 8]
        assert all(torch.equal(found[n], measure(ones[n], others[n], rank=2)) for n in ones)
        listed = measure([ones[5], ones[8]], (others[5], others[8]), rank=2)
        assert all(torch.equal(a, found[n]) for n, a in zip((5, 8), listed, strict=True))
    with pytest.raises(ValueError, match="same layers; got 8 in one of them only"):
        SINE(ones, {5: others[5]}, rank=2)
    with pytest.raises(ValueError, match="same layers; got 2 and 1"):
        SINE(list(ones.values()), [others[5]], rank=2)
    with pytest.raises(TypeError, match="both lists or both dicts of them; got dict and Tensor"):
        SINE(ones, others[5], rank=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_angles_of_finite_matrices_of_any_size_are_defined(dtype):
    """Columns whose norms overflow have the angles of the same columns at size one."""
    M = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=dtype).clamp(-3, 3)
    size = 2.0 ** math.floor(math.log2(torch.finfo(dtype).max / 4))
    e = torch.eye(40, dtype=dtype)[:, :3]
    for measure in (SINE, ANGLES):
        assert torch.equal(measure(M * size, e, rank=3), measure(M, e, rank=3))


def test_a_run_that_overflows_has_angles_until_it_is_not_finite():
    problem = lt.sample_linear(
        d=40, k=10, true_rank=3, samples=200, dtype="float32", condition_number=3.0, seeds=(0, 5)
    )
    run = lt.simulate(
        problem,
        "lora",
        record=["left_alignment", "left_angles"],
        keep_factors=1,
        rank=6,
        learning_rate=2.0,
        init_std=0.3,
        steps=8,
    )
    finite = run.factors.A.isfinite().flatten(-2).all(-1)
    assert bool(finite[3].all())
    assert not bool(finite[-1].any())
    assert bool(run["left_alignment"][:4].isfinite().all())
    assert bool(run["left_alignment"][~finite].isnan().all())
    assert bool(run["left_angles"][~finite].isnan().all())
