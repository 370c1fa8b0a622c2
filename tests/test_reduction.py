"""The exact reduction: the same records and the same factors, in fewer coordinates."""

import pytest
import tolerance
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import loraone_theory as lt
from loraone_theory import testing

EQUIVARIANT = sorted(name for name, make in lt.METHODS.items() if make().facts.equivariant)
FROM_W = {"pissa", "milora", "olora", "lora-xs"}
STEPS = 40
# 40 steps of two products on either side over at most 100 samples, Gram matrices of condition 100
# and more where starts are small: they say so below.
TOL = tolerance.rounding(100, operations=4 * STEPS, condition=30)
# Their steps do not shrink with the gradient: at the solution they turn around for ever, and a
# gradient that is all rounding makes a whole step.
ORTHOGONAL = {"muon", "lora-muon", "lora-rite"}
# LoRA-RITE divides by roots of squares v. Those above ε of the largest count as directions, so
# rounding of the gradients, sums over at most 14, is magnified by up to 1/√ε where r > r*.
SLACK = {"lora-rite": tolerance.rounding(14, operations=4) / tolerance.eps() ** 0.5}


def path_before_arrival(problem, method, rank, seeds):
    """p with (‖A₀‖ + p)p = λ_min/4, how far each factor may go in the operator norm.

    Then ‖AB‖ <= λ_min/4, and by Weyl no singular value of E = AB − Δ is below ¾λ_min: the polar
    factors magnify rounding by the condition number of the gradients, as at the start. LoRA-RITE's
    moments make up to √(T·0.1/1.9) = 1.5 times the step, and leave λ_min/3 at least.
    """
    a = float(torch.linalg.matrix_norm(method.init(problem, rank, seeds).trainable[0], 2).max())
    smallest = float(torch.linalg.svdvals(problem.shift.dense())[..., problem.true_rank - 1].min())
    return (-a + (a * a + smallest) ** 0.5) / 2


def harmless_damping(problem):
    """‖J₀‖_op of Nystrom-init, A₀ = GΩ of rank r*, whose other directions hold rounding alone.

    In them AᵀA and BBᵀ are 0, so that a step is (a, b) <- (a − ηJb/λ, b − ηJᵀa/λ): at λ = ‖J₀‖
    with ‖J_t‖ <= ‖J₀‖ rounding grows by (1 + η)^T <= e^4 in all of the run.
    """
    return float(torch.linalg.matrix_norm(problem.one_step_gradient().dense(), 2).max())


def both_ways(problem, name, rank, **options):
    method = lt.METHODS[name]()
    assume("lora-ga" not in name or 2 * rank <= min(problem.d, problem.k))
    names = ("loss", "risk", "error", "left_alignment", "right_alignment", "balance")
    record = tuple(name for name in names if name != "balance" or method.is_pair)
    # Undamped pseudo-inverses decide by a threshold which directions to drop.
    damping = 1e-3 if method.facts.inverts else 0.0
    # Factors made from W are as large as it is, up to 8 here, and stable for small steps only.
    eta = 0.01 if name in FROM_W else 0.1
    if name == "nystrom":
        damping = harmless_damping(problem)
    if name in ORTHOGONAL:
        eta = path_before_arrival(problem, method, rank, options["seeds"]) / STEPS
        eta *= damping**0.5 if method.facts.inverts else 1.0  # steps of η, or of up to η/√damping
    options = {"learning_rate": eta, "steps": STEPS, "record": record, "damping": damping} | options
    return (
        lt.simulate(problem, method, rank=rank, reduce=how, **options) for how in ("auto", "never")
    )


def agree(small, full, problem, name):
    allowed = SLACK.get(name, TOL)
    for record in small.records:
        a, b = small[record], full[record]
        if record in ("left_alignment", "right_alignment"):
            # LoRA-GA starts from equal singular values, so its top r* < r are ill-conditioned.
            if name.startswith("lora-ga") and small.final.rank > problem.true_rank:
                continue
            # LoRA-XS starts from a core of size 1e-5 whose small singular values set its subspace.
            if name == "lora-xs":
                continue
            # Defined wherever the factor has full rank to rounding; at t = 0 it may not.
            assert bool((a.isnan() == b.isnan())[1:].all())
            a, b = a.nan_to_num(0.0), b.nan_to_num(0.0)
            # A sine moves by the rounding of the factor over its gap at r*.
            assert float((a - b).abs()[1:].max()) < 100 * allowed
        else:
            torch.testing.assert_close(a, b, rtol=allowed, atol=allowed)
    torch.testing.assert_close(
        small.learned_shift().dense(), full.learned_shift().dense(), rtol=allowed, atol=allowed
    )


