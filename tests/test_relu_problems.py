"""The ReLU problems against automatic differentiation, and against each other."""

import math

import numpy as np
import pytest
import torch
from tolerance import near, roots, rounding

import loraone_theory as lt
from loraone_theory.methods.inits import spectral
from loraone_theory.problems.relu import descent_forms
from loraone_theory.problems.relu import population as relu_population
from loraone_theory.problems.relu import problem as relu

# Two sums, over 60 samples and 7 inputs, on either side.
EMPIRICAL = {t: rounding(60 + 7, operations=2, dtype=t) for t in (torch.float64, torch.float32)}

SIZES = {"d": 7, "k": 5, "true_rank": 2, "relative_shift": 0.4, "condition_number": 3.0}
LEADING = [(), (2,), (3, 2), (4, 3, 2)]


def factors(d, k, rank, batch=(), dtype=torch.float64, size=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(*batch, d, rank, generator=g, dtype=torch.float64) * size
    B = torch.randn(*batch, rank, k, generator=g, dtype=torch.float64) * size
    return lt.Factors(A.to(dtype), B.to(dtype))


def relative(got, expected):
    return float(((got - expected).norm() / expected.norm()).max())


def differentiate(loss, shift):
    """∂ of the sum of a batch of losses, which are independent of each other."""
    leaves = [M.clone().requires_grad_() for M in shift]
    loss(*leaves).sum().backward()
    return [M.grad for M in leaves]


def population_loss(problem, weight):
    """½ E‖y − ŷ‖² from E[relu relu] = (‖v‖‖w‖/2π)(sin θ + (π − θ) cos θ), with an arc cosine."""
    target = problem.pretrained + problem.shift.dense()
    now, other = weight.norm(dim=-2), target.norm(dim=-2)
    cosine = (weight * target).sum(-2) / now / other
    theta = cosine.acos()
    moment = now * other / (2 * math.pi) * (theta.sin() + (math.pi - theta) * cosine)
    return 0.5 * (0.5 * now**2 + 0.5 * other**2 - 2 * moment).sum(-1)


def empirical_loss(problem, weight):
    miss = (problem.inputs @ weight).relu() - problem.labels
    return (miss * miss).sum((-2, -1)) / (2 * problem.samples)


@pytest.fixture
def population():
    return lt.sample_relu_population(**SIZES, seeds=(0, 1))


def empirical(dtype=torch.float64, samples=60):
    return lt.sample_relu(**SIZES, samples=samples, seeds=(0, 1), dtype=dtype)


def by_arc_cosine(problem, weight):
    """What population_loss and its slopes err by: an arc cosine and its slope lose 1/θ each.

    The loss is what ‖w‖² and ‖w̃‖² cancel to.
    """
    target = problem.pretrained + problem.shift.dense()
    angle = torch.nn.functional.cosine_similarity(weight, target, dim=-2).acos().min()
    squares = (weight.square() + target.square()).sum((-2, -1))
    left = population_loss(problem, weight)
    values = rounding(7, operations=4, condition=float((squares / left).max()))
    return rounding(7, operations=4, condition=float(angle) ** -2), values


@pytest.mark.parametrize("batch", LEADING)
@pytest.mark.parametrize("offset", [False, True])
def test_population_gradients_are_those_of_the_loss(population, batch, offset):
    problem, frozen = population, population.pretrained
    if offset:
        removed = factors(7, 5, 3, (2,), seed=5)
        problem, frozen = problem.with_offset(removed), frozen - removed.dense()
    shift = factors(7, 5, 2, batch)
    got = problem.gradients(shift)
    slopes, values = by_arc_cosine(problem, frozen + shift.dense())
    wide = shift if batch else lt.Factors(*(M.expand(2, *M.shape) for M in shift))
    expected = differentiate(lambda A, B: population_loss(problem, frozen + A @ B), wide)
    assert relative(got.A, expected[0]) <= slopes
    assert relative(got.B, expected[1]) <= slopes
    value = population_loss(problem, frozen + shift.dense())
    torch.testing.assert_close(problem.risk(shift), value, rtol=values, atol=0)
    torch.testing.assert_close(problem.loss(shift), value, rtol=values, atol=0)
    E = problem.residual(shift)
    # W + Δ + E and W_f + AB differ in rounding only.
    torch.testing.assert_close(problem.risk(shift, E), value, rtol=values, atol=0)


def test_population_gradients_agree_with_central_differences(population):
    shift, step = factors(7, 5, 2, (2,)), factors(7, 5, 2, (2,), size=1.0, seed=1)
    gradients = population.gradients(shift)
    slope = (gradients.A * step.A).sum((-2, -1)) + (gradients.B * step.B).sum((-2, -1))

    # Truncation is of order h⁴ = 2e-15 after extrapolation; rounding is that of a sum of dk over h.
    def difference(h):
        ends = [
            population.loss(lt.Factors(shift.A + s * step.A, shift.B + s * step.B)) for s in (h, -h)
        ]
        return (ends[0] - ends[1]) / (2 * h)

    h = 2e-4
    extrapolated = (4 * difference(h / 2) - difference(h)) / 3
    torch.testing.assert_close(extrapolated, slope, rtol=rounding(35, operations=4) / h, atol=0)


@pytest.mark.parametrize("dtype", list(EMPIRICAL))
@pytest.mark.parametrize("batch", LEADING)
@pytest.mark.parametrize("block", [1 << 19, 1 << 9])
def test_empirical_gradients_are_those_of_the_loss(monkeypatch, dtype, batch, block):
    """In one piece, and in blocks of a few rows."""
    monkeypatch.setattr(relu, "BLOCK_BYTES", block)
    problem = empirical(dtype)
    shift = factors(7, 5, 2, batch, dtype)
    got = problem.gradients(shift)
    wide = shift if batch else lt.Factors(*(M.expand(2, *M.shape) for M in shift))
    W = problem.pretrained
    expected = differentiate(lambda A, B: empirical_loss(problem, W + A @ B), wide)
    assert relative(got.A, expected[0]) <= EMPIRICAL[dtype]
    assert relative(got.B, expected[1]) <= EMPIRICAL[dtype]
    value = empirical_loss(problem, W + shift.dense())
    torch.testing.assert_close(problem.loss(shift), value, rtol=EMPIRICAL[dtype], atol=0)
    told, besides = problem.loss_and_gradients(shift)
    torch.testing.assert_close(told, value, rtol=EMPIRICAL[dtype], atol=0)
    assert torch.equal(besides.A, got.A)
    assert torch.equal(besides.B, got.B)


@pytest.mark.parametrize("make", [lambda: lt.sample_relu_population(**SIZES), empirical])
def test_the_one_step_gradient_is_minus_the_full_gradient_at_w(make):
    problem = make()
    loss = population_loss if isinstance(problem, lt.ReLUPopulation) else empirical_loss
    W = problem.pretrained.clone().requires_grad_()
    loss(problem, W).sum().backward()
    allowed = EMPIRICAL[torch.float64]
    if isinstance(problem, lt.ReLUPopulation):
        allowed, _ = by_arc_cosine(problem, W.detach())
    assert relative(problem.one_step_gradient(), -W.grad) <= allowed
    moved = problem.with_offset(factors(7, 5, 2))
    assert torch.equal(moved.one_step_gradient(), problem.one_step_gradient())


@pytest.mark.parametrize("make", [lambda: lt.sample_relu_population(**SIZES), empirical])
def test_full_fine_tuning_is_factors_with_an_identity(make):
    problem = make()
    at_W = lt.Factors(torch.zeros(7, 5).double(), torch.eye(5).double())
    gradient = problem.gradients(at_W).A
    assert relative(gradient, -problem.one_step_gradient()) <= EMPIRICAL[torch.float64]


@pytest.mark.parametrize("make", [lambda: lt.sample_relu_population(**SIZES), empirical])
def test_an_offset_cancels_the_factors_it_was_made_of(make):
    problem, start = make(), factors(7, 5, 2)
    moved = problem.with_offset(start)
    zero = lt.Factors(0 * start.A, start.B)
    for name in ("loss", "risk"):
        here, there = getattr(moved, name)(start), getattr(problem, name)(zero)
        torch.testing.assert_close(here, there, rtol=EMPIRICAL[torch.float64], atol=0)
    full = moved.gradients(start).B
    expected = -start.A.mT @ problem.one_step_gradient()
    assert relative(full, expected) <= EMPIRICAL[torch.float64]


@pytest.mark.parametrize("dtype", list(EMPIRICAL))
def test_the_population_gradient_vanishes_at_the_target(dtype):
    """Up to AB − Δ, two products of the same factors that may be summed in another order."""
    problem = lt.sample_relu_population(**SIZES, dtype=dtype)
    A, B = problem.shift.A, problem.shift.B
    at_target = problem.gradients(problem.shift)
    apart = rounding(A.shape[-1] + max(problem.d, problem.k), operations=2, dtype=dtype)
    off = apart * float(A.norm() * B.norm())
    assert float(at_target.A.norm()) <= off * float(B.norm())
    assert float(at_target.B.norm()) <= off * float(A.norm())
    assert float(problem.risk(problem.shift).max()) <= off**2


@pytest.mark.parametrize("dtype", list(EMPIRICAL))
@pytest.mark.parametrize("columns", ["gaussian", "orthonormal"])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("closeness", [1.0, 1e-3])
def test_the_thin_form_is_the_dense_one(dtype, columns, offset, closeness):
    problem = lt.sample_relu_population(
        d=96, k=80, true_rank=3, relative_shift=0.3, columns=columns, seeds=(0, 1), dtype=dtype
    )
    if offset:
        problem = problem.with_offset(factors(96, 80, 2, (2,), dtype, size=0.05, seed=3))
    noise = factors(96, 80, 4, (3, 2), dtype, size=0.1)
    A, B = noise.A.clone() * closeness, noise.B.clone()
    A[..., :3] += problem.shift.A
    B[..., :3, :] = B[..., :3, :] * closeness + problem.shift.B
    shift, batch = lt.Factors(A, B), torch.Size((3, 2))
    thin = problem._by_pieces(shift, batch, thin=True)
    dense = problem._by_pieces(shift, batch, thin=False)
    # Both round E = T − AB at the size of T and AB, so the common scale is that of the terms of
    # J Bᵀ and AᵀJ, not of their sum, which vanishes at the target.
    unit = 30 * torch.finfo(dtype).eps * problem.target.dense().norm()
    assert (thin.A - dense.A).norm() <= unit * B.norm()
    assert (thin.B - dense.B).norm() <= unit * A.norm()
    for form, gradients in ((True, thin), (False, dense)):
        seen = problem.like.new_empty(*batch, 4, problem.k)
        besides = problem._by_pieces(shift, batch, thin=form, seen=seen)
        told = problem.loss_of(seen)
        assert torch.equal(besides.A, gradients.A)
        # Between ¼‖E‖²/2 and ½‖E‖²/2, so that its root errs as E does.
        assert bool(((told.sqrt() - problem.loss(shift).sqrt()).abs() <= unit).all())
    told, besides = problem.loss_and_gradients(shift)
    assert torch.equal(besides.B, problem.gradients(shift).B)
    assert bool(((told.sqrt() - problem.loss(shift).sqrt()).abs() <= unit).all())


def test_the_thin_form_gives_way_where_it_would_cancel():
    """Columns of W inside span(Δ, A): what is outside is a difference of equal squares."""
    problem = lt.sample_relu_population(d=40, k=6, true_rank=2, relative_shift=0.3)
    W = problem.pretrained.clone()
    W[..., 0] = problem.shift.A[..., 0]
    problem = lt.ReLUPopulation(pretrained=W, shift=problem.shift)
    shift = factors(40, 6, 2, (1,))
    thin = problem._by_pieces(shift, torch.Size((1,)), thin=True)
    dense = problem._by_pieces(shift, torch.Size((1,)), thin=False)
    assert torch.equal(thin.A, dense.A)
    assert torch.equal(thin.B, dense.B)


def test_the_form_is_chosen_by_size(monkeypatch):
    problem = lt.sample_relu_population(d=96, k=80, true_rank=3, relative_shift=0.3)
    shift = factors(96, 80, 4, (1,))
    called = []
    for name in ("thin", "dense"):
        form = getattr(descent_forms, name)
        spy = lambda *a, name=name, form=form: (called.append(name), form(*a))[1]  # noqa: E731
        monkeypatch.setattr(descent_forms, name, spy)
    for least, rank, expected in ((1, 4, "thin"), (96 * 80 + 1, 4, "dense"), (1, 70, "dense")):
        monkeypatch.setattr(relu_population, "THIN_ENTRIES", least)
        called.clear()
        problem.gradients(shift if rank == 4 else factors(96, 80, rank, (1,)))
        assert called == [expected]


def test_population_is_the_limit_of_the_empirical_problem():
    """At N = 200 000 the loss is the risk up to its own sampling error of order 1/√N."""
    problem = lt.sample_relu(**SIZES, samples=200_000)
    shift = factors(7, 5, 2, (1,))
    # The variance of ‖y − ŷ‖² is at most a few times its squared mean.
    torch.testing.assert_close(
        problem.loss(shift), problem.risk(shift), rtol=10 / math.sqrt(200_000), atol=0
    )


@pytest.mark.parametrize("columns", ["gaussian", "orthonormal"])
def test_samplers_keep_what_they_promise(columns):
    sizes = {"d": 30, "k": 20, "true_rank": 3, "relative_shift": 0.2, "condition_number": 8.0}
    problem = lt.sample_relu_population(**sizes, columns=columns, seeds=(3, 4))
    W, shift = problem.pretrained, problem.shift.dense()
    # Sums of 30 squares, a product, a QR and an SVD.
    once = rounding(30, operations=4)
    torch.testing.assert_close(W.norm(dim=-2), torch.ones(2, 20).double(), rtol=once, atol=0)
    if columns == "orthonormal":
        eye = torch.eye(20).double().expand(2, 20, 20)
        torch.testing.assert_close(W.mT @ W, eye, rtol=0, atol=once)
    share = torch.full((2,), 0.2, dtype=torch.float64)
    torch.testing.assert_close(problem.relative_shift, share, rtol=once, atol=0)
    torch.testing.assert_close(shift.norm(dim=-2).amax(-1), share, rtol=once, atol=0)
    S = torch.linalg.svdvals(shift)
    kappa = torch.full((2,), 8.0).double()
    torch.testing.assert_close(S[:, 0] / S[:, 2], kappa, rtol=8.0 * once, atol=0)
    assert problem.true_rank == 3
    single = lt.sample_relu(**sizes, columns=columns, samples=50, seeds=[4], dtype="float32")
    assert torch.equal(single.pretrained[0], W[1].float())
    assert torch.equal(single.shift.B[0], problem.shift.B[1].float())
    assert single.inputs.shape == (1, 50, 30)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"relative_shift": 0.0}, ValueError, "relative_shift must be finite and > 0"),
        ({"condition_number": 0.5}, ValueError, "condition_number must be >= 1"),
        ({"columns": "orthogonal"}, ValueError, "did you mean 'orthonormal'"),
        ({"columns": "orthonormal", "k": 9}, ValueError, "orthonormal columns need k <= d"),
        ({"true_rank": 6}, ValueError, "true_rank must satisfy"),
        ({"samples": 0}, ValueError, "samples must be >= 1"),
        ({"dtype": "float16"}, TypeError, "float32 or float64"),
    ],
)
def test_samplers_refuse_bad_arguments(change, error, message):
    arguments = {**SIZES, "samples": 20} | change
    with pytest.raises(error, match=message):
        lt.sample_relu(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": np.ones((10, 4))}, ValueError, "as many rows as X has columns"),
        ({"X": np.ones((10, 3), np.float32)}, TypeError, "same dtype"),
        ({"pretrained": np.eye(4)[:3]}, ValueError, "same last two dimensions"),
        ({"shift": np.zeros((3, 3))}, ValueError, "shift must not be zero"),
        ({"X": np.full((10, 3), np.nan)}, ValueError, "X must be finite"),
        ({"X": np.ones((2, 10, 3)), "shift": np.ones((3, 3, 3))}, ValueError, "must broadcast"),
    ],
)
def test_from_data_refuses_what_does_not_fit(change, error, message):
    arguments = {"X": np.ones((10, 3)), "pretrained": np.eye(3), "shift": np.ones((3, 3))} | change
    with pytest.raises(error, match=message):
        lt.ReLUProblem.from_data(arguments.pop("X"), **arguments)


