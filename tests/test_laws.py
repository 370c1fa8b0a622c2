"""Laws of the linear dynamics on arbitrary small problems: gauge, rotation, identities, T3.1, T3.3.

Tolerances: a run of T = 40 steps multiplies rounding by at most the growth of the linearised map,
which stays below e^{T η λ}, T η λ <= 5 here, and by the condition number, κ <= 10.
"""

import math

import pytest
import tolerance
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import loraone_theory as lt
from loraone_theory import testing
from loraone_theory.problems.linear import covariance

TOL = tolerance.rounding(12, operations=40, condition=10 * math.exp(5))
seeds = st.integers(0, 10**6)


def run(problem, method, rank, **options):
    options = {"learning_rate": 0.1, "steps": 40, "record": ("risk", "error")} | options
    return lt.simulate(problem, method, rank=rank, **options)


def close(a, b, tol=TOL):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def start(problem, rank, seed, size=0.3):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(problem.d, rank, generator=g, dtype=torch.float64)
    B = torch.randn(rank, problem.k, generator=g, dtype=torch.float64)
    return lt.Factors(size * A, size * B)


@given(testing.problems(), seeds, st.data())
def test_gauge_of_preconditioned_gd_is_every_invertible_q(problem, seed, data):
    rank = problem.true_rank
    initial, Q = start(problem, rank, seed, size=1.0), data.draw(testing.invertible(rank))
    moved = lt.Factors(initial.A @ Q, torch.linalg.solve(Q, initial.B))
    runs = [
        run(problem, "lora-one-preconditioned", rank, initial=f, steps=15) for f in (initial, moved)
    ]
    # Rounding is amplified by the inverses of the two Gram matrices.
    everything = (initial, moved, *(r.final for r in runs))
    worst = max(float(torch.linalg.cond(M).max()) ** 2 for f in everything for M in f)
    assume(worst < 1e6)
    close(runs[0].final.dense(), runs[1].final.dense(), tol=1e-12 * worst)


@given(testing.problems(), seeds, st.data())
def test_gauge_of_gd_is_orthogonal_only(problem, seed, data):
    rank = problem.true_rank
    initial = start(problem, rank, seed)
    Q = data.draw(testing.orthogonal(rank))
    moved = lt.Factors(initial.A @ Q, Q.T @ initial.B)
    reference = run(problem, "lora", rank, initial=initial)
    close(reference.final.dense(), run(problem, "lora", rank, initial=moved).final.dense())
    stretched = lt.Factors(2 * initial.A, initial.B / 2)
    other = run(problem, "lora", rank, initial=stretched).final.dense()
    assert float((other - reference.final.dense()).abs().max()) > 1e-6


def turns(name):
    method = lt.METHODS[name]()
    return method.facts.equivariant and method.is_pair


TURNING = sorted(name for name in lt.METHODS if turns(name))


@given(testing.problems(), seeds, st.sampled_from(TURNING), st.data())
def test_rotations_of_both_spaces_rotate_the_run(problem, seed, name, data):
    rank = problem.true_rank
    method = lt.methods.get(name, rank)
    initial = start(problem, rank, seed)
    O1, O2 = (data.draw(testing.orthogonal(n)) for n in (problem.d, problem.k))
    turned = lt.LinearProblem(
        covariance.Dense(O1.T @ problem.covariance.matrix @ O1),
        lt.Factors(O1.T @ problem.shift.A, problem.shift.B @ O2),
        O1.T @ problem.pretrained @ O2,
    )
    there = run(problem, method.started_at(initial), rank, reduce="never", steps=15)
    moved = lt.Factors(O1.T @ initial.A, initial.B @ O2)
    here = run(turned, method.started_at(moved), rank, reduce="never", steps=15)
    # A pseudo-inverse that drops directions does so by a threshold, where rounding may decide.
    assume(there.status[0].outcome is lt.Outcome.COMPLETED)
    close(O1.T @ there.final.dense() @ O2, here.final.dense(), tol=1e-8)
    close(there["risk"], here["risk"], tol=1e-8)


@given(testing.problems(), seeds, st.floats(0.01, 0.5))
def test_one_step_identities(problem, seed, eta):
    """E⁺ of GD and of preconditioned GD, and the balance law, as closed forms in E."""
    rank = problem.true_rank
    A, B = start(problem, rank, seed)
    Sigma, Delta = problem.covariance.matrix[0], problem.shift.dense()[0]
    E = A @ B - Delta
    M = Sigma @ E
    gd = run(problem, "lora", rank, initial=lt.Factors(A, B), steps=1, learning_rate=eta)
    expected = E - eta * (M @ B.T @ B + A @ A.T @ M) + eta**2 * M @ (A @ B).T @ M
    close(gd.final.dense()[0] - Delta, expected)

    pgd = run(problem, "p-lora", rank, initial=lt.Factors(A, B), steps=1, learning_rate=eta)
    P_A, P_B = A @ torch.linalg.pinv(A), torch.linalg.pinv(B) @ B
    expected = E - eta * (M @ P_B + P_A @ M) + eta**2 * M @ torch.linalg.pinv(A @ B) @ M
    condition = float(torch.linalg.cond(A) * torch.linalg.cond(B)) ** 2
    assume(condition < 1e8)
    size = max(float(expected.abs().max()), 1.0)
    close(pgd.final.dense()[0] - Delta, expected, tol=1e-14 * condition * size)

    grad_A, grad_B = M @ B.T, A.T @ M
    before, after = (f.A.mT @ f.A - f.B @ f.B.mT for f in (lt.Factors(A, B), gd.final))
    close(after[0], before + eta**2 * (grad_A.T @ grad_A - grad_B @ grad_B.T))


