"""The strategies keep the bounds that they promise, and hypothesis stays optional."""

import importlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import loraone_theory as lt
from loraone_theory import testing
from loraone_theory.problems.linear import covariance


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
    torch.testing.assert_close(values[:, 0], torch.ones(2, dtype=torch.float64))
    assert bool((values[:, 0] / values[:, -1] <= 5.0 * (1 + 1e-12)).all())


@given(testing.problems(population=True, dtype=torch.float32))
def test_population_problems_have_the_identity(problem):
    assert isinstance(problem.covariance, covariance.Identity)
    assert problem.samples is None
    assert problem.like.dtype == torch.float32


@given(testing.orthogonal(5), testing.invertible(4, condition_number=9.0))
def test_matrices_are_orthogonal_or_well_conditioned(O, Q):
    torch.testing.assert_close(O.T @ O, torch.eye(5, dtype=torch.float64))
    values = torch.linalg.svdvals(Q)
    assert float(values[0]) <= 3 * (1 + 1e-12)
    assert float(values[-1]) >= (1 - 1e-12) / 3


@given(testing.factors(7, 5, 2, size=0.1))
def test_factors_have_the_shapes_asked_for(pair):
    assert isinstance(pair, lt.Factors)
    assert (pair.A.shape, pair.B.shape) == ((7, 2), (2, 5))
    # 14 Gaussian entries of standard deviation 0.1: eight standard deviations.
    assert 0 < float(pair.A.abs().max()) < 0.8


def test_the_package_does_not_import_hypothesis():
    code = "import sys, loraone_theory; print('hypothesis' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_missing_hypothesis_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "loraone_theory.testing.strategies")
    with pytest.raises(ImportError, match=r"hypothesis is not installed; run: pip install"):
        importlib.import_module("loraone_theory.testing.strategies")
