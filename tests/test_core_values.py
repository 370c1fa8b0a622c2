"""Values of the core in corners that runs of whole methods do not tell apart, by longhand.

Each holds one or more small faults that all other tests let through (tests/mutants.py).
"""

import hashlib
import math

import numpy as np
import pytest
import torch
from longhand import close, normal
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import predict
from loraone_theory.claims import Draws
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors
from loraone_theory.core.implicit import Implicit
from loraone_theory.core.linalg import Inverse, SVDOptions
from loraone_theory.core.status import Outcome
from loraone_theory.dynamics import endings
from loraone_theory.dynamics.continuation import _both
from loraone_theory.methods.rules.adalora import adalora
from loraone_theory.methods.rules.base import Drops, Local
from loraone_theory.methods.rules.gd import gd
from loraone_theory.predict import floors, modes, noise, one_step, relu
from loraone_theory.predict.contraction import NO_GAP, imbalance
from loraone_theory.predict.relu_contraction import relu_contraction
from loraone_theory.predict.tangent_map import TangentMap, tangent_map
from loraone_theory.problems.linear.covariance import Rows
from loraone_theory.problems.linear.laws import population_covariance
from loraone_theory.problems.linear.reduction import reduce
from loraone_theory.problems.sensing.operators.rank_one import RankOne
from loraone_theory.problems.sensing.rip import gordon_bounds

# --- linalg


def test_what_an_svd_is_asked_by_default() -> None:
    assert SVDOptions() == ("exact", 32, 4, 0)


def test_the_polar_factor_of_a_matrix_of_short_rank() -> None:
    u, v = normal(6, 1), normal(1, 4, seed=1)
    expected = u @ v / (u.norm() * v.norm())
    close(linalg.polar(3 * u @ v), expected, rounding(6, operations=4))
    assert torch.equal(linalg.polar(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)])
def test_a_wide_probe_is_cut_to_a_small_matrix(shape: tuple[int, int]) -> None:
    M = normal(*shape)
    found = linalg.truncated_svd(M, 2, SVDOptions("lowrank", q=32))
    # A probe of all directions: as exact as LAPACK's, but for a product with the frame.
    close(found.S, torch.linalg.svdvals(M)[:2], rounding(5, operations=8))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_triplets_of_a_hidden_matrix_are_as_good_at_every_scale(scale: float) -> None:
    M = scale * normal(60, 50)
    hidden = Implicit(M.shape, lambda N: M @ N, lambda N: M.mT @ N, M)
    U, S, V = hidden.leading(3)
    close(S / scale, torch.linalg.svdvals(M)[:3] / scale, rounding(60, operations=16))
    close(M.mT @ U / scale, V * S / scale, rounding(60, operations=16, condition=10))


def test_angles_of_one_subspace_and_of_tiny_ones() -> None:
    eye = torch.eye(5, dtype=torch.float64)
    assert linalg.principal_angles(eye[:, :2], eye[:, [1, 0]]).tolist() == [0.0, 0.0]
    for angle in (1e-3, 1e-160, 1e-290):
        tilted = eye[:, :1] * math.cos(angle) + eye[:, 4:] * math.sin(angle)
        found = linalg.principal_angles(eye[:, :1], tilted)
        assert float(found[0]) == pytest.approx(angle, rel=rounding(5, operations=4))


def test_no_sine_exceeds_one() -> None:
    for seed in range(100):
        Q = torch.linalg.qr(normal(7, 4, seed=seed)).Q
        sine = float(linalg.largest_sine(Q[:, :2], Q[:, 2:]))
        assert 1 - rounding(7, operations=8) <= sine <= 1.0


@pytest.mark.parametrize(("p", "q"), [(2, 1), (2, 2), (3, 2), (1, 4)])
def test_appended_directions_make_a_basis(p: int, q: int) -> None:
    basis, M = torch.linalg.qr(normal(4, p)).Q, normal(4, q, seed=1)
    found = linalg.append_directions(basis, M)
    width = min(p + q, 4)
    assert found.shape == (4, width)
    close(found.mT @ found, torch.eye(width).double(), rounding(4, operations=8))
    for part in (basis, M):
        close(found @ (found.mT @ part), part, rounding(4, operations=16))


