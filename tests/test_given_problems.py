"""What problems do with what they are given: copies, sizes that arithmetic holds, odd shapes."""

import json

import numpy as np
import pytest
import torch
from tolerance import near

import loraone_theory as lt
from loraone_theory.problems import recipes
from loraone_theory.problems.linear.covariance import Dense, Rows

F64 = torch.float64


def draws(N=12, d=4, k=3, seed=0):
    rng = np.random.default_rng(seed)
    X, W = rng.standard_normal((N, d)), rng.standard_normal((d, k))
    A, B = rng.standard_normal((d, 1)), rng.standard_normal((1, k))
    found = {"X": X, "W": W, "A": A, "B": B, "shift": A @ B, "T": rng.standard_normal((6, d))}
    return found | {"S": X.T @ X / N, "v": np.diag(X.T @ X / N).copy(), "y": X[:9, 0].copy()}


def torch_factors(given):
    return lt.Factors(torch.from_numpy(given["A"]), torch.from_numpy(given["B"]))


def mean_square(W, X, Y):
    return 0.5 * (torch.tanh(X @ W) - Y).square().sum(-1).mean()


def measurement():
    return lt.operators.Dense(torch.from_numpy(np.random.default_rng(8).standard_normal((9, 4, 3))))


# Every public constructor that takes arrays.
MAKERS = {
    "linear, dense shift": lambda g: lt.LinearProblem.from_data(
        g["X"], shift=g["shift"], pretrained=g["W"], keep=True, held_out=g["T"]
    ),
    "linear, factors": lambda g: lt.LinearProblem.from_data(
        torch.from_numpy(g["X"]), shift=torch_factors(g), pretrained=torch.from_numpy(g["W"])
    ),
    "linear population": lambda g: lt.LinearProblem.population(
        shift=torch_factors(g), pretrained=g["W"]
    ),
    "relu": lambda g: lt.ReLUProblem.from_data(
        g["X"], pretrained=g["W"], shift=torch_factors(g), held_out=g["T"]
    ),
    "relu population": lambda g: lt.ReLUPopulation(
        pretrained=torch.from_numpy(g["W"]), shift=torch_factors(g)
    ),
    "loss": lambda g: lt.from_loss(
        mean_square,
        d=4,
        k=3,
        pretrained=torch.from_numpy(g["W"]),
        shift=torch_factors(g),
        data=(torch.from_numpy(g["X"]), g["X"] @ g["W"]),
        held_out=(g["T"], g["T"] @ g["W"]),
    ),
    "linear population, covariance": lambda g: lt.LinearProblem.population(
        shift=torch_factors(g), pretrained=g["W"], covariance=g["S"]
    ),
    "linear population, variances": lambda g: lt.LinearProblem.population(
        shift=torch_factors(g), pretrained=g["W"], covariance=torch.from_numpy(g["v"])
    ),
    "sensing": lambda g: lt.SensingProblem.from_data(
        measurement(), g["y"], shift=torch_factors(g), pretrained=torch.from_numpy(g["W"])
    ),
}  # fmt: skip


def everything(problem):
    """Numbers that depend on all that a problem holds."""
    rng = np.random.default_rng(7)
    at = lt.Factors(*(torch.from_numpy(rng.standard_normal(s)) for s in ((4, 2), (2, 3))))
    G = problem.one_step_gradient()
    found = [problem.loss(at), *problem.gradients(at), problem.residual(at)]
    found += [G.dense() if isinstance(G, lt.Factors) else G, problem.pretrained]
    if isinstance(problem, lt.LinearProblem | lt.ReLUProblem | lt.LossProblem):
        found += [] if problem.test_loss is None else [problem.test_loss(at)]
    return [torch.as_tensor(value).clone() for value in found]


@pytest.mark.parametrize("name", MAKERS)
def test_later_changes_to_the_arrays_are_seen_nowhere(name):
    given = draws()
    problem = MAKERS[name](given)
    fresh = everything(MAKERS[name](draws()))
    for array in given.values():
        array[...] = -3.0
    for found, expected in zip(everything(problem), fresh, strict=True):
        assert torch.equal(found, expected)


def test_given_initial_factors_are_copied():
    problem = MAKERS["linear, factors"](draws())
    initial = lt.Factors(torch.full((4, 2), 0.1, dtype=F64), torch.full((2, 3), 0.2, dtype=F64))
    run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=2, initial=initial)
    initial.A.zero_()
    initial.B.zero_()
    assert torch.equal(run.initial.A[0], torch.full((4, 2), 0.1, dtype=F64))
    assert torch.equal(run.initial.B[0], torch.full((2, 3), 0.2, dtype=F64))


