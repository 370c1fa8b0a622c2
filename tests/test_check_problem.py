"""check_problem passes every problem of the library and catches one that breaks each promise."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

import loraone_theory as lt
from loraone_theory.dynamics import provenance
from loraone_theory.problems import recipes
from loraone_theory.testing import ContractError, check_problem

SIZES = {"d": 6, "k": 5, "true_rank": 2}
RNG = np.random.default_rng(0)
X, W = (torch.from_numpy(RNG.standard_normal(shape)) for shape in ((40, 6), (6, 5)))
SHIFT = torch.from_numpy(RNG.standard_normal((6, 2)) @ RNG.standard_normal((2, 5))) / 5


def squares(W, X, Y):
    return 0.5 * (functional.gelu(X @ W) - Y).square().sum(-1).mean()


def gelu(**more):
    Y = functional.gelu(X @ (W + SHIFT))
    return lt.from_loss(squares, d=6, k=5, pretrained=W, shift=SHIFT, data=(X, Y), **more)


def entropy():
    classes = torch.from_numpy(np.random.default_rng(1).integers(5, size=40))
    loss = lambda W, X, c: functional.cross_entropy(X @ W, c)  # noqa: E731
    return lt.from_loss(loss, d=6, k=5, data=(X, classes))


GOOD = {
    "linear": lambda: lt.sample_linear(**SIZES, samples=40, keep_inputs=True, seeds=(0, 1)),
    "linear, float32": lambda: lt.sample_linear(**SIZES, samples=40, dtype="float32"),
    "linear, few samples": lambda: lt.sample_linear(**SIZES, samples=3, keep_inputs=True),
    "linear population": lambda: lt.LinearProblem.population(shift=SHIFT, pretrained=W),
    "linear, tridiagonal": lambda: lt.sample_linear_matrix_free(**SIZES, samples=40),
    "linear, held out": lambda: lt.LinearProblem.from_data(X, shift=SHIFT, keep=True, split=0.2),
    "linear, minibatch": lambda: gather(lt.sample_linear(**SIZES, samples=9, keep_inputs=True)),
    "linear, reduced": lambda: lt.reduce(lt.sample_linear(**SIZES, samples=40)).problem,
    "one by one": lambda: lt.sample_linear(d=1, k=1, true_rank=1, samples=1, keep_inputs=True),
    "relu": lambda: lt.sample_relu(**SIZES, samples=40, relative_shift=0.2, seeds=(0, 1)),
    "relu, held out": lambda: lt.ReLUProblem.from_data(X, pretrained=W, shift=SHIFT, split=0.2),
    "relu population": lambda: lt.sample_relu_population(**SIZES, relative_shift=0.2),
    "gelu": gelu,
    "gelu, held out": lambda: gelu(split=0.25),
    "cross-entropy": entropy,
    "completion": lambda: lt.sample_sensing(
        ensemble="completion", **SIZES, measurements=20, replace=False, seeds=(0, 1)
    ),
    "dense sensing": lambda: lt.sample_sensing(ensemble="dense", **SIZES, measurements=80),
}  # fmt: skip


def gather(problem):
    return problem.batch(torch.tensor([[0, 3, 3, 7]]))


@pytest.mark.parametrize("name", GOOD)
def test_problems_of_the_library_pass(name):
    check_problem(GOOD[name]())


class Broken:
    """A duck-typed problem that passes, to be broken by subclasses."""

    def __init__(self):
        self.inner = lt.sample_linear(**SIZES, samples=40, seeds=(0, 1))

    d, k = 6, 5
    batch_shape = torch.Size([2])

    @property
    def like(self):
        return self.inner.like

    def loss(self, shift):
        return self.inner.loss(shift)

    def gradients(self, shift):
        return self.inner.gradients(shift)

    def one_step_gradient(self):
        return self.inner.one_step_gradient()

    def with_offset(self, offset):
        new = type(self)()
        new.inner = self.inner.with_offset(offset)
        return new


def test_the_unbroken_one_passes():
    check_problem(Broken())


class Twice(Broken):
    def gradients(self, shift):
        return lt.Factors(*(2 * g for g in super().gradients(shift)))


class Exchanged(Broken):
    def gradients(self, shift):
        g = super().gradients(shift)
        return lt.Factors(g.A, -g.B)


class Writes(Broken):
    def loss(self, shift):
        value = super().loss(shift)
        shift.A.mul_(0.5)
        return value


class Draws(Broken):
    def gradients(self, shift):
        torch.rand(1)
        return super().gradients(shift)


class Noisy(Broken):
    count = 0

    def loss(self, shift):
        type(self).count += 1
        return super().loss(shift) + 1e-3 * type(self).count


class Averages(Broken):
    def loss(self, shift):
        return super().loss(shift).mean()


class Pooled(Broken):
    def gradients(self, shift):
        g = super().gradients(shift)
        if g.A.ndim <= 3:
            return g
        return lt.Factors(*(t.mean(0, keepdim=True).expand(t.shape) for t in g))


class Rounds(Broken):
    def loss(self, shift):
        return super().loss(shift).float()


class Uphill(Broken):
    def one_step_gradient(self):
        G = super().one_step_gradient()
        return lt.Factors(-G.A, G.B)


class Forgets(Broken):
    def with_offset(self, offset):
        return type(self)()


class Adds(Broken):
    def with_offset(self, offset):
        return super().with_offset(lt.Factors(-offset.A, offset.B))


class Moves(Broken):
    """G at W_f instead of W."""

    def one_step_gradient(self):
        zero = lt.Factors(torch.eye(6).double().expand(2, 6, 6), torch.zeros(2, 6, 5).double())
        return -self.inner.gradients(zero).B


class Believes(Broken):
    true_rank = 3

    @property
    def shift(self):
        return self.inner.shift


class Backwards(Broken):
    true_rank = 2

    @property
    def shift(self):
        return self.inner.shift

    def residual(self, shift):
        return -self.inner.residual(shift)


class Graph(Broken):
    def loss(self, shift):
        return super().loss(shift) + torch.zeros(2, dtype=torch.float64, requires_grad=True)


class Sums(Broken):
    """A batch that is summed, not averaged."""

    samples = 40

    def batch(self, indices):
        part = lt.sample_linear(**SIZES, samples=40, seeds=(0, 1), keep_inputs=True).batch(indices)
        sums = Broken()
        sums.loss = lambda shift: indices.shape[-1] * part.loss(shift)
        return sums


class OneAxis(Broken):
    """Products that take one leading axis besides the instances' and no other number of them."""

    def loss(self, shift):
        if shift.A.ndim > 4:
            raise RuntimeError("batch1 must be a 3D tensor")
        return super().loss(shift)


