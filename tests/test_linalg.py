"""Frames, residuals, bases and inverses at the edge of rounding, against longhand numpy."""

import math

import numpy as np
import pytest
import tolerance
import torch

from loraone_theory.core import linalg
from loraone_theory.core.implicit import Implicit

EPS = tolerance.eps()


def haar(rng: np.random.Generator, n: int, p: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, p)))[0]


def test_a_residual_is_orthogonal_to_rounding_of_itself() -> None:
    """One projection leaves n·eps‖Q‖ in the frame: a relative 1e-3 of a residual of 1e-12‖Q‖.

    A second one leaves n·eps of the residual.
    """
    rng = np.random.default_rng(0)
    n, p = 60, 5
    both = haar(rng, n, 2 * p)
    P, outside = both[:, :p], both[:, p:]
    small = 1e-12
    Q = P @ haar(rng, p, p) + small * outside
    found = linalg.residual(torch.from_numpy(P), torch.from_numpy(Q)).numpy()
    assert np.linalg.norm(found) == pytest.approx(small * p**0.5, rel=tolerance.rounding(n) / small)
    # P itself is orthonormal to rounding, which the test must not see: compared with its own Q.
    assert np.linalg.norm(P.T @ found) <= tolerance.rounding(n) * np.linalg.norm(found)
    once = Q - P @ (P.T @ Q)
    assert np.linalg.norm(P.T @ once) > 100 * np.linalg.norm(P.T @ found)


@pytest.mark.parametrize("share", [1e-14, 1e-12, 1e-10, 1e-8])
def test_directions_outside_a_basis_are_appended_down_to_rounding(share: float) -> None:
    """What is outside by more than n·eps ‖M‖ = 4.4e-15 ‖M‖ is a direction, and is kept."""
    rng = np.random.default_rng(1)
    n, p, q = 20, 4, 2
    both = haar(rng, n, p + q)
    basis, outside = both[:, :p], both[:, p:]
    M = basis @ rng.standard_normal((p, q)) / 2 + share * outside
    found = linalg.append_directions(torch.from_numpy(basis), torch.from_numpy(M)).numpy()
    assert found.shape == (n, p + q)
    assert np.linalg.norm(found.T @ found - np.eye(p + q)) <= tolerance.rounding(n, operations=p)
    miss = outside - found @ (found.T @ outside)
    # The direction is known to the rounding of M over its share of M.
    assert np.linalg.norm(miss) <= tolerance.rounding(n, condition=1 / share)


def test_rounding_outside_a_basis_is_no_direction() -> None:
    rng = np.random.default_rng(2)
    basis = haar(rng, 20, 4)
    M = basis @ rng.standard_normal((4, 2))
    given = torch.from_numpy(basis)
    assert linalg.append_directions(given, torch.from_numpy(M)) is given