def test_from_data_takes_numpy_and_shifts_of_any_form():
    rng = np.random.default_rng(0)
    X, W, shift = (rng.standard_normal(s) for s in ((30, 6), (6, 5), (6, 5)))
    shift = np.outer(shift[:, 0], shift[0])
    dense = lt.ReLUProblem.from_data(X, pretrained=W, shift=shift)
    held = lt.Factors(*(M.clone() for M in dense.shift))
    thin = lt.ReLUProblem.from_data(X, pretrained=W, shift=held)
    assert (dense.true_rank, dense.batch_shape, dense.like.dtype) == (1, (), torch.float64)
    expected = np.maximum(X @ (W + shift), 0)
    # Inner products of length 6, of ‖x‖‖w + Δ‖ at most.
    size = np.linalg.norm(X, axis=1).max() * np.linalg.norm(W + shift, axis=0).max()
    np.testing.assert_allclose(dense.labels.numpy(), expected, **near(6, operations=2, scale=size))
    assert torch.equal(dense.labels, thin.labels)


PROBLEMS = {
    "population": lambda seeds: lt.sample_relu_population(**SIZES, seeds=seeds),
    "empirical": lambda seeds: lt.sample_relu(**SIZES, samples=40, seeds=seeds),
}


@pytest.mark.parametrize("kind", list(PROBLEMS))
@pytest.mark.parametrize("name", list(lt.METHODS))
def test_every_method_runs_and_a_batch_is_its_singles(kind, name):
    def run(seeds):
        return lt.simulate(
            PROBLEMS[kind](seeds), name, rank=2, learning_rate=[0.05, 0.1], steps=4, seeds=seeds
        )

    # Batched and single products over N + d + k round differently, four in each of four steps;
    # Adam's division by √v + 1e-8 makes that up to 1e8 times as large, relative to a step, and
    # Gram matrices of these factors 1e3 times.
    allowed = rounding(40 + 7 + 5, operations=16, condition=1e8 if "adam" in name else 1e3)
    both = run((0, 1))
    assert both["risk"].shape == both["loss"].shape == (5, 2, 2)
    assert torch.isfinite(both["risk"]).all()
    assert not both.diverged.any()
    for i in (0, 1):
        alone = run((i,))
        for record in ("loss", "risk"):
            roots(both[record][..., i : i + 1], alone[record], allowed)