class FirstAxis(Broken):
    """Of a second leading axis, the first entry stands for all."""

    def gradients(self, shift):
        g = super().gradients(shift)
        return g if g.A.ndim <= 4 else lt.Factors(g.A[:, :1].expand(g.A.shape), g.B)


class Wide(Broken):
    """A factor that all runs share is taken for that of another run."""

    def loss(self, shift):
        return super().loss(shift) * (2.0 if shift.A.ndim != shift.B.ndim else 1.0)


class Held(Broken):
    """Held-out rows of a problem whose frozen part stays W."""

    def test_loss(self, shift):
        return lt.sample_linear(**SIZES, samples=9, seeds=(2, 3)).loss(shift)


class Unrisked(Broken):
    def risk(self, shift):
        return torch.linalg.matrix_norm(shift.dense() - self.inner.shift.dense()) ** 2 / 2


class Seeds(Broken):
    def loss(self, shift):
        np.random.seed(0)  # noqa: NPY002
        return super().loss(shift)


class Stale(Broken):
    """Fresh rows that are the same at every step."""

    def fresh(self, step, size, seeds):
        return lt.LinearProblem.population(shift=SHIFT).fresh(0, size, seeds)


BROKEN = {
    Twice: "grad_A must be the derivative of the loss",
    Exchanged: "grad_B must be the derivative of the loss",
    Writes: "must not be written to",
    Draws: "global generator",
    Noisy: "must give the same loss",
    Averages: r"loss must be \(2,\); got \(\)",
    Pooled: "grad_A of runs along a leading axis",
    Rounds: "loss must be torch.float64",
    Uphill: "minus the gradient of the loss at W",
    Forgets: "must have the frozen part W - F",
    Adds: "must have the frozen part W - F",
    Moves: "that at W, whatever the offset",
    Believes: "true_rank must be the rank of shift",
    Backwards: "residual must be learned - shift",
    Graph: "must be plain tensors",
    Stale: "other steps and other seeds",
    Sums: "must average to the loss",
    OneAxis: "must take factors with 2 leading axes; they raised RuntimeError",
    FirstAxis: "grad_A of runs along a leading axis",
    Wide: "loss must not depend on whether a factor that runs share",
    Held: "test_loss of with_offset",
    Unrisked: "risk of with_offset",
    Seeds: "leave torch's global generator alone, and numpy's",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda c: c.__name__)