def test_directions_are_appended_where_one_matrix_of_a_batch_needs_them() -> None:
    basis = torch.linalg.qr(normal(6, 2)).Q
    M = torch.stack([basis @ normal(2, 2, seed=1), normal(6, 2, seed=2)])
    found = linalg.append_directions(basis.expand(2, 6, 2), M)
    close(found @ (found.mT @ M), M, rounding(6, operations=16))


def test_an_inverse_is_one_at_every_scale() -> None:
    for scale in (1e-20, 1e20):
        found = linalg.inverse_psd(scale * torch.eye(2).double())
        assert int(found.kept) == 2
        close(scale * found.matrix, torch.eye(2).double(), rounding(2, operations=4))


def test_no_frame_of_what_is_not_finite() -> None:
    M = normal(5, 3)
    M[1, 2] = math.nan
    for rank in (2, 3):
        assert not bool(linalg.left_frame(M, rank)[1])
        assert bool(linalg.left_frame(normal(5, 3), rank)[1])


def test_a_frame_that_is_unclear_beside_one_that_is_clear() -> None:
    """Singular values 1, 2e-9 and 1e-9: their squares do not tell the second from the third."""
    U, V = (torch.linalg.qr(normal(n, 3, seed=n)).Q for n in (9, 3))
    sizes = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2e-9, 1e-9]]).double()
    frame, defined = linalg.left_frame(U * sizes[:, None, :] @ V.mT, 2)
    assert defined.tolist() == [True, True]
    allowed = rounding(9, operations=8, condition=1e9)
    close(frame @ frame.mT, (U[:, :2] @ U[:, :2].mT).expand(2, 9, 9), allowed)


def test_which_singular_values_a_polar_factor_takes() -> None:
    """Those above eps^{2/3} = 3.7e-11 of the largest."""
    for small, kept in ((1e-9, 1.0), (1e-13, 0.0)):
        found = linalg.polar(torch.tensor([1.0, small]).double().diag())
        close(found, torch.tensor([1.0, kept]).double().diag(), rounding(2))


def test_nothing_beside_nothing_is_small() -> None:
    zero = torch.zeros(3, 2).double()
    assert linalg.relative_norm(zero, zero).tolist() == 0.0


def test_triplets_that_thin_factors_lack_are_zero() -> None:
    F = Factors(normal(3, 6, 2), normal(3, 2, 5, seed=1))
    U, S, V = linalg.truncated_svd(F, 4)
    assert (U.shape, S.shape, V.shape) == ((3, 6, 4), (3, 4), (3, 5, 4))
    assert torch.equal(S[:, 2:], torch.zeros(3, 2).double())
    close((U * S[:, None, :]) @ V.mT, F.A @ F.B, rounding(6, operations=16))


# --- rules


@pytest.mark.parametrize("drops", [(True, True, True), (True, False, True), (True, True, False)])
def test_steps_with_drops_are_counted_and_the_last_is_told(drops: tuple[bool, ...]) -> None:
    state = Drops.none((torch.eye(2), torch.eye(2)))
    whole, short = (Inverse(torch.eye(2), torch.tensor(kept)) for kept in (2, 1))
    for i, dropped in enumerate(drops):
        state = state.after(*((whole, short) if dropped and i % 2 else (short, whole)) if dropped
                            else (whole, whole))  # fmt: skip
    last = max(i + 1 for i, dropped in enumerate(drops) if dropped)
    assert (state.step, int(state.steps), int(state.last)) == (3, sum(drops), last)


def test_a_rule_says_nothing_of_its_gradients_by_default() -> None:
    assert Local() == ("none", 0.0, 1.0)


@pytest.mark.parametrize(("final", "left"), [(None, 2), (0, 2), (1, 1)])
def test_by_default_adalora_prunes_to_its_last_step(final: int | None, left: int) -> None:
    """⌊1 + 79(1 − 3/4)³⌋ = 2 of 80 are left after three of four steps, 1 if that is final."""
    more = {} if final is None else {"final_steps": final}
    rule = adalora(gd(0.01), target_rank=1, total_steps=4, **more)
    params = (normal(3, 80), normal(1, 80, seed=1), normal(80, 2, seed=2))
    state = rule.init(params)
    for step in range(3):
        gradients = tuple(normal(*P.shape, seed=10 + step) for P in params)
        params, state = rule.update(params, gradients, state)
    assert int((params[1] != 0).sum()) == left