@given(testing.problems(), st.integers(0, 3), seeds)
def test_row_space_never_leaves_that_of_the_gradient(problem, extra, seed):
    """T3.1, on the unreduced dynamics."""
    rank = min(problem.true_rank + extra, problem.d, problem.k)
    record = ("right_alignment",)
    traj = run(
        problem, "lora", rank, seeds=[seed], record=record, reduce="never", init_std=0.1, steps=60
    )
    sines = traj["right_alignment"][1:, 0]
    # B_t accumulates rounding of size eps·‖B_t‖ per step; its smallest direction magnifies it.
    B = traj.final.B[0]
    spread = torch.linalg.svdvals(B)[: problem.true_rank]
    first = torch.linalg.svdvals(start_b1(problem, traj))[: problem.true_rank]
    condition = float(max(spread[0] / spread[-1], first[0] / first[-1]))
    assert float(sines.nan_to_num(0.0).max()) <= tolerance.rounding(
        20, operations=60, condition=condition
    )


def start_b1(problem, traj):
    return traj.initial.A[0].T @ problem.one_step_gradient().dense()[0]


@given(testing.problems(), st.integers(0, 3))
def test_spectral_start_is_as_close_as_the_covariance(problem, extra):
    """T3.3, first inequality: ‖A₀B₀ − Δ‖_op ≤ ε‖Δ‖_op with ε = ‖Σ̂ − I‖_op; and balance 0."""
    rank = min(problem.true_rank + extra, problem.d, problem.k)
    traj = run(problem, "lora-one", rank, steps=1)
    A, B = (f[0] for f in traj.initial)
    Delta = problem.shift.dense()[0]
    gap = torch.linalg.matrix_norm(A @ B - Delta, 2)
    bound = problem.covariance_deviation()[0] * torch.linalg.matrix_norm(Delta, 2)
    # Two SVDs and three products of matrices of the size of Δ and G, at most 40 wide.
    size = torch.linalg.matrix_norm(Delta, 2) + torch.linalg.matrix_norm(A @ B, 2)
    assert float(gap) <= float(bound) + tolerance.rounding(40, operations=5) * float(size)
    close(A @ B, problem.one_step_gradient().dense()[0], tol=1e-13)
    close(A.T @ A, B @ B.T, tol=1e-13)


@given(testing.problems(batch=3), st.sampled_from(sorted(lt.METHODS)))
def test_a_batch_equals_its_runs_one_by_one(problem, name):
    # LoRA-GA takes two disjoint sets of `rank` triplets.
    assume(name != "lora-ga" or 2 * problem.true_rank <= min(problem.d, problem.k))
    method, rank = lt.METHODS[name](), problem.true_rank
    damping = 1e-3 if method.facts.inverts else 0.0
    batch = run(problem, method, rank, seeds=(5, 6, 7), damping=damping)
    for i, seed in enumerate((5, 6, 7)):
        alone = lt.LinearProblem(
            covariance.Dense(problem.covariance.matrix[i]),
            lt.Factors(problem.shift.A[i], problem.shift.B[i]),
            problem.pretrained[i],
        )
        single = run(alone, method, rank, seeds=[seed], damping=damping)
        close(batch["risk"][:, i], single["risk"][:, 0])
        close(batch.learned_shift().dense()[i], single.learned_shift().dense()[0])


@pytest.mark.parametrize("name", sorted(lt.METHODS))
def test_same_seed_same_bits(name):
    def once():
        problem = lt.sample_linear(d=12, k=9, true_rank=2, samples=80, seeds=(3, 4))
        return run(problem, name, 3, seeds=(8, 9))

    first, second = once(), once()
    assert torch.equal(first["risk"], second["risk"])
    assert torch.equal(first.final.A, second.final.A)


def test_draws_do_not_depend_on_the_rest_of_the_batch():
    many = lt.sample_linear(d=7, k=6, true_rank=2, samples=30, seeds=(5, 1, 9))
    one = lt.sample_linear(d=7, k=6, true_rank=2, samples=30, seeds=[9])
    assert torch.equal(many.covariance.matrix[2], one.covariance.matrix[0])
    assert torch.equal(many.shift.A[2], one.shift.A[0])
    small = lt.sample_linear(d=7, k=6, true_rank=2, samples=30, seeds=[9], dtype="float32")
    assert torch.equal(small.shift.A, one.shift.A.float())
