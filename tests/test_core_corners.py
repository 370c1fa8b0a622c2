"""More values of the core in corners that runs of whole methods do not tell apart, by longhand.

Each holds one or more small faults that all other tests let through (tests/mutants.py).
"""

import math
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from longhand import close, normal, quadratic
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import predict
from loraone_theory.core import elementwise, tall
from loraone_theory.core.factors import Factors, squared_norm
from loraone_theory.core.randomness import bartlett, haar_frame, torch_seed
from loraone_theory.core.roots import psd_root
from loraone_theory.methods.rules.adamw import adamw
from loraone_theory.methods.rules.alternating import alternating
from loraone_theory.methods.rules.gauss_newton import gauss_newton
from loraone_theory.predict import measured
from loraone_theory.predict.best_fit import _rounding
from loraone_theory.problems.linear.blocks import gradients_by_rows
from loraone_theory.problems.linear.covariance import Diagonal, Tridiagonal
from loraone_theory.problems.linear.data import own_test

# --- tall matrices and entries


@pytest.mark.parametrize(
    ("shape", "other", "over"),
    [((3, 4, 2), (4, 2), True), ((3, 4, 2), (3, 1, 2), True), ((4, 2), (3, 4, 2), False),
     ((1, 4, 2), (3, 4, 2), False)],
)  # fmt: skip
def test_a_difference_takes_the_place_of_the_first_where_it_fits(
    shape: tuple[int, ...], other: tuple[int, ...], over: bool
) -> None:
    M, T = normal(*shape), normal(*other, seed=1)
    expected = M.numpy() - T.numpy()
    found = tall.difference(M, T)
    assert (found is M) is over
    assert np.array_equal(found.numpy(), expected)