def test_importance_and_its_spread_are_running_means() -> None:
    """Ī = (1 − β₁)I and Ū = (1 − β₂)|I − Ī| = (1 − β₂)β₁I after one step, I = |w·∂w|."""
    rule = adalora(gd(0.1), penalty=0.0, betas=(0.6, 0.7), total_steps=10)
    params = tuple(normal(*s, seed=i) for i, s in enumerate([(4, 3), (1, 3), (3, 5)]))
    gradients = tuple(normal(*P.shape, seed=9) for P in params)
    _, state = rule.update(params, gradients, rule.init(params))
    for P, g, mean, spread in zip(params, gradients, state.mean, state.spread, strict=True):
        importance = ((P - 0.1 * g) * g).abs()
        # λ before it is pruned is what importance is of, so all entries count.
        close(mean, 0.4 * importance, rounding(1, operations=8))
        close(spread, 0.3 * 0.6 * importance, rounding(1, operations=8))


# --- problems


def test_a_few_rows_are_a_covariance() -> None:
    """Products, root, spectrum and the problem made of them, against the dense Σ̂ = XᵀX/b."""
    X, M = normal(3, 4, 7), normal(3, 7, 2, seed=1)
    dense, rows = X.mT @ X / 4, Rows(X)
    allowed = rounding(7, operations=8)
    close(rows.apply(M), dense @ M, allowed)
    close(rows.half(M), X @ M / 2, allowed)
    R = normal(3, 4, 2, seed=2)
    close(rows.half_transposed(R), X.mT @ R / 2, allowed)
    values = torch.linalg.eigvalsh(dense)
    # Eigenvalues of a product are known to eps of the largest, here about 5.
    close(rows.spectrum("all"), values, 8 * allowed)
    close(rows.spectrum("extremes"), values[:, [0, -1]], 8 * allowed)
    shift = Factors(normal(3, 7, 1, seed=3), normal(3, 1, 5, seed=4))
    problem = lt.LinearProblem(rows, shift)
    at = Factors(normal(3, 7, 2, seed=5), normal(3, 2, 5, seed=6))
    E = at.A @ at.B - shift.A @ shift.B
    close(problem.loss(at), 0.5 * (E * (dense @ E)).sum((-2, -1)), 16 * allowed)
    found = problem.gradients(at)
    close(found.A, dense @ E @ at.B.mT, 16 * allowed)
    close(found.B, at.A.mT @ dense @ E, 16 * allowed)


def test_a_covariance_is_symmetric_or_not_at_every_scale() -> None:
    root = normal(5, 5)
    whole = root @ root.mT + torch.eye(5)
    shaken = whole.clone()
    shaken[0, 1] *= 1 + 2.0**-52  # rounding
    wrong = whole.clone()
    wrong[0, 1] += 1e-3
    for scale in (1e-9, 1.0, 1e9):
        assert population_covariance(scale * shaken, 5, root) is not None
        with pytest.raises(ValueError, match="must be symmetric"):
            population_covariance(scale * wrong, 5, root)


def test_a_start_of_two_ranks_is_refused() -> None:
    problem = lt.sample_linear(d=6, k=5, true_rank=1, samples=20)
    with pytest.raises(ValueError, match=r"A \(\.\.\., 6, r\) and B \(\.\.\., r, 5\)"):
        reduce(problem, Factors(normal(6, 2), normal(3, 5)))


@pytest.mark.parametrize("N", [4, 12])
def test_the_reduced_covariance_of_noisy_data_has_the_spectrum_of_the_inputs(N: int) -> None:
    X, Y = normal(N, 7), normal(N, 9, seed=1)
    small = reduce(lt.LinearProblem.from_data(X, labels=Y)).problem
    expected = torch.linalg.eigvalsh(X.mT @ X / N)
    found = small.covariance.spectrum("all").flatten().sort().values
    close(found, expected, rounding(12, operations=16, condition=4))  # of the largest, about 3


def test_rank_one_adjoints_of_several_matrices_from_one_instance() -> None:
    operator, y = RankOne(normal(9, 4), normal(9, 3, seed=1)), normal(9, seed=2)
    M, L = normal(5, 3, 2, seed=3), normal(5, 4, 2, seed=4)
    dense = torch.einsum("m,md,mk->dk", y, operator.X, operator.Z)
    close(operator.adjoint_right(y, M), dense @ M, rounding(9, operations=8, condition=4))
    close(operator.adjoint_left(y, L), dense.mT @ L, rounding(9, operations=8, condition=4))