def linear(scale=1.0, dtype=np.float64, **more):
    given = draws()
    return lt.LinearProblem.from_data(
        (scale * given["X"]).astype(dtype), shift=given["shift"].astype(dtype), **more
    )


def relu(scale=1.0):
    given = draws()
    return lt.ReLUProblem.from_data(scale * given["X"], pretrained=given["W"], shift=given["shift"])


def population(scale):
    return lt.LinearProblem.population(shift=scale * draws()["shift"])


SIZES = {"d": 6, "k": 5, "true_rank": 2}
ILL = {
    "large inputs": (
        lambda: linear(1e200), r"X must be of a size whose square float64 can hold.*e\+200"
    ),
    "small inputs": (lambda: linear(1e-200), r"X must be of a size.*got .*e-200; rescale X"),
    "zero inputs": (lambda: linear(0.0), r"X must be of a size.*got 0; rescale X"),
    "float32 inputs": (lambda: linear(1e30, np.float32), r"square float32 can hold.*e\+30"),
    "relu inputs": (lambda: relu(1e200), r"X must be of a size.*e\+200"),
    "held-out inputs": (
        lambda: linear(held_out=1e200 * draws()["T"]), r"held_out must be of a size"
    ),
    "large shift": (lambda: population(1e200), r"shift must be of a size.*singular value"),
    "small shift": (lambda: population(1e-200), r"shift must be of a size"),
    "spectrum that vanishes": (
        lambda: lt.sample_linear(**SIZES, samples=20, spectrum=[1.0, 1e-50], dtype="float32"),
        r"spectrum must keep the smallest singular value above.*7.2e-07.*got 0 of 1 with d=6",
    ),
    "kappa beyond rounding": (
        lambda: lt.sample_linear(**SIZES, samples=20, condition_number=1e20),
        r"condition_number must keep the smallest.*got 1e-20 of 1 with d=6, k=5",
    ),
    "kappa, matrix-free": (
        lambda: lt.sample_linear_matrix_free(**SIZES, samples=20, condition_number=1e20),
        r"condition_number must keep the smallest",
    ),
    "kappa, relu": (
        lambda: lt.sample_relu(**SIZES, samples=20, relative_shift=0.1, condition_number=1e20),
        r"condition_number must keep the smallest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ILL)
def test_sizes_that_arithmetic_cannot_hold_are_refused(case):
    call, message = ILL[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_sizes_within_the_bounds_are_right():
    """At the edge of what is accepted, the loss still has every digit."""
    given = draws()
    for scale in (1e70, 1e-70):
        problem = lt.LinearProblem.from_data(scale * given["X"], shift=given["shift"])
        zero = lt.Factors(torch.zeros(4, 1, dtype=F64), torch.zeros(1, 3, dtype=F64))
        expected = 0.5 * np.sum((given["X"] @ given["shift"]) ** 2) / 12
        found = float(problem.loss(zero)) / scale / scale
        assert abs(found / expected - 1) < 12 * 4 * np.finfo(float).eps * 10


def test_the_relative_shift_of_a_zero_column():
    given = draws()
    given["W"][:, 1] = 0.0
    problem = lt.ReLUPopulation(pretrained=given["W"], shift=given["shift"])
    with pytest.raises(ValueError, match=r"got \|w_m\| = 0 for m = \[1\]"):
        _ = problem.relative_shift


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("N", [1, 2, 3])
@pytest.mark.parametrize("maker", [lt.sample_linear, lt.sample_relu, lt.sample_linear_matrix_free])
def test_sides_of_one_and_few_samples(maker, d, k, N):
    if maker is lt.sample_linear_matrix_free and N < d:
        pytest.skip("exact-law sampling needs samples >= d")
    more = {"relative_shift": 0.1} if maker is lt.sample_relu else {}
    problem = maker(d=d, k=k, true_rank=1, samples=N, seeds=(0, 1), **more)
    if isinstance(problem, lt.LinearProblem):
        ends, whole = problem.covariance_spectrum(), problem.covariance_spectrum("all")
        assert (ends.shape, whole.shape) == ((2, 2), (2, d))
        # Eigenvalues of d x d matrices, to rounding of the largest.
        once = near(d + N, operations=2, scale=float(whole.max()))
        torch.testing.assert_close(ends, whole[:, [0, -1]], **once)
    # With so few neurons and samples all may be inactive, and G = 0.
    name = "lora" if maker is lt.sample_relu else "lora-one"
    for reduce in ("auto", "never"):
        run = lt.simulate(problem, name, rank=1, learning_rate=0.1, steps=3, reduce=reduce)
        E = problem.residual(run.learned_shift())
        # The residual twice, in two sets of coordinates, and its square.
        again, size = problem.risk(run.learned_shift()), float(run["risk"][0].max())
        once = near(d + k, operations=4, scale=size)
        torch.testing.assert_close(run["risk"][-1], again, **once)
        assert E.shape == (2, d, k)


def test_the_identity_has_two_ends_at_width_one():
    problem = lt.LinearProblem.population(shift=np.ones((1, 3)))
    assert torch.equal(problem.covariance_spectrum(), torch.ones(2, dtype=F64))


def test_rows_are_their_dense_covariance():
    X = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 5)))
    M = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 2)))
    thin, dense = Rows(X), Dense(X.mT @ X / 3)
    top = float(dense.spectrum("all").max())
    # Two products, over 3 rows and 5 columns, on vectors of this size.
    once = near(3 + 5, operations=2, scale=top * float(M.norm()))
    torch.testing.assert_close(thin.apply(M), dense.apply(M), **once)
    torch.testing.assert_close(thin.half_transposed(thin.half(M)), dense.apply(M), **once)
    by_value = near(3 + 5, operations=2, scale=top)
    for which in ("all", "extremes"):
        torch.testing.assert_close(thin.spectrum(which), dense.spectrum(which), **by_value)
    some = thin.rows(1, 3).apply(M[1:3]), dense.rows(1, 3).apply(M[1:3])
    torch.testing.assert_close(*some, **once)


