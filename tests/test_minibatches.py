"""Minibatches: which rows, the steps they make, and their moments."""

import itertools
import json

import numpy as np
import pytest
import torch
from tolerance import near, roots, rounding

import loraone_theory as lt
from loraone_theory.core.randomness import generator
from loraone_theory.dynamics.batches import Minibatches
from loraone_theory.dynamics.loop import rerun

D, K, N, RANK, ETA, STEPS = 6, 5, 23, 2, 0.05, 13
F64 = torch.float64


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    X, W = rng.standard_normal((N, D)), rng.standard_normal((D, K)) / D**0.5
    shift = rng.standard_normal((D, 2)) @ rng.standard_normal((2, K)) / 4
    return tuple(torch.from_numpy(M) for M in (X, W, shift))


def tanh_loss(W, X, Y):
    return 0.5 * (torch.tanh(X @ W) - Y).square().sum(-1).mean()


def fresh_rows(rng, size):
    X = torch.from_numpy(rng.standard_normal((size, D)))
    _, W, shift = arrays()
    return X, torch.tanh(X @ (W + shift))


def problems():
    X, W, shift = arrays()
    Y = torch.tanh(X @ (W + shift))
    data = {"pretrained": W, "shift": shift}
    return {
        "linear": (lt.LinearProblem.from_data(X, keep=True, **data), lambda Z: Z, 1.0),
        "relu": (lt.ReLUProblem.from_data(X, **data), torch.relu, 1.0),
        "loss": (
            lt.from_loss(tanh_loss, d=D, k=K, data=(X, Y), fresh=fresh_rows, **data),
            torch.tanh,
            1.0,
        ),
    }