def test_both_sides_of_the_isometry_bound_have_one_width() -> None:
    """(1 + x)² − 1 and 1 − (1 − x)₊² with x = w/√m."""
    x = math.sqrt(1 + gordon_bounds(4, 4, 1, 400)[0]) - 1
    assert 0.1 < x < 0.2  # s₁ of a 4×4 Gaussian matrix is 3 in the mean, over 20
    upper, lower = gordon_bounds(4, 4, 1, 1600)
    # A mean over draws of widths, whose rounding is that of 1 + x; differences of squares near 1.
    allowed = rounding(20, operations=4, condition=1 / x)
    assert upper == pytest.approx((1 + x / 2) ** 2 - 1, rel=allowed)
    assert lower == pytest.approx(1 - (1 - x / 2) ** 2, rel=allowed)
    assert gordon_bounds(4, 4, 1, 4)[1] == 1.0


@pytest.mark.parametrize("samples", [None, 30])
def test_a_relu_problem_is_put_to_norm_one_by_default(samples: int | None) -> None:
    sizes = {"d": 6, "k": 4, "true_rank": 2, "relative_shift": 0.1}
    problem = (
        lt.sample_relu_population(**sizes)
        if samples is None
        else lt.sample_relu(**sizes, samples=samples)
    ).with_shift_norm()
    size = torch.linalg.matrix_norm(problem.shift.dense(), 2)
    close(size, torch.ones_like(size), rounding(6, operations=8))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_of_measurements_drawn_when_needed(seed: int) -> None:
    """⟨G, Δ⟩ = ‖𝒜(Δ)‖²/m = 2L(0)."""
    sizes = {"d": 5, "k": 4, "true_rank": 2, "measurements": 30, "seeds": (seed,)}
    problem = lt.sample_dense_lazy(**sizes, steps=5)
    zero = Factors(torch.zeros(5, 1).double(), torch.zeros(1, 4).double())
    product = (problem.one_step_gradient() * problem.shift.dense()).sum((-2, -1))
    close(problem.loss(zero), product / 2, rounding(30, operations=16))


def test_a_part_of_the_rows_of_a_relu_problem_is_held_out() -> None:
    X, W = normal(20, 3), normal(3, 3, seed=1)
    problem = lt.ReLUProblem.from_data(X, pretrained=W, shift=0.1 * W, split=0.25)
    assert problem.held_out is not None
    assert (problem.samples, problem.held_out.samples, problem.d) == (15, 5, 3)


# --- predictions


def test_a_rate_is_that_of_the_solution_that_is_handed_in() -> None:
    problem = lt.sample_linear(d=6, k=5, true_rank=2, samples=60)
    at = predict.pair_solution(problem, rank=2)
    found = predict.local_rate(problem, learning_rate=0.1, solution=at)
    assert torch.equal(found, predict.local_rate(problem, learning_rate=0.1))
    wrong = Factors(normal(6, 3), normal(3, 5, seed=1))
    with pytest.raises(ValueError, match="its rank must equal true_rank; got rank=3"):
        predict.local_rate(problem, learning_rate=0.1, solution=wrong)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
def test_with_momentum_a_mode_goes_as_the_larger_root(beta: float) -> None:
    """Roots of z² − (1 + β − ημ)z + β by numpy, from slow to past the stability edge."""
    for x in np.linspace(0.05, 2.2 * (1 + beta), 23):
        found = predict.Contraction(torch.tensor([x, x], dtype=torch.float64), beta).rate(1.0)
        expected = abs(np.roots([1, -(1 + beta - x), beta])).max()
        # A double root moves by the root of what its coefficients do.
        assert float(found) == pytest.approx(expected, abs=rounding(4, operations=4) ** 0.5)


def test_imbalance_is_that_of_the_worst_instance_with_the_ratio_of_the_steps() -> None:
    start = Factors(normal(2, 4, 2), normal(2, 2, 3, seed=1))
    at = Factors(normal(2, 4, 2, seed=2), normal(2, 2, 3, seed=3))
    worst = 0.0
    for i in range(2):
        gap = np.linalg.norm((9 * start.A[i].mT @ start.A[i] - start.B[i] @ start.B[i].mT), 2)
        least = np.linalg.svd(at.B[i].numpy(), compute_uv=False)[-1] ** 2
        worst = max(worst, 2 * gap / (3 * least))
    found = imbalance(start, 9.0, 2.0, at, 0.0)
    assert found == pytest.approx(worst, rel=rounding(4, operations=16, condition=10))