RECIPES = {
    "linear_population": {"samples": 9},
    "sample_linear": {"samples": 9, "keep_inputs": True, "spectrum": np.array([2.0, 1.0])},
    "sample_linear_matrix_free": {"samples": 9, "condition_number": 3},
    "sample_relu": {"samples": 9, "relative_shift": 0.1, "dtype": torch.float32},
    "sample_relu_population": {"relative_shift": 0.1, "columns": "orthonormal"},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_draws_the_same_again(name):
    drawn = recipes.RECIPES[name](**SIZES, **RECIPES[name], seeds=range(3, 5))
    again = recipes.rebuild(json.loads(json.dumps(drawn.recipe)))
    assert drawn.recipe == again.recipe
    at = lt.Factors(
        torch.ones(6, 1, dtype=drawn.like.dtype), torch.ones(1, 5, dtype=drawn.like.dtype)
    )
    assert torch.equal(drawn.loss(at), again.loss(at))


ARRAYS = {
    "diagonal": np.linspace(0.5, 2, 6),
    "full": torch.diag(torch.linspace(0.5, 2, 6, dtype=torch.float64)),
    "in float32": torch.linspace(0.5, 2, 6),
}


@pytest.mark.parametrize("sampler", ["sample_linear", "linear_population"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_a_recipe_with_arrays_draws_the_same_again(kind, dtype, sampler, tmp_path):
    drawn = recipes.RECIPES[sampler](**SIZES, samples=9, covariance=ARRAYS[kind], dtype=dtype)
    again = recipes.rebuild(json.loads(json.dumps(drawn.recipe)))
    assert drawn.recipe == again.recipe
    run = lt.simulate(drawn, "lora-one", rank=1, learning_rate=0.1, steps=4)
    assert torch.equal(lt.rerun(json.loads(json.dumps(dict(run.config))))["loss"], run["loss"])
    lt.simulate(drawn, "lora-one", rank=1, learning_rate=0.1, steps=2).save(tmp_path / "run.npz")
    longer = lt.Trajectory.load(tmp_path / "run.npz").extend(2)
    assert torch.equal(longer["loss"], run["loss"])


def test_a_recipe_with_a_table_is_that_of_its_numbers():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    given = {"samples": 9, **SIZES}
    table = lt.sample_linear(**given, covariance=pandas.Series(ARRAYS["diagonal"]))
    assert table.recipe == lt.sample_linear(**given, covariance=ARRAYS["diagonal"]).recipe


def test_a_recipe_with_a_function_asks_for_the_problem():
    drawn = lt.sample_linear(**SIZES, samples=9, inputs=lambda rng, N, d: rng.normal(size=(N, d)))
    run = lt.simulate(drawn, "lora-one", rank=1, learning_rate=0.1, steps=2)
    with pytest.raises(ValueError, match=r"a function of the user's own.*; hand the problem in"):
        lt.rerun(run.config)
    assert torch.equal(lt.rerun(run.config, problem=drawn)["loss"], run["loss"])