def rows_by_hand(sampling, seed, t, b):
    """The rows of step t, drawn once more."""
    if sampling == "with-replacement":
        return generator(seed, f"batches/{t}").integers(N, size=b)
    per_epoch = -(-N // b)
    order = generator(seed, f"batches/{t // per_epoch}").permutation(N)
    return order[(t % per_epoch) * b : (t % per_epoch + 1) * b]


def loop(X, W, shift, A, B, activation, sampling, seed, b):
    """SGD by autograd on the rows, one trial."""
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    for t in range(STEPS):
        rows = X[torch.from_numpy(rows_by_hand(sampling, seed, t, b))]
        loss = (activation(rows @ (W + A @ B)) - activation(rows @ (W + shift))).square().sum()
        grads = torch.autograd.grad(loss / (2 * len(rows)), (A, B))
        with torch.no_grad():
            A, B = A - ETA * grads[0], B - ETA * grads[1]
        A.requires_grad_(), B.requires_grad_()
    return (A @ B).detach()


@pytest.mark.parametrize("sampling", ["with-replacement", "epochs"])
def test_a_sum_over_rows_has_no_minibatches(sampling):
    """b rows of it are no estimate of all of them; it runs on all rows, and divided by N."""
    X, W, shift = arrays()
    data = (X, torch.tanh(X @ (W + shift)))

    def total(W, X, Y):
        return len(X) * tanh_loss(W, X, Y)

    given = {"d": D, "k": K, "pretrained": W, "data": data}
    settings = {"rank": RANK, "steps": 3, "record": ("loss",)}
    small = {"batch_size": 5, "sampling": sampling}
    summed, mean = lt.from_loss(total, **given), lt.from_loss(tanh_loss, **given)
    with pytest.raises(ValueError, match="a mean over its rows; got one that doubles"):
        lt.simulate(summed, "lora-one", learning_rate=ETA / N, **settings, **small)
    # Full steps of the sum at η/N are those of the mean at η.
    whole = lt.simulate(summed, "lora", learning_rate=ETA / N, **settings)
    same = lt.simulate(mean, "lora", learning_rate=ETA, **settings)
    tolerance = near(N + D, scale=1.0, operations=3 * 10)
    torch.testing.assert_close(whole["loss"] / N, same["loss"], **tolerance)
    assert lt.simulate(mean, "lora", learning_rate=ETA, **settings, **small).ok.all()


@pytest.mark.parametrize("reduce", ["auto", "never"])
@pytest.mark.parametrize("b", [1, 5, 23])
@pytest.mark.parametrize("sampling", ["with-replacement", "epochs"])
@pytest.mark.parametrize("name", ["linear", "relu", "loss"])
def test_steps_are_those_of_a_loop_over_the_same_rows(name, sampling, b, reduce):
    problem, activation, _ = problems()[name]
    run = lt.simulate(
        problem, "lora", rank=RANK, learning_rate=ETA, steps=STEPS, seeds=(4, 9), init_std=0.3,
        batch_size=b, sampling=sampling, record=("loss",), reduce=reduce,
    )  # fmt: skip
    X, W, shift = arrays()
    for i, seed in enumerate((4, 9)):
        start = (run.initial.A[i], run.initial.B[i])
        expected = loop(X, W, shift, *start, activation, sampling, seed, b)
        found = run.final.A[i] @ run.final.B[i]
        # 13 steps of sums of N + D products of size one; the reduction rotates columns.
        torch.testing.assert_close(
            found, expected, rtol=0, atol=rounding(N + D, operations=13 * 10)
        )


def test_an_epoch_visits_every_row_once_and_its_last_batch_is_smaller():
    batches = Minibatches(5, "epochs", (3, 8), N)
    for epoch in range(3):
        drawn = [batches.indices(5 * epoch + i) for i in range(5)]
        assert [x.shape for x in drawn] == [(2, 5)] * 4 + [(2, 3)]
        assert (torch.cat(drawn, -1).sort().values == torch.arange(N)).all()
    first, second = batches.indices(0), batches.indices(5)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("sampling", ["with-replacement", "epochs", "fresh"])
def test_a_trial_depends_on_its_seed_alone(sampling):
    """Alone, in a batch, and beside other learning rates."""
    for problem, _, _ in problems().values():
        if sampling == "fresh" and not isinstance(problem, lt.LossProblem):
            continue
        options = {"rank": RANK, "steps": 7, "batch_size": 4, "sampling": sampling}
        options |= {"record": ("loss",), "init_std": 0.3}
        many = lt.simulate(problem, "lora", learning_rate=[0.02, ETA], seeds=(7, 3, 5), **options)
        one = lt.simulate(problem, "lora", learning_rate=ETA, seeds=(3,), **options)
        allowed = rounding(4 + D, operations=4 * 7)  # seven steps of four products over a batch
        roots(many["loss"][:, 1, 1], one["loss"][:, 0], allowed)


def test_instances_take_rows_of_their_own():
    many = lt.sample_linear(d=D, k=K, true_rank=2, samples=N, seeds=(2, 6), keep_inputs=True)
    options = {"rank": 2, "learning_rate": ETA, "steps": 9, "batch_size": 4, "record": ("loss",)}
    both = lt.simulate(many, "lora", sampling="epochs", **options)
    for i, seed in enumerate((2, 6)):
        alone = lt.sample_linear(d=D, k=K, true_rank=2, samples=N, seeds=(seed,), keep_inputs=True)
        single = lt.simulate(alone, "lora", sampling="epochs", **options)
        roots(both["loss"][:, i], single["loss"][:, 0], rounding(4 + D, operations=4 * 9))


@pytest.mark.parametrize("name", ["lora-one", "pissa", "lora-adamw", "full", "lora-xs", "adalora"])
def test_methods_of_every_kind_run_on_minibatches(name):
    """A batch of all rows in order is the full gradient."""
    method = lt.METHODS[name](**({"total_steps": 6} if name == "adalora" else {}))
    for problem, _, _ in problems().values():
        options = {"rank": 2, "learning_rate": 0.02, "steps": 8, "record": ("loss",)}
        whole = lt.simulate(problem, method, **options)
        batched = lt.simulate(problem, method, batch_size=N, sampling="epochs", **options)
        # Sums over N rows in another order, 8 steps; Adam divides by entries down to 1/N.
        tolerance = rounding(N + D, operations=8, condition=N * N)
        torch.testing.assert_close(batched["loss"], whole["loss"], rtol=tolerance, atol=0)


def test_going_on_goes_on_in_the_stream():
    problem = problems()["linear"][0]
    options = {"rank": 2, "learning_rate": ETA, "batch_size": 5, "record": ("loss",)}
    for sampling in ("with-replacement", "epochs"):
        whole = lt.simulate(problem, "lora-momentum", steps=14, sampling=sampling, **options)
        part = lt.simulate(problem, "lora-momentum", steps=8, sampling=sampling, **options)
        assert torch.equal(part.extend(6)["loss"], whole["loss"])


def test_a_minibatch_run_is_rebuilt_from_its_config():
    problem = lt.sample_linear(d=D, k=K, true_rank=2, samples=N, seeds=(2, 6), keep_inputs=True)
    for sampling in ("with-replacement", "epochs", "fresh"):
        options = {"rank": 2, "learning_rate": ETA, "steps": 9, "record": ("loss",)}
        run = lt.simulate(problem, "lora", batch_size=4, sampling=sampling, **options)
        again = rerun(json.loads(json.dumps(run.config)))
        assert torch.equal(again["loss"], run["loss"])


def test_divergence_is_dated_by_replaying_the_same_rows():
    """The step at which a run alone and one seen every step stop being finite."""
    problem = problems()["linear"][0]
    options = {"rank": 2, "learning_rate": 50.0, "batch_size": 2, "record": ("loss",)}
    run = lt.simulate(problem, "lora", steps=200, init_std=1.0, **options)
    finite = torch.isfinite(run["loss"][:, 0])
    assert run.status[0].step == int((~finite).nonzero()[0])


# --- moments ---------------------------------------------------------------------------------


def test_without_replacement_covariance_over_all_subsets():
    """Per-sample population covariance times (N - b)/(b(N - 1)), exactly."""
    X, _, shift = arrays()
    X = X[:7]
    problem = lt.LinearProblem.from_data(X, shift=shift, keep=True)
    M = torch.from_numpy(np.random.default_rng(5).standard_normal((D, K)))
    at = lt.Factors(M, torch.eye(K, dtype=F64))
    E = M - shift
    single = torch.stack([torch.outer(x, x) @ E for x in X]).flatten(1)
    spread = (single - single.mean(0)).T @ (single - single.mean(0)) / 7
    for b in (1, 2, 3, 7):
        subsets = torch.tensor(list(itertools.combinations(range(7), b)))
        drawn = problem.batch(subsets).gradients(at).A.flatten(1)
        # Means of up to 35 subsets of up to 7 rows, and of their products.
        once = near(35 + 7, operations=2, scale=float(single.abs().max()))
        square = near(35 + 7, operations=4, scale=float(single.abs().max()) ** 2)
        torch.testing.assert_close(drawn.mean(0), single.mean(0), **once)
        centred = drawn - single.mean(0)
        found = centred.T @ centred / len(subsets)
        torch.testing.assert_close(found, spread * (7 - b) / (b * 6), **square)


DRAWS = 40_000
# Two-sided normal tail at 5.5 is 4e-8; fewer than 500 entries are looked at: below 2e-5 in all.
Z = 5.5


def test_moments_of_a_fresh_gaussian_batch():
    """Cov(g_ia, g_jc) = [δ_ij (EᵀE)_ac + E_ja E_ic]/b, and E[E⁺] of one step of the pair."""
    d, k, b, eta = 3, 2, 2, 0.3
    rng = np.random.default_rng(1)
    A, B = (torch.from_numpy(rng.standard_normal(s)) for s in ((d, 2), (2, k)))
    shift = torch.from_numpy(rng.standard_normal((d, k)))
    problem = lt.LinearProblem.population(shift=shift)
    part = problem.fresh(0, b, range(DRAWS))
    E = A @ B - shift
    g = part.gradients(lt.Factors(A @ B, torch.eye(k, dtype=F64))).A
    close(g, E)
    deviation = (g - E).flatten(1)
    products = deviation[:, :, None] * deviation[:, None, :]
    eye = torch.eye(d, dtype=F64)
    expected = torch.einsum("ij,ac->iajc", eye, E.T @ E) + torch.einsum("ja,ic->iajc", E, E)
    close(products, expected.reshape(d * k, d * k) / b)

    grad = part.gradients(lt.Factors(A, B))
    after = (A - eta * grad.A) @ (B - eta * grad.B) - shift
    AB = A @ B
    square = E @ AB.T @ E + (AB @ (E.T @ E) + torch.trace(AB.T @ E) * E) / b
    close(after, E - eta * (E @ B.T @ B + A @ A.T @ E) + eta**2 * square)


def close(draws, expected):
    """The mean of independent draws, to Z standard errors."""
    error = draws.std(0) / len(draws) ** 0.5
    assert bool(((draws.mean(0) - expected).abs() <= Z * error).all())


def test_online_full_fine_tuning_contracts_at_its_rate():
    """E‖E‖² shrinks by 1 − 2η + η²(1 + (d + 1)/b) a step, whatever E is."""
    d, b, eta = 4, 3, 0.4
    shift = torch.from_numpy(np.random.default_rng(2).standard_normal((d, 2)))
    problem = lt.LinearProblem.population(shift=shift)
    run = lt.simulate(
        problem, "full", rank=2, learning_rate=eta, steps=3, seeds=range(6000), batch_size=b,
        sampling="fresh", record=("risk",), reduce="never",
    )  # fmt: skip
    rate = 1 - 2 * eta + eta**2 * (1 + (d + 1) / b)
    for t in range(1, 4):
        close(run["risk"][t][:, None], run["risk"][0, 0] * rate**t)


# --- refusals --------------------------------------------------------------------------------


def test_refusals():
    linear, relu = (problems()[name][0] for name in ("linear", "relu"))
    forgot = lt.sample_linear(d=D, k=K, true_rank=2, samples=N)
    population = lt.LinearProblem.population(shift=np.ones((3, 2)))
    cases = [
        (linear, {"sampling": "epochs"}, "without batch_size"),
        (linear, {"batch_size": 0}, "batch_size must be >= 1"),
        (linear, {"batch_size": 24, "sampling": "epochs"}, "batch_size=24 with N=23"),
        (linear, {"batch_size": 2, "sampling": "epoch"}, "did you mean 'epochs'"),
        (linear, {"batch_size": 2, "sampling": "fresh"}, "the law of the rows .* is not known"),
        (relu, {"batch_size": 2, "sampling": "fresh"}, "the law of the rows"),
        (forgot, {"batch_size": 2}, r"from_data\(..., keep=True\)"),
        (population, {"batch_size": 2}, "needs training rows, and this LinearProblem has none"),
    ]
    for problem, options, message in cases:
        with pytest.raises(ValueError, match=message):
            lt.simulate(problem, "lora", rank=1, learning_rate=0.1, steps=2, **options)


# --- held-out rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["auto", "never"])
@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_the_test_loss_is_that_of_the_held_out_rows(method, reduce):
    X, W, shift = arrays()
    held = torch.from_numpy(np.random.default_rng(9).standard_normal((11, D)))
    data = {"pretrained": W, "shift": shift}
    cases = [
        (lt.LinearProblem.from_data(X, held_out=held, **data), lambda Z: Z),
        (lt.ReLUProblem.from_data(X, held_out=held, **data), torch.relu),
        (
            lt.from_loss(
                tanh_loss, d=D, k=K, data=(X, torch.tanh(X @ (W + shift))),
                held_out=(held, torch.tanh(held @ (W + shift))), **data,
            ),
            torch.tanh,
        ),
    ]  # fmt: skip
    for problem, activation in cases:
        run = lt.simulate(
            problem, method, rank=2, learning_rate=0.05, steps=5, record=("test_loss",),
            reduce=reduce,
        )  # fmt: skip
        new = W + run.learned_shift().dense()[0]
        miss = activation(held @ new) - activation(held @ (W + shift))
        expected = 0.5 * miss.square().sum() / 11
        # Five steps of four products over N + d, relative to a residual of a tenth of the weights.
        allowed = rounding(N + D, operations=4 * 5, condition=10)
        torch.testing.assert_close(run["test_loss"][-1, 0], expected, rtol=allowed, atol=0)
