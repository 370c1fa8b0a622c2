"""The strategies keep the bounds that they promise, and hypothesis stays optional."""

import importlib
import sys

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from tolerance import rounding

import loraone_theory as lt
from loraone_theory import testing
from loraone_theory.problems.linear import covariance

# Products, a QR and an SVD of matrices of at most 10 rows.
ONCE = rounding(10, operations=4)


@given(st.data())
def test_problems_keep_their_bounds(data):
    problem = data.draw(
        testing.problems(
            batch=2,
            widths=(4, 9),
            true_ranks=(2, 3),
            condition_number=5.0,
            samples_per_dimension=(6, 8),
        )
    )
    assert problem.batch_shape == (2,)
    assert 4 <= problem.d <= 9
    assert 4 <= problem.k <= 9
    assert 2 <= problem.true_rank <= 3
    assert 6 <= problem.samples / problem.d <= 8
    values = torch.linalg.svdvals(problem.shift.dense())[:, : problem.true_rank]
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(values[:, 0], ones, rtol=ONCE, atol=0)
    assert bool((values[:, 0] / values[:, -1] <= 5.0 * (1 + 5 * ONCE)).all())


@given(testing.problems(population=True, dtype=torch.float32))
def test_population_problems_have_the_identity(problem):
    assert isinstance(problem.covariance, covariance.Identity)
    assert problem.samples is None
    assert problem.like.dtype == torch.float32


@given(testing.orthogonal(5), testing.invertible(4, condition_number=9.0))
def test_matrices_are_orthogonal_or_well_conditioned(O, Q):
    torch.testing.assert_close(O.T @ O, torch.eye(5, dtype=torch.float64), rtol=0, atol=ONCE)
    values = torch.linalg.svdvals(Q)
    assert float(values[0]) <= 3 * (1 + ONCE)
    assert float(values[-1]) >= (1 - 9 * ONCE) / 3


@given(testing.factors(7, 5, 2, size=0.1))
def test_factors_have_the_shapes_asked_for(pair):
    assert isinstance(pair, lt.Factors)
    assert (pair.A.shape, pair.B.shape) == ((7, 2), (2, 5))
    # 14 Gaussian entries of standard deviation 0.1: eight standard deviations.
    assert 0 < float(pair.A.abs().max()) < 0.8


def test_a_missing_hypothesis_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "loraone_theory.testing.strategies")
    with pytest.raises(ImportError, match=r"hypothesis is not installed: pip install"):
        importlib.import_module("loraone_theory.testing.strategies")


@given(testing.problems(samples=(1, 3), widths=(4, 8)))
def test_problems_of_few_samples(problem):
    assert problem.samples < problem.d
    testing.check_problem(problem)


@given(testing.relu_problems(batch=2, relative_shifts=(0.1, 0.3)))
def test_relu_problems_keep_their_bounds(problem):
    assert problem.batch_shape == (2,)
    assert bool((problem.relative_shift >= 0.1 * (1 - ONCE)).all())
    assert bool((problem.relative_shift <= 0.3 * (1 + ONCE)).all())


@settings(max_examples=5)
@given(testing.loss_problems())
def test_loss_problems_keep_the_contract(problem):
    testing.check_problem(problem)


SMALLEST = (1e-9, 1e-6)


@given(testing.degenerate_factors(7, 5, 3, smallest=SMALLEST))
def test_degenerate_factors_have_their_singular_values(pair):
    least, most = SMALLEST
    for M in pair:
        S = torch.linalg.svdvals(M)
        # All are off by rounding of the largest.
        assert abs(float(S[0]) - 1) < ONCE
        assert least - ONCE <= float(S[2]) <= most + ONCE


@pytest.mark.parametrize("population", [False, True])
@pytest.mark.parametrize("kind", ["problems", "relu_problems", "loss_problems"])
def test_examples_print_as_the_calls_that_make_them(kind, population):
    if kind == "loss_problems" and population:
        return pytest.skip("losses are those of samples")
    more = {} if kind == "loss_problems" else {"population": population}
    drawn = find(getattr(testing, kind)(batch=2, **more), lambda problem: True)
    names = {**vars(lt.testing.strategies), **{n: getattr(lt, n) for n in dir(lt) if "sample" in n}}
    again = eval(repr(drawn), names)
    assert repr(again) == repr(drawn)
    assert torch.equal(again.shift.A, drawn.shift.A)


def test_falsifying_examples_can_be_pasted():
    @settings(max_examples=20, database=None, print_blob=False)
    @given(testing.problems(), testing.factors(4, 3, 2))
    def false(problem, pair):
        assert False  # noqa: B011, PT015

    with pytest.raises(AssertionError) as caught:
        false()
    note = "\n".join(caught.value.__notes__)
    assert "problem=sample_linear(d=3, k=3, true_rank=1" in note
    assert "gaussian_factors(" in note


@settings(max_examples=15, deadline=None)
@given(run=testing.runs(batch=2))
def test_drawn_runs_stay_finite_and_fall(run):
    assert run.ok.all()
    assert bool((run["loss"][-1] <= run["loss"][0]).all())
    assert torch.equal(lt.rerun(run.config)["loss"], run["loss"])