def test_a_complete_basis_comes_of_enough_directions() -> None:
    rng = np.random.default_rng(3)
    basis, M = torch.from_numpy(haar(rng, 6, 4)), torch.from_numpy(rng.standard_normal((6, 3)))
    found = linalg.append_directions(basis, M)
    assert found.shape == (6, 6)
    assert (found.mT @ found - torch.eye(6)).norm() <= tolerance.rounding(6, operations=6)
    assert linalg.append_directions(basis, M[:, :2]).shape == (6, 6)
    assert linalg.append_directions(basis, M[:, :1]).shape == (6, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_pseudo_inverse_cuts_at_the_rounding_of_a_gram_matrix(dtype: torch.dtype) -> None:
    """Eigenvalues of 4 r·eps are information, those of r·eps/4 are not."""
    r, eps = 5, tolerance.eps(dtype)
    for factor, kept in ((4.0, r), (0.25, r - 1)):
        values = np.array([2.0, 1.0, 0.5, 0.25, 2.0 * factor * r * eps])
        M = torch.from_numpy(np.diag(values)).to(dtype)  # diagonal: its eigenvalues are exact
        found = linalg.inverse_psd(M)
        assert int(found.kept) == kept
        expected = np.where(np.arange(r) < kept, 1 / values, 0.0)
        close = torch.from_numpy(np.diag(expected)).to(dtype)
        torch.testing.assert_close(
            found.matrix, close, rtol=tolerance.rounding(r, dtype=dtype), atol=0
        )


def test_damping_keeps_every_direction() -> None:
    values, lam = np.array([3.0, 1e-3, 0.0]), 1e-9
    found = linalg.inverse_psd(torch.from_numpy(np.diag(values)), lam)
    expected = torch.from_numpy(np.diag(1 / (values + lam)))
    torch.testing.assert_close(found.matrix, expected, rtol=tolerance.rounding(3), atol=0)
    assert int(found.kept) == 3


def test_what_is_not_finite_keeps_to_itself() -> None:
    M = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    M[0, 1, 1] = float("inf")
    found = linalg.inverse_psd(M)
    assert found.matrix[0].isnan().all()
    assert torch.equal(found.matrix[1], torch.eye(3, dtype=torch.float64))
    assert found.kept.tolist() == [3, 3]


@pytest.mark.parametrize("gap", [1.0, 1e-3])
def test_a_left_frame_is_that_of_the_dense_decomposition(gap: float) -> None:
    """Tall and nearly square, with a wide and with a narrow gap below the subspace."""
    rng = np.random.default_rng(4)
    for d, r, rank in ((40, 5, 2), (7, 5, 2), (400, 4, 3)):
        values = np.concatenate([np.linspace(2, 1, rank), np.full(r - rank, 1 / (1 + gap))])
        U = haar(rng, d, r)
        M = U * values @ haar(rng, r, r).T
        frame, defined = linalg.left_frame(torch.from_numpy(M), rank)
        assert bool(defined)
        F = frame.numpy()
        assert np.linalg.norm(F.T @ F - np.eye(rank)) <= tolerance.rounding(d, operations=r)
        sine = np.linalg.norm(F - U[:, :rank] @ (U[:, :rank].T @ F), 2)
        error = tolerance.rounding(d) * values[0]
        assert sine <= tolerance.subspace(values, rank, error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("d", [9, 40, 600])
def test_a_left_frame_does_not_depend_on_scale(d: int, dtype: torch.dtype) -> None:
    """From subnormal entries to entries whose squares overflow, beside a matrix of ordinary ones.

    By the Gram matrix, by QR and by the rows of the R factor, whose gap is a third of the largest
    value.
    """
    rng, kind = np.random.default_rng(d), torch.finfo(dtype)
    values = np.array([1.0, 0.9, 0.3, 0.2])
    U = haar(rng, d, 8)[:, :4]
    M = torch.from_numpy(U * values @ haar(rng, 4, 4)).to(dtype)
    least, squared = kind.smallest_normal / kind.eps, kind.smallest_normal**0.5
    # Those in the middle have squares among the subnormal numbers, and at the ends of the others.
    for size in (least, 4 * squared * kind.eps**0.5, squared, 1 / squared, kind.max / 2):
        frame, defined = linalg.left_frame(torch.stack([M * size, M]), 2)
        assert defined.tolist() == [True, True]
        assert torch.equal(frame[1], linalg.left_frame(M[None], 2)[0][0])
        allowed = tolerance.subspace(values, 2, tolerance.rounding(d, operations=4, dtype=dtype))
        assert float(linalg.largest_sine(frame[1].double(), frame[0].double())) <= 2 * allowed
        whole, defined = linalg.left_frame(M * size, 4)
        assert bool(defined)
        assert bool(whole.isfinite().all())
    bad = M.clone()
    bad[0, 0] = math.inf
    frame, defined = linalg.left_frame(torch.stack([bad, M]), 2)
    assert defined.tolist() == [False, True]
    assert not bool(linalg.principal_angles(frame[1].expand_as(frame), frame).isnan().any())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_triplets_of_a_matrix_known_by_its_products(dtype):
    """Block Lanczos against LAPACK: low rank plus noise, tied values, deficient rank, a batch."""
    rng = np.random.default_rng(3)
    noise = torch.from_numpy(rng.standard_normal((2, 60, 45)))
    left, right = (
        torch.linalg.qr(torch.from_numpy(rng.standard_normal((2, n, 4)))).Q for n in (60, 45)
    )
    values = torch.tensor([3.0, 2.0, 2.0, 1.0], dtype=torch.float64)
    clean = (left * values) @ right.mT
    for M, rank in ((clean + 0.01 * noise, 4), (noise, 5), (clean, 4), (noise[:, :7, :5], 5)):
        M = M.to(dtype)
        hidden = Implicit(M.shape, lambda N, M=M: M @ N, lambda N, M=M: M.mT @ N, M)
        U, S, V = linalg.truncated_svd(hidden, rank)
        exact = torch.linalg.svdvals(M)
        small = 16 * 105**0.5 * torch.finfo(dtype).eps * exact[..., :1]
        assert ((S - exact[..., :rank]).abs() <= small).all()
        # Triplets: MV = US and MᵀU = VS to the accuracy they are accepted at, up to rounding.
        for product, wanted in ((M @ V, U * S[..., None, :]), (M.mT @ U, V * S[..., None, :])):
            assert (torch.linalg.matrix_norm(product - wanted) <= 4 * small[..., 0]).all()
        tolerance.close(hidden.dense(), M, tolerance.rounding(max(M.shape), dtype=dtype))