def test_each_broken_promise_is_caught(broken):
    with pytest.raises(ContractError, match=BROKEN[broken]):
        check_problem(broken())


def test_what_is_missing_is_named():
    @dataclasses.dataclass
    class Nothing:
        d: int = 3

    with pytest.raises(ContractError, match="a problem needs 'k'; Nothing has none"):
        check_problem(Nothing())


@pytest.mark.parametrize("name", GOOD)
def test_a_problem_prints_as_one_line(name):
    problem = GOOD[name]()
    assert len(repr(problem)) < 160
    assert "\n" not in repr(problem)
    assert problem._repr_html_().startswith("<table>")


@pytest.mark.parametrize(
    "name", ["linear", "linear, float32", "linear, tridiagonal", "relu", "completion"]
)
def test_a_drawn_problem_prints_as_the_call_that_draws_it(name):
    problem = GOOD[name]()
    again = eval(f"lt.{problem!r}", {"lt": lt})
    assert torch.equal(again.shift.A, problem.shift.A)
    assert again.recipe == problem.recipe


REQUIRED = {
    "d": 12, "k": 10, "true_rank": 2, "samples": 200, "measurements": 200, "relative_shift": 0.25,
    "ensemble": "dense", "noise_std": 0.1, "steps": 2, "rank": 1, "activation": "gelu",
}  # fmt: skip


def least(name):
    """A sampler's arguments that have no default; linear_population has sample_linear's."""
    sampler = recipes.RECIPES["sample_linear" if name == "linear_population" else name]
    parameters = inspect.signature(sampler).parameters.items()
    return {n: REQUIRED[n] for n, p in parameters if p.default is inspect.Parameter.empty}


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_sampler_prints_what_has_no_default(name):
    """And no more: what is left out is what the sampler's own signature says."""
    given = least(name)
    problem = recipes.RECIPES[name](**given)
    assert repr(problem) == f"{name}({', '.join(f'{n}={v!r}' for n, v in given.items())})"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_drawn_problem_is_drawn_again_from_its_recipe(name, dtype):
    """Bit for bit, in its dtype, for its seeds: by loss, gradients and fingerprint."""
    problem = recipes.RECIPES[name](**least(name), seeds=(3, 5), dtype=dtype)
    again = recipes.rebuild(json.loads(json.dumps(problem.recipe)))
    assert again.like.dtype == getattr(torch, dtype)
    at = lt.Factors(torch.ones(12, 1).to(problem.like), torch.ones(1, 10).to(problem.like))
    for first, second in zip(
        (problem.loss(at), *problem.gradients(at)),
        (again.loss(at), *again.gradients(at)),
        strict=True,
    ):
        assert torch.equal(first, second)
    assert provenance.described(again) == provenance.described(problem)