def test_entries_are_worked_through_in_whole_vectors() -> None:
    """Vector units of 4, 8 or 16 entries, unrolled by up to 4, divide 64; and one in the place."""
    lengths = []

    def function(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        lengths.append(len(y))
        return y + x

    for n in (1, 63, 65, 130):
        assert torch.equal(elementwise._padded(function, normal(n), 0 * normal(n)), normal(n))
    threads = torch.get_num_threads()
    assert all(length % (64 * threads) == 0 for length in lengths)


@pytest.mark.parametrize(("d", "k", "r"), [(9, 11, 2), (11, 9, 2), (9, 11, 3)])
def test_squared_norms_of_a_batch(d: int, k: int, r: int) -> None:
    """By the triangle of a QR below a quarter of the sides, by the product from there on."""
    A, B = normal(3, d, r), normal(3, r, k, seed=1)
    expected = ((A.numpy() @ B.numpy()) ** 2).sum((1, 2))
    allowed = rounding(d * k, operations=4)
    close(squared_norm(Factors(A, B)), torch.from_numpy(expected), allowed * expected.max())
    close(squared_norm(Factors(A[0], B[0])), torch.tensor(expected[0]), allowed * expected[0])


# --- predictions


def test_the_time_to_align_needs_a_singular_value() -> None:
    found = predict.alignment_time(100, 0.5, 0.1, 2.0)
    assert found == pytest.approx(math.log(20) / math.log(1.2), rel=rounding(4))
    for zero in (0, 0.0):
        with pytest.raises(ValueError, match=r"^singular_value must be finite and > 0; got"):
            predict.alignment_time(100, 0.5, 0.1, zero)


# --- random numbers


def test_seeds_of_torch_differ_and_are_those_of_the_stream() -> None:
    found = [torch_seed(seed, "stream") for seed in range(300)]
    assert len(set(found)) == 300  # of 2⁶², two of 300 alike would be a chance of 1e-14
    rng = np.random.default_rng([7, zlib.crc32(b"stream")])
    assert found[7] == int(rng.integers(2**62))


def test_a_frame_is_the_gaussian_matrix_made_orthonormal_from_the_left() -> None:
    """Gram and Schmidt's, whose R has a positive diagonal: q_i·g_i > 0."""
    for seed in range(5):
        G = np.random.default_rng(seed).standard_normal((7, 3))
        Q = haar_frame(np.random.default_rng(seed), 7, 3)
        assert (np.diagonal(Q.T @ G) > 0).all()
        close(torch.from_numpy(Q @ (Q.T @ G)), torch.from_numpy(G), rounding(7, operations=16))


def test_of_few_rows_the_gaussian_matrix_itself_is_drawn() -> None:
    for p, rows in ((-1, 0), (0, 0), (1, 1), (2, 2)):
        expected = np.random.default_rng(3).standard_normal((rows, 3))
        assert np.array_equal(bartlett(np.random.default_rng(3), p, 3), expected)
    square = bartlett(np.random.default_rng(3), 3, 3)
    assert np.array_equal(square, np.triu(square))


def test_what_is_not_finite_has_the_root_zero() -> None:
    M = torch.tensor([[math.nan, 0.0], [0.0, 4.0]], dtype=torch.float64)
    assert psd_root(M).tolist() == [[0.0, 0.0], [0.0, 2.0]]
    M[0, 0] = -1e-18  # below zero by rounding of the other
    assert psd_root(M).tolist() == [[0.0, 0.0], [0.0, 2.0]]


# --- gradients and rules


@pytest.mark.parametrize("banded", [True, False])
def test_gradients_by_rows_are_those_of_the_dense_matrices(banded: bool) -> None:
    """(ΣEBᵀ, AᵀΣE) of one problem without a batch; blocks of 3 of 8 rows, in every position."""
    c, f = 1 + normal(8).abs(), normal(7, seed=1)
    C = torch.diag(c) + torch.diag(f, 1)
    covariance = Tridiagonal.from_bidiagonal(c, f) if banded else Diagonal(c)
    S = C.mT @ C if banded else torch.diag(c)
    given = covariance.apply(torch.eye(8).double())
    close(given, S, rounding(8, operations=4, condition=10))
    T, A, B = normal(8, 5, seed=2), normal(8, 2, seed=3), normal(2, 5, seed=4)
    found = gradients_by_rows(covariance, T, Factors(A, B), 3)
    E = A @ B - T
    assert (found.A.shape, found.B.shape) == (A.shape, B.shape)
    allowed = rounding(8, operations=16) * float(S.norm() * E.norm() * max(A.norm(), B.norm()))
    close(found.A, S @ E @ B.mT, allowed)
    close(found.B, A.mT @ S @ E, allowed)


def test_a_gradient_of_the_size_of_epsilon_halves_the_first_step_of_adamw() -> None:
    """m̂/(√v̂ + ε) = g/(|g| + ε) after one step, and ε is 1e-8."""
    rule = adamw(0.1)
    params = (torch.zeros(1, 1).double(), torch.zeros(1, 1).double())
    gradients = (
        torch.tensor([[1e-8]], dtype=torch.float64),
        torch.tensor([[-1e-8]], dtype=torch.float64),
    )
    found, _ = rule.update(params, gradients, rule.init(params))
    # 1 − β₂ = 0.001 has lost three digits.
    allowed = rounding(16, condition=1e3)
    assert [float(P) for P in found] == pytest.approx([-0.05, 0.05], rel=allowed)


def system(
    left: torch.Tensor, right: torch.Tensor, damping: float, G: torch.Tensor
) -> torch.Tensor:
    """X with LXR + λX = G, as a system of the entries of X by rows."""
    H = torch.kron(left.contiguous(), right.mT.contiguous()) + damping * torch.eye(
        G.numel(), dtype=G.dtype
    )
    return torch.linalg.solve(H, G.reshape(-1)).reshape(G.shape)


@pytest.mark.parametrize("damping", [None, 0.7])
@pytest.mark.parametrize("name", ["alternating", "gauss-newton"])
def test_rules_that_step_in_turn(name: str, damping: float | None) -> None:
    """A by its damped system, then B by that of the new A; of identities for `alternating`."""
    eta, lam = 0.4, damping or 0.0
    half = normal(6, 6)
    S = half @ half.mT / 6 + torch.eye(6).double()
    T, A, B = normal(6, 4, seed=1), normal(6, 2, seed=2), normal(2, 4, seed=3)
    gradients = quadratic(S, T)
    factory = alternating if name == "alternating" else gauss_newton
    rule = factory(eta) if damping is None else factory(eta, damping)
    (found_A, found_B), _ = rule.advance((A, B), gradients, rule.init((A, B)))
    newton = name == "gauss-newton"
    G = gradients((A, B))[0]
    new_A = A - eta * system(S if newton else torch.eye(6).double(), B @ B.mT, lam, G)
    G = gradients((new_A, B))[1]
    gram = new_A.mT @ (S @ new_A if newton else new_A)
    new_B = B - eta * system(gram, torch.eye(4).double(), lam, G)
    # Conjugate gradients end at rounding of G; all systems here have conditions below 100.
    allowed = rounding(24, operations=50, condition=100)
    close(found_A, new_A, allowed)
    close(found_B, new_B, allowed)


def test_steps_of_a_fixed_number_of_products_are_replayed() -> None:
    assert alternating(0.1).replays
    assert not gauss_newton(0.1).replays  # it asks whether it has converged


# --- data


@pytest.mark.parametrize("labelled", [False, True])
def test_later_changes_to_held_out_rows_are_seen_nowhere(labelled: bool) -> None:
    X, Y = normal(5, 3), normal(5, 2, seed=1)
    arrays = (X, Y) if labelled else (X,)
    kept = [M.clone() for M in arrays]
    found = own_test(arrays if labelled else X, SimpleNamespace(arrays=arrays, pretrained=None))
    for M in arrays:
        M.zero_()
    assert all(torch.equal(M, old) for M, old in zip(found, kept, strict=True))


# --- sensing


def test_where_nothing_is_known_of_a_rate_both_ends_are_nan() -> None:
    problem = lt.sample_sensing(
        d=4, k=3, true_rank=1, measurements=30, ensemble="dense", seeds=(0, 1)
    )
    found = measured._nothing(problem, "why")
    assert found.extremes.shape == (2, 2)
    assert bool(found.extremes.isnan().all())
    assert found.notes == ("why",)


def test_what_sums_over_measurements_lose_of_a_loss() -> None:
    """m·eps of the loss, and of a loss that is zero (m·eps)² of that of the zero matrix."""
    problem = lt.sample_sensing(
        d=4, k=3, true_rank=1, measurements=30, ensemble="dense", seeds=(0, 1)
    )
    share = 30 * np.finfo(np.float64).eps
    loss = np.array([0.0, 3.0])
    size = (problem.targets.numpy() ** 2).mean(1) / 2
    expected = share * loss + 2 * share * (loss * size) ** 0.5 + share**2 * size
    found = _rounding(problem, torch.from_numpy(loss))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=rounding(30), abs=0.0)
