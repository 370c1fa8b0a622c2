"""Problems made from a loss: the linear model again, and losses that the library does not know."""

import itertools
import math

import numpy as np
import pytest
import torch
from tolerance import close, roots, rounding
from torch.nn import functional

import loraone_theory as lt
from loraone_theory.problems.base import facts

D, K, N, RANK = 7, 5, 40, 2
F64 = torch.float64


def data(seed=0, outputs=K):
    rng = np.random.default_rng(seed)
    X, W = rng.standard_normal((N, D)), rng.standard_normal((D, outputs)) / D**0.5
    shift = rng.standard_normal((D, 2)) @ rng.standard_normal((2, outputs)) / (D * outputs) ** 0.5
    return tuple(torch.from_numpy(M) for M in (X, W, shift))


def squares(activation):
    def loss(W, X, Y):
        return 0.5 * (activation(X @ W) - Y).square().sum(-1).mean()

    return loss


def linear(split=False):
    """The linear model twice: as it is built in, and from its loss."""
    X, W, shift = data()
    known = lt.LinearProblem.from_data(X, shift=shift, pretrained=W)
    loss = squares(lambda Z: Z)
    made = lt.from_loss(loss, d=D, k=K, pretrained=W, shift=shift, data=(X, X @ (W + shift)))
    return known, made