def test_no_rate_without_a_gap_after_the_rank() -> None:
    shift = torch.eye(4, dtype=torch.float64)[:, :3]  # three equal singular values
    tied = lt.LinearProblem.population(shift=shift)
    apart = lt.LinearProblem.population(shift=shift * torch.tensor([3.0, 2.0, 1.0]).double())
    assert NO_GAP in predict.contraction(tied, "lora-one", rank=2).notes
    assert NO_GAP not in predict.contraction(tied, "lora-one", rank=3).notes
    assert NO_GAP not in predict.contraction(apart, "lora-one", rank=2).notes


def test_an_operator_that_is_zero_has_no_mode_that_moves() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    found = modes._dense(torch.zeros_like, 3, torch.Size(), like, 1)
    assert found.tolist() == [0.0, math.inf, 0.0]


def test_singular_values_of_a_tangent_map_are_cut_relative_to_the_largest() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    A, B = torch.diag(torch.tensor([1.0, 0.5])).double(), torch.diag(torch.tensor([2.0, 0.0]))
    for scale in (1e-20, 1.0, 1e20):
        found = TangentMap(scale * A, scale * B.double(), eye, eye, torch.zeros(2).double())
        assert found.ranks == (2, 1)
        # Of one response, so that it is the square of a product and a quotient.
        outer = float(found.outer[0] / scale**2)
        assert outer == pytest.approx(4.0, rel=rounding(2, operations=4))
        assert bool(found.outer[1].isnan())


def test_a_tangent_map_is_undamped_by_default() -> None:
    at = Factors(normal(4, 2), normal(2, 3, seed=1))
    found, expected = tangent_map(at, "preconditioned"), tangent_map(at, "preconditioned",
                                                                     damping=0.0)  # fmt: skip
    assert torch.equal(found.A, expected.A)
    # (AᵀA)^{−1/2} makes the columns of A orthonormal.
    close(found.A.mT @ found.A, torch.eye(2).double(), rounding(4, operations=16, condition=10))


@pytest.mark.parametrize(("d", "k"), [(40, 30), (256, 256)])
def test_steps_that_may_look_at_what_they_lose_are_not_replayed(d: int, k: int) -> None:
    problem = lt.ReLUPopulation(pretrained=normal(d, k), shift=normal(d, k, seed=1))
    assert problem.replays == (d * k < 2**16)


@pytest.mark.parametrize("samples", [None, 60])
def test_relu_rates_at_another_scale(samples: int | None) -> None:
    """sAB = Δ with balanced √s A, √s B: the preconditioned step on AB is s times that on sAB."""
    sizes = {"d": 6, "k": 4, "true_rank": 2, "relative_shift": 0.1}
    problem = (
        lt.sample_relu_population(**sizes)
        if samples is None
        else lt.sample_relu(**sizes, samples=samples)
    )
    usual, other = relu_contraction(problem), relu_contraction(problem, scale=2.0)
    # Eigenvalues of a matrix of size r(d + k) = 20.
    close(other.extremes, 4 * usual.extremes, rounding(20, operations=16, condition=10))
    if samples is None:
        assert usual.extremes.flatten().tolist() == [0.5, 1.0]


def test_noise_of_several_responses_is_that_of_the_linear_model() -> None:
    """N inputs with k answers each: σ²·dof/N, whichever way they are written."""
    sizes = {"d": 6, "k": 4, "true_rank": 2, "seeds": (0,)}
    linear = lt.sample_linear(**sizes, samples=50)
    rows = lt.sample_sensing(**sizes, ensemble="multi-response", measurements=200)
    parts = [
        one_step.one_step_error(p, noise_std=0.3) - one_step.one_step_error(p)
        for p in (linear, rows)
    ]
    for part in parts:  # differences of sums of squares of Δ, at most 4, over N
        expected = 0.09 * 2 * (6 + 4 - 2) / 50
        assert float(part) == pytest.approx(expected, rel=rounding(24, operations=4, condition=10))


def test_least_counts() -> None:
    sizes = {"samples": 40, "d": 6, "k": 5, "rank": 2, "true_rank": 1, "noise_std": 0.1}
    assert noise.surplus(**sizes, draws=1) > 0
    with pytest.raises(ValueError, match="draws"):
        noise.surplus(**sizes, draws=0)
    found = relu.sublinear(0.5, damping=1e-3, rank=2, true_rank=1, t=1)
    assert found == pytest.approx(2e-3, rel=rounding(1, operations=4))
    with pytest.raises(ValueError, match="t must"):
        relu.sublinear(0.5, damping=1e-3, rank=2, true_rank=1, t=0)