def examples(name):
    """Few: each is 40 steps of a batch of two, both ways; those of a flow take as long as many."""
    return settings(max_examples=4 if "flow" in name else 10)


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_reduced_equals_full(name):
    @examples(name)
    @given(problem=testing.problems(batch=2), extra=st.integers(0, 2))
    def agrees(problem, extra):
        rank = min(problem.true_rank + extra, problem.d, problem.k)
        small, full = both_ways(problem, name, rank, seeds=(3, 4))
        agree(small, full, problem, name)

    agrees()


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_population_reduces_on_both_sides(name):
    @examples(name)
    @given(problem=testing.problems(batch=2, population=True))
    def agrees(problem):
        small, full = both_ways(problem, name, problem.true_rank, seeds=(3, 4))
        agree(small, full, problem, name)

    agrees()


@given(testing.problems(), st.integers(1, 4), st.integers(0, 10**6))
def test_given_factors_and_the_way_back(problem, rank, seed):
    rank = min(rank, problem.d, problem.k)
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(problem.d, rank, generator=g, dtype=torch.float64)
    B = torch.randn(rank, problem.k, generator=g, dtype=torch.float64)
    reduction = lt.reduce(problem, lt.Factors(A, B))
    assert reduction.problem.k <= min(problem.k, problem.true_rank + rank)
    back = reduction.lift(reduction.initial)
    # Products with orthogonal matrices there and back, which the least squares of values follow.
    unit = tolerance.rounding(max(problem.d, problem.k), operations=10)
    tolerance.close(back.A[0], A, unit)
    tolerance.close(back.B.expand(1, rank, -1)[0], B, unit)
    size = (A.norm() * B.norm() + problem.shift.dense().norm()) ** 2
    spread = {"loss": float(problem.covariance_spectrum()[..., 1].max()), "risk": 1.0}
    for value, stretch in spread.items():
        small = getattr(reduction.problem, value)(reduction.initial)
        full = getattr(problem, value)(lt.Factors(A, B))
        assert ((small - full).abs() <= unit * stretch * size).all()


def test_widths_are_those_of_the_theory():
    problem = lt.sample_linear(d=60, k=50, true_rank=3, samples=500, seeds=(0, 1))
    lora = lt.methods.lora().init(problem, 5, (0, 1))
    assert lt.reduce(problem, lt.Factors(*lora.trainable)).problem.k == 3
    spectral = lt.methods.lora_one().init(problem, 5, (0, 1))
    assert lt.reduce(problem, lt.Factors(*spectral.trainable)).problem.k == 3
    ga = lt.methods.lora_ga().init(problem, 5, (0, 1))
    offset = problem.with_offset(ga.offset)
    assert lt.reduce(offset, lt.Factors(*ga.trainable)).problem.k == 3 + 5
    population = lt.LinearProblem.population(shift=problem.shift)
    assert lt.reduce(population, lt.Factors(*lora.trainable)).problem.d == 3 + 5
    assert lt.reduce(population).problem.covariance.batch_shape == torch.Size()


def test_population_cost_does_not_depend_on_the_width():
    shift = lt.sample_linear_matrix_free(d=20_000, k=20_000, true_rank=2, samples=20_000).shift
    wide = lt.LinearProblem.population(shift=shift)
    run = lt.simulate(wide, "lora", rank=4, learning_rate=0.3, steps=300, record=("risk",))
    assert run.final.B.shape == (1, 4, 20_000)
    # What is left of E is the rounding of inner products of 20,000 numbers.
    rounding = tolerance.rounding(20_000) * 2**0.5  # ‖Δ‖_F
    assert float(run["risk"][-1, 0]) <= 0.5 * rounding**2


def test_large_problems_work_through_row_blocks(monkeypatch):
    """Blocked gradients equal unblocked ones, where the covariance allows blocks and where not."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    for problem in (
        lt.sample_linear_matrix_free(d=700, k=3, true_rank=3, samples=1400),
        lt.reduce(lt.sample_linear(d=700, k=9, true_rank=3, samples=1400)).problem,
        lt.LinearProblem.population(shift=normal(700, 3)),
        lt.sample_linear(d=300, k=3, true_rank=3, samples=600),  # dense: in one piece all the same
    ):
        shift = lt.Factors(normal(1, problem.d, 4), normal(1, 4, 3))
        monkeypatch.setattr("loraone_theory.problems.linear.problem.BLOCK_BYTES", 1 << 30)
        whole = problem.gradients(shift)
        monkeypatch.setattr("loraone_theory.problems.linear.problem.BLOCK_BYTES", 1 << 12)
        blocked = problem.gradients(shift)
        A, B = (part.norm() for part in shift)
        size = float(problem.covariance_spectrum()[..., 1].max()) * (
            A * B + problem.shift.A.norm() * problem.shift.B.norm()
        )
        unit = tolerance.rounding(problem.d, operations=4)  # Σ̂, AB and two products with factors
        for a, b, other in zip(whole, blocked, (B, A), strict=True):
            assert (a - b).norm() <= unit * size * other