def test_records_do_not_depend_on_how_they_are_cut(monkeypatch):
    def run():
        return lt.simulate(
            empirical(), "lora", rank=2, learning_rate=[0.1, 0.2, 0.3], steps=6, seeds=(0, 1)
        )

    whole = run()
    for module, name in ((relu, "BLOCK_BYTES"), (relu_population, "PIECE_BYTES")):
        monkeypatch.setattr(module, name, 600)
    cut = run()
    for record in ("loss", "risk"):
        # Six steps of two sums over N + d and the record's own, on either side.
        allowed = rounding(60 + 7, operations=4 * 7)
        torch.testing.assert_close(whole[record], cut[record], rtol=allowed, atol=0)


def test_corrected_gamma_undoes_the_shrinkage():
    problem = lt.sample_relu_population(**SIZES, seeds=(0, 1))
    product = {}
    for gamma in (2.0, None, "corrected"):
        start = spectral(gamma)(problem, 2, (0, 1))
        product[gamma] = start.trainable[0] @ start.trainable[1]
    assert torch.equal(product[2.0], product[None])
    ratio = product["corrected"] / product[2.0]
    expected = torch.full_like(ratio, 1 / (1 - 0.4 / math.pi))
    # Two products over the rank, and γ itself from norms over d.
    torch.testing.assert_close(ratio, expected, rtol=rounding(2 + 7, operations=4), atol=0)


def test_corrected_gamma_by_name_of_the_method():
    problem = lt.sample_relu_population(**SIZES, seeds=(0, 1))
    method = lt.METHODS["lora-one-preconditioned"](gamma="corrected")
    run = lt.simulate(problem, method, rank=2, learning_rate=[0.5, 0.9], steps=3)
    start = spectral("corrected")(problem, 2, (0, 1)).trainable
    assert torch.equal(run.initial.dense()[0], start[0] @ start[1])


def test_corrected_gamma_needs_a_relu_problem():
    init = spectral("corrected")
    linear = lt.sample_linear(d=6, k=5, true_rank=2, samples=40)
    with pytest.raises(ValueError, match="relative shift of a ReLU problem; got LinearProblem"):
        init(linear, 2, (0,))
    far = lt.sample_relu_population(**SIZES | {"relative_shift": 4.0})
    with pytest.raises(ValueError, match=r"relative shift .* < pi; got \["):
        init(far, 2, (0,))
    with pytest.raises(ValueError, match="did you mean 'corrected'"):
        spectral("correct")