def test_the_floor_of_a_pair_with_noise_in_the_labels() -> None:
    """½/N·(what no map of X explains + the singular values of its fitted part after the first)."""
    X, Y = normal(30, 5), normal(30, 4, seed=1)
    problem = lt.LinearProblem.from_data(X, labels=Y)
    fitted = X @ torch.linalg.lstsq(X, Y).solution
    tail = torch.linalg.svdvals(fitted)[1:]
    expected = ((Y - fitted).square().sum() + tail.square().sum()) / 60
    found = predict.pair_floor(problem, rank=1)
    close(found, expected.expand(found.shape), rounding(30, operations=16))


def test_a_column_of_rounding_spans_nothing() -> None:
    """min over R of ½‖ARB − Δ‖² with a third column of A of size 8 eps: as with two columns."""
    problem = lt.LinearProblem.population(shift=normal(30, 4))
    eps = torch.finfo(torch.float64).eps
    frame = torch.linalg.qr(normal(30, 3, seed=1)).Q
    A, B = frame * torch.tensor([1.0, 1.0, 8 * eps]).double(), normal(3, 4, seed=2)
    rows, columns = torch.linalg.qr(B.mT).Q, frame[:, :2]
    shift = problem.shift.dense()
    fitted = columns @ columns.mT @ shift @ rows @ rows.mT
    expected = 0.5 * (shift - fitted).square().sum()
    close(floors._core_floor(problem, A, B), expected, rounding(30, operations=16))


# --- statuses of runs


def ending(*losses: float, minibatches: bool = False) -> Outcome:
    """Of one run, from its first loss and its last ones."""
    column = torch.tensor(losses, dtype=torch.float64)[:, None]
    never, scale = torch.full((1,), endings.NEVER), torch.ones(1, dtype=torch.float64)
    status = endings.judge(never, column, scale, None, len(losses), minibatches=minibatches)
    return status[0].outcome


def test_a_swing_whose_peaks_grow_is_no_oscillation() -> None:
    """The peaks of the last three steps against twice those of the four before them."""
    assert ending(1, 200, 100, 300, 200, 500, 400, 599) is Outcome.OSCILLATING
    assert ending(1, 200, 100, 300, 200, 800, 600, 601) is Outcome.GROWING
    assert ending(1, 0.2, 0.1, 0.3, 0.2, 0.9, 0.6, 0.7) is Outcome.COMPLETED
    assert ending(1, 0.5) is Outcome.COMPLETED


def test_how_many_last_steps_are_looked_at() -> None:
    assert endings.count(minibatches=False) == 7
    assert endings.count(minibatches=True) == 32
    assert endings.window(0, 100).tolist() == list(range(94, 101))
    assert endings.window(0, 100, minibatches=True).tolist() == list(range(69, 101))
    assert endings.window(98, 100).tolist() == [98, 99, 100]


def test_a_record_at_its_level_at_the_only_time() -> None:
    with pytest.raises(ValueError, match="level of until must be"):
        lt.Until("loss", 0.0)
    values = torch.tensor([[0.2, 0.9]])
    assert lt.Until("loss", 0.5).first(values).tolist() == [0, -1]
    assert lt.Until("loss", 0.5, relative=True).first(values).tolist() == [-1, -1]
    assert lt.Until("loss", 1.0, relative=True).first(values).tolist() == [0, 0]


def test_factors_kept_by_one_part_of_a_run_alone() -> None:
    kept = Factors(normal(2, 4, 1), normal(2, 1, 3, seed=1))
    assert _both(None, None) is None
    assert _both(kept, None) is kept
    assert _both(None, kept) is kept
    joined = _both(kept, kept)
    assert joined is not None
    assert torch.equal(joined.A, kept.A.repeat(2, 1, 1))


# --- claims


def test_seeds_are_48_bits_of_a_hash() -> None:
    found = Draws(20, seed=3).seeds(block="b")
    for i, seed in enumerate(found):
        digest = hashlib.blake2b(f"3/b/{i}".encode(), digest_size=16).digest()
        assert seed == sum(byte << 8 * place for place, byte in enumerate(digest[:6]))
    assert max(found) >= 1 << 40