@pytest.mark.parametrize("name", lt.METHODS)
def test_the_linear_model_from_its_loss(name):
    known, made = linear()
    damping = {"p-lora-adamw": 0.1, "lora-one-scaled-adamw": 0.1}.get(name, 0.0)
    hyper = {"total_steps": 8} if name == "adalora" else {}
    method = lt.METHODS[name](**hyper)
    options = {"rank": RANK, "steps": 12, "learning_rate": 0.02, "damping": damping}
    options |= {"seeds": (0, 1), "record": ("loss", "error"), "reduce": "never"}
    expected, found = (lt.simulate(problem, method, **options) for problem in (known, made))
    # Each step sums D + N products of entries of size one, with an error of at most (D + N) eps of
    # the largest; W and E are of one size, no step expands, and quotients are kept by eps or
    # damping from dividing by rounding. 12 steps.
    tolerance = 12 * (D + N) * torch.finfo(F64).eps
    for record in ("loss", "error"):
        torch.testing.assert_close(found[record], expected[record], rtol=tolerance, atol=tolerance)
    for one, other in zip(found.learned_shift(), expected.learned_shift(), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_gelu_by_hand():
    X, W, shift = data()
    Y = functional.gelu(X @ (W + shift))
    problem = lt.from_loss(
        squares(functional.gelu), d=D, k=K, pretrained=W, shift=shift, data=(X, Y)
    )
    # GELU(z) = z Phi(z), GELU'(z) = Phi(z) + z phi(z).
    Z = X @ W
    Phi = 0.5 * (1 + torch.erf(Z / math.sqrt(2)))
    phi = torch.exp(-(Z**2) / 2) / math.sqrt(2 * math.pi)
    G = -X.T @ ((Z * Phi - Y) * (Phi + Z * phi)) / N
    close(problem.one_step_gradient(), G, ONCE)


def test_tanh_gradients_by_hand():
    X, W, shift = data(1)
    Y = torch.tanh(X @ (W + shift))
    problem = lt.from_loss(squares(torch.tanh), d=D, k=K, pretrained=W, data=(X, Y))
    A, B = (
        torch.from_numpy(np.random.default_rng(2).standard_normal(s))
        for s in ((3, D, 2), (3, 2, K))
    )
    found = problem.gradients(lt.Factors(A, B))
    for i in range(3):
        out = torch.tanh(X @ (W + A[i] @ B[i]))
        slope = X.T @ ((out - Y) * (1 - out**2)) / N
        close(found.A[i], slope @ B[i].T, ONCE)
        close(found.B[i], A[i].T @ slope, ONCE)


def test_cross_entropy_by_hand():
    X, W, _ = data(3)
    classes = torch.from_numpy(np.random.default_rng(4).integers(K, size=N))

    def loss(W, X, classes):
        return functional.cross_entropy(X @ W, classes)

    problem = lt.from_loss(loss, d=D, k=K, pretrained=W, data=(X, classes))
    # grad = X^T (softmax - onehot) / N
    exponentials = torch.exp(X @ W)
    probabilities = exponentials / exponentials.sum(-1, keepdim=True)
    onehot = torch.eye(K, dtype=F64)[classes]
    close(problem.one_step_gradient(), -X.T @ (probabilities - onehot) / N, ONCE)
    zero = lt.Factors(torch.zeros(D, 1, dtype=F64), torch.zeros(1, K, dtype=F64))
    expected = -(probabilities[torch.arange(N), classes]).log().mean()
    torch.testing.assert_close(problem.loss(zero), expected, rtol=ONCE, atol=0)
    run = lt.simulate(problem, "lora-one", rank=2, learning_rate=0.5, steps=20, record=("loss",))
    A, B = (M[0] for M in run.initial)
    for _ in range(20):
        slope = X.T @ (torch.softmax(X @ (W + A @ B), -1) - onehot) / N
        A, B = A - 0.5 * slope @ B.T, B - 0.5 * A.T @ slope
    close(run.final.A[0] @ run.final.B[0], A @ B, rounding(N + D, operations=4 * 20, condition=10))


def test_two_layers_by_hand():
    """The first layer trained under a fixed second one; chain rule by hand."""
    X, W, _ = data(5)
    second = torch.from_numpy(np.random.default_rng(6).standard_normal((K, 3)))
    Y = torch.from_numpy(np.random.default_rng(7).standard_normal((N, 3)))

    def loss(W, X, Y):
        return (torch.relu(X @ W) @ second - Y).square().mean()

    problem = lt.from_loss(loss, d=D, k=K, pretrained=W, data=(X, Y))
    hidden = X @ W
    slope = 2 * (torch.relu(hidden) @ second - Y) / (3 * N)
    G = -X.T @ ((slope @ second.T) * (hidden > 0))
    close(problem.one_step_gradient(), G, ONCE)


def test_the_relu_problem_from_its_loss():
    X, W, shift = data(8)
    known = lt.ReLUProblem.from_data(X, pretrained=W, shift=shift)
    made = lt.from_loss(
        squares(torch.relu), d=D, k=K, pretrained=W, shift=shift, data=(X, known.labels),
        spectral_gamma=2.0,
    )  # fmt: skip
    options = {"rank": RANK, "steps": 20, "learning_rate": 0.1, "record": ("loss", "error")}
    expected, found = (lt.simulate(p, "lora-one", **options) for p in (known, made))
    allowed = rounding(N + D, operations=4 * 20)  # 20 steps of two products on either side
    roots(found["loss"], expected["loss"], allowed)
    torch.testing.assert_close(found["error"], expected["error"], rtol=allowed, atol=allowed)


def test_instances_and_sweeps_equal_single_runs():
    X, W, shift = (torch.stack(parts) for parts in zip(data(0), data(1), data(2), strict=True))
    Y = torch.tanh(X @ (W + shift))
    loss = squares(torch.tanh)
    many = lt.from_loss(loss, d=D, k=K, pretrained=W, data=(X, Y), batched=1)
    assert many.batch_shape == (3,)
    assert many.samples == N
    options = {"rank": 2, "steps": 6, "record": ("loss",)}
    run = lt.simulate(many, "pissa", learning_rate=[0.1, 0.3], seeds=(4, 5, 6), **options)
    for i in range(3):
        one = lt.from_loss(loss, d=D, k=K, pretrained=W[i], data=(X[i], Y[i]))
        for j, eta in enumerate((0.1, 0.3)):
            alone = lt.simulate(one, "pissa", learning_rate=eta, seeds=(4 + i,), **options)
            roots(run["loss"][:, j, i], alone["loss"][:, 0], rounding(N + D, operations=4 * 6))


def test_what_is_not_known_is_named():
    X, W, _ = data()
    problem = lt.from_loss(squares(torch.tanh), d=D, k=K, data=(X, torch.tanh(X @ W)))
    known = facts(problem)
    assert (known.pretrained, known.shift, known.true_rank, known.risk) == (None,) * 4
    with pytest.raises(ValueError, match="'pissa' initialises from the pre-trained weight W"):
        lt.simulate(problem, "pissa", rank=2, learning_rate=0.1, steps=2, record=("loss",))


def counting():
    """A loss that remembers how often it was called."""
    count = itertools.count(1)
    return lambda W: next(count) * W.exp().mean()


CASES = {
    "not a function": (lambda X: lt.from_loss(3, d=D, k=K), TypeError, "loss must be callable"),
    "a vector": (
        lambda X: lt.from_loss(lambda W: W.sum(0), d=D, k=K),
        ValueError,
        r"must return one torch.float64 number.*shape \(5,\)",
    ),
    "a float": (
        lambda X: lt.from_loss(lambda W: 1.0, d=D, k=K),
        TypeError,
        "must return a tensor; got float",
    ),
    "an item": (
        lambda X: lt.from_loss(lambda W: W.sum() * W.sum().item(), d=D, k=K),
        ValueError,
        "a pure function that torch.func can batch",
    ),
    "NaN": (
        lambda X: lt.from_loss(lambda W: W.norm() / 0 * 0, d=D, k=K),
        ValueError,
        "finite at W; got a loss of nan",
    ),
    "rows": (
        lambda X: lt.from_loss(lambda W, X, Y: W.sum(), d=D, k=K, data=(X, X[1:])),
        ValueError,
        r"all arrays of data must share their first 1 dimensions",
    ),
    "shift": (
        lambda X: lt.from_loss(lambda W: W.sum(), d=D, k=K, shift=torch.ones(D, K + 1, dtype=F64)),
        ValueError,
        r"shift must be \(..., 7, 5\)",
    ),
    "shapes": (
        lambda X: lt.from_loss(lambda W, X: (W @ X).sum(), d=D, k=K, data=X),
        ValueError,
        r"defined at tensors of shapes \(7, 5\), \(40, 7\)",
    ),
    "arguments": (
        lambda X: lt.from_loss(lambda W: W.sum(), d=D, k=K, data=X),
        ValueError,
        "takes 1 positional argument but 2 were given",
    ),
    "detached": (
        lambda X: lt.from_loss(lambda W: W.detach().sum(), d=D, k=K),
        ValueError,
        "loss must depend on W",
    ),
    "changed rows": (
        lambda X: lt.from_loss(lambda W, X: (X.mul_(0.9) @ W).square().mean(), d=D, k=K, data=X),
        ValueError,
        r"leave its arguments as they are; it changed data\[0\]; work on a copy",
    ),
    "a changed weight": (
        lambda X: lt.from_loss(lambda W: W.add_(0.1).square().sum(), d=D, k=K),
        ValueError,
        "leave its arguments as they are; it changed W",
    ),
    "a draw": (
        lambda X: lt.from_loss(lambda W, X: (functional.dropout(X) @ W).exp().mean(), d=D, k=K,
                               data=X, pretrained=torch.ones(D, K, dtype=F64)),
        ValueError,
        "a function of W and the data alone; got .* at the same W",
    ),
    "a count": (
        lambda X: lt.from_loss(counting(), d=D, k=K),
        ValueError,
        r"a function of W and the data alone; got 1\.0 and then 2\.0",
    ),
    "instances": (
        lambda X: lt.from_loss(
            lambda W, X: W.sum(), d=D, k=K, data=X.reshape(2, 20, D), batched=1,
            pretrained=torch.ones(3, D, K, dtype=F64),
        ),
        ValueError,
        r"batch dimensions of data and pretrained must broadcast; got \(2,\) and \(3,\)",
    ),
    "held out of another kind": (
        lambda X: lt.from_loss(lambda W, X: W.sum(), d=D, k=K, data=X, held_out=(X, X)),
        ValueError,
        "held_out must hold the same arrays as data; got 2 with 1",
    ),
    "split and held out": (
        lambda X: lt.from_loss(lambda W, X: W.sum(), d=D, k=K, data=X, held_out=X, split=0.5),
        ValueError,
        "exclude each other",
    ),
    "split": (
        lambda X: lt.from_loss(lambda W, X: W.sum(), d=D, k=K, data=X, split=0.001),
        ValueError,
        "split=0.001 of 40 rows, which holds out 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refusals(case):
    call, error, message = CASES[case]
    with pytest.raises(error, match=message):
        call(data()[0])


# Products over N and D, a loss or its derivative, and a product over the factors.
ONCE = rounding(N + D, operations=2)


def test_held_out_rows_are_the_others():
    X, W, shift = data()
    Y = torch.tanh(X @ (W + shift))
    loss = squares(torch.tanh)
    problem = lt.from_loss(loss, d=D, k=K, pretrained=W, data=(X, Y), split=0.25)
    assert problem.samples == 30
    zero = lt.Factors(torch.zeros(D, 1, dtype=F64), torch.zeros(1, K, dtype=F64))
    # A mean over 30 rows and one over the other 10 make the mean over all 40.
    whole = (30 * problem.loss(zero) + 10 * problem.test_loss(zero)) / 40
    torch.testing.assert_close(whole, loss(W, X, Y), rtol=ONCE, atol=0)
    rows = torch.cat([problem.data[0], problem.held_out[0]])
    torch.testing.assert_close(rows.sort(0).values, X.sort(0).values, rtol=0, atol=0)


def test_a_slope_of_minus_one_everywhere_is_a_slope() -> None:
    """loss(W) = c·Σ W_ij has the gradient c everywhere, of which only c = 0 is refused."""
    for c in (-1.0, 1.0):
        problem = lt.from_loss(lambda W, c=c: c * W.sum(), d=3, k=2)
        assert torch.equal(problem.one_step_gradient(), torch.full((3, 2), -c).double())
    with pytest.raises(ValueError, match="loss must depend on W"):
        lt.from_loss(lambda W: 0.0 * W.sum(), d=3, k=2)


def test_sizes_of_one_are_sizes_and_zero_is_none() -> None:
    for name in ("d", "k"):
        sizes = {"d": 3, "k": 2} | {name: 1}
        problem = lt.from_loss(lambda W: W.square().sum(), **sizes)
        assert (problem.d, problem.k) == (sizes["d"], sizes["k"])
        with pytest.raises(ValueError, match=f"{name} must be"):
            lt.from_loss(lambda W: W.square().sum(), **sizes | {name: 0})


def test_instances_are_counted_by_the_data_alone_where_no_weight_has_any() -> None:
    """Three data sets of one zero weight: three losses, each of its own rows."""
    rng = np.random.default_rng(5)
    X, Y = (torch.from_numpy(rng.standard_normal((3, 10, n))) for n in (4, 2))
    shared = torch.from_numpy(rng.standard_normal((4, 2)))
    for pretrained in (None, shared):
        problem = lt.from_loss(
            lambda W, X, Y: (X @ W - Y).square().mean(),
            d=4,
            k=2,
            data=(X, Y),
            batched=1,
            pretrained=pretrained,
        )
        assert problem.batch_shape == (3,)
        W = np.zeros((4, 2)) if pretrained is None else shared.numpy()
        for i, G in enumerate(problem.one_step_gradient()):
            expected = -2 / 20 * X[i].numpy().T @ (X[i].numpy() @ W - Y[i].numpy())
            close(G, torch.from_numpy(expected), ONCE)
