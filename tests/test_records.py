"""Every record against a longhand value on unreduced tensors; records of one's own; endings."""

import numpy as np
import pytest
import scipy.linalg
import torch
from tolerance import eps, near, rounding

import loraone_theory as lt
from loraone_theory.dynamics import curvature, endings

STEPS = 12


def linear():
    """No two of its sizes are the same, nor the number of instances."""
    sizes = {"d": 7, "k": 6, "true_rank": 2, "samples": 60}
    return lt.sample_linear(**sizes, condition_number=3.0, seeds=(3, 4, 5))


def sine(U, V):
    return np.linalg.norm(V - U @ (U.T @ V), 2)


# Where Lanczos iterations stop, relative to the largest eigenvalue (dynamics/curvature.py).
LANCZOS = 1e-8


def longhand(problem, run, i, t):
    """All records of one run at one kept time, in numpy, from W, Σ̂, Δ and the kept factors."""
    A, B = (M[t, i].numpy() for M in run.factors)
    Sigma = problem.covariance.matrix[i].numpy()
    Delta = problem.shift.dense()[i].numpy()
    offset = 0.0 if run.offset is None else run.offset.dense()[i].numpy()
    s, r = run.scale, 2
    learned = s * A @ B - offset
    E = learned - Delta
    J = Sigma @ E
    U, _, Vt = np.linalg.svd(Sigma @ Delta)
    UA, VB = np.linalg.svd(A)[0][:, :r], np.linalg.svd(B)[2][:r].T
    values = np.linalg.svd(learned)[1]
    gradient = np.concatenate([(s * J @ B.T).ravel(), (s * A.T @ J).ravel()])
    return {
        "loss": 0.5 * np.trace(E.T @ J),
        "risk": 0.5 * (E**2).sum(),
        "error": np.linalg.norm(E),
        "left_alignment": sine(U[:, :r], UA),
        "right_alignment": sine(Vt[:r].T, VB),
        "left_angles": scipy.linalg.subspace_angles(U[:, :r], UA),
        "right_angles": scipy.linalg.subspace_angles(Vt[:r].T, VB),
        "balance": np.linalg.norm(A.T @ A - B @ B.T),
        "singular_values": values,
        "nuclear_norm": values.sum(),
        "stable_rank": (values**2).sum() / values[0] ** 2,
        "gradient_norm": np.linalg.norm(gradient),
        "sharpness": hessian_top(problem, i, A, B, s, offset),
    }


def hessian_top(problem, i, A, B, s, offset):
    """The largest eigenvalue of autograd's dense Hessian."""
    Sigma, T = problem.covariance.matrix[i], problem.shift.dense()[i] + torch.as_tensor(offset)
    a, b = torch.tensor(A), torch.tensor(B)

    def loss(theta):
        M = s * theta[: a.numel()].view_as(a) @ theta[a.numel() :].view_as(b) - T
        return 0.5 * (M * (Sigma @ M)).sum()

    H = torch.autograd.functional.hessian(loss, torch.cat([a.flatten(), b.flatten()]))
    return float(torch.linalg.eigvalsh(H)[-1])


@pytest.mark.parametrize("reduce", ["auto", "never"])
@pytest.mark.parametrize(
    "method",
    [lt.methods.lora(init_std=0.4, scale=1.5), "lora-ga", "lora-one-preconditioned"],
    ids=["lora", "lora-ga", "lora-one-preconditioned"],
)
def test_every_record_is_its_longhand_value(method, reduce):
    problem = linear()
    names = [n for n in lt.RECORDS if n != "test_loss"]
    run = lt.simulate(
        problem, method, rank=2, learning_rate=0.02, steps=STEPS, record=names, reduce=reduce,
        every=4, keep_factors=4,
    )  # fmt: skip
    for t in range(1, 4):
        for i in range(3):
            expected = longhand(problem, run, i, t)
            assert set(expected) == set(names)
            for name in names:
                # Rounding of a few hundred operations; the Hessian's products are differences of
                # relative error eps^(2/3) = 4e-11. In reduced coordinates the row space of B is
                # exactly that of the gradient, which an angle near 0 shows as rounding.
                rounded = rounding(60, operations=40, condition=100)
                wrong = 200 * eps() ** (2 / 3) if name == "sharpness" else rounded
                found = run[name][t, i].numpy()
                want = np.asarray(expected[name])
                want = want[: len(found)] if want.ndim else want  # the other values are 0
                by_entry = {"rtol": wrong, "atol": rounded}
                np.testing.assert_allclose(found, want, **by_entry, err_msg=name)


def test_sharpness_of_a_relu_problem_and_of_a_core():
    population = lt.sample_relu_population(d=6, k=5, true_rank=2, relative_shift=0.3, seeds=[1])
    for problem, method in ((population, "lora-one"), (linear(), "lora-sb"), (linear(), "full")):
        run = lt.simulate(problem, method, rank=2, learning_rate=0.1, steps=2,
                          record=["sharpness", "gradient_norm"])  # fmt: skip
        M = run.final
        steps = 1e-4
        if method == "lora-one":
            theta = torch.cat([M.A[0].flatten(), M.B[0].flatten()])

            def gradient(x, problem=problem, M=M):
                A, B = x[:12].view(1, 6, 2), x[12:].view(1, 2, 5)
                return torch.cat([g.flatten() for g in problem.gradients(lt.Factors(A, B))])

            eye = torch.eye(len(theta), dtype=theta.dtype)
            H = torch.stack(
                [(gradient(theta + steps * e) - gradient(theta - steps * e)) / (2 * steps)
                 for e in eye]
            )  # fmt: skip
            want = torch.linalg.eigvalsh((H + H.T) / 2)[-1:]
        elif method == "full":
            want = torch.linalg.eigvalsh(problem.covariance.matrix)[:, -1]
        else:
            continue
        # Central differences: step² for the oracle, eps^(2/3) for the record.
        # Here the third derivative of gradients, of size 3, times step²; 4e-11 times d·r + k·r
        # entries for the record.
        wrong = 3 * steps**2 + 22 * eps() ** (2 / 3)
        torch.testing.assert_close(run["sharpness"][-1], want, rtol=wrong, atol=0)


def test_lanczos_finds_the_top_of_a_known_spectrum():
    values = torch.linspace(-3.0, 2.0, 90, dtype=torch.float64)
    values[-1] = 2.5
    found = curvature.largest_eigenvalue(
        lambda p: (values[:, None] * p[0],), (torch.zeros(4, 90, 1, dtype=torch.float64),)
    )
    torch.testing.assert_close(
        found, torch.full((4,), 2.5, dtype=torch.float64), rtol=0, atol=2.5 * LANCZOS
    )


def test_a_record_of_ones_own_is_measured_in_the_original_coordinates():
    largest = lt.Record("largest", lambda view: view.shift.dense().abs().amax((-2, -1)))
    rows = lt.Record("rows", lambda view: view.trainable[0].norm(dim=-1), axis="input")
    given = {"rank": 2, "learning_rate": 0.1, "steps": 5, "record": ["risk", largest, rows]}
    for reduce in ("auto", "never"):
        run = lt.simulate(linear(), "lora-one", reduce=reduce, **given)
        expected = run.final.dense().abs().amax((-2, -1))
        once = rounding(7, operations=8)  # lifted and multiplied in one order and in another
        torch.testing.assert_close(run["largest"][-1], expected, rtol=once, atol=0)
        torch.testing.assert_close(run["rows"][-1], run.final.A.norm(dim=-1), rtol=once, atol=0)
        assert run["rows"].shape == (6, 3, 7)
        assert run.record_axes == {"rows": "input"}


def test_a_false_claim_of_invariance_is_refused():
    largest = lt.Record(
        "largest", lambda view: view.shift.dense().abs().amax((-2, -1)), invariant=True
    )
    given = {"rank": 2, "learning_rate": 0.1, "steps": 5}
    with pytest.raises(ValueError, match="record 'largest' is not rotation-invariant"):
        lt.simulate(linear(), "lora", record=[largest], **given)
    nuclear = lt.Record("nuclear", lambda view: view.singular_values.sum(-1), invariant=True)
    for method in ("lora-one", "full", "adalora", "lora-sb"):
        run = lt.simulate(linear(), method, record=[nuclear, "nuclear_norm"], **given)
        assert torch.equal(run["nuclear"], run["nuclear_norm"])


def test_invariance_is_told_of_what_only_the_offset_shows():
    """At another offset than zero: the state that is tried has one where the method has."""

    def entries(view):
        offset = view.offset
        return view.loss if offset is None else offset.dense().abs().amax((-2, -1)) + 0 * view.loss

    def size(view):
        return torch.linalg.matrix_norm(view.offset.dense()) + 0 * view.loss

    given = {"rank": 2, "learning_rate": 0.1, "steps": 2}
    largest = lt.Record("largest", entries, invariant=True)
    with pytest.raises(ValueError, match="record 'largest' is not rotation-invariant"):
        lt.simulate(linear(), "lora-ga", record=[largest], **given)
    norm = lt.Record("norm", size, invariant=True)
    run = lt.simulate(linear(), "lora-ga", record=[norm], **given)
    expected = torch.linalg.matrix_norm(run.offset.dense()).expand(3, 3)
    torch.testing.assert_close(run["norm"], expected, rtol=rounding(7, operations=4), atol=0)


def test_a_record_of_what_reduced_problems_leave_out_is_not_invariant():
    from_weight = lt.Record(
        "weight", lambda v: torch.linalg.matrix_norm(v.problem.pretrained + 0), invariant=True
    )
    with pytest.raises(ValueError, match=r"claims to be invariant.*cannot be measured there"):
        lt.simulate(
            linear(), "lora", rank=2, learning_rate=0.1, steps=2, record=[from_weight, "loss"]
        )


def test_what_a_record_must_return():
    def simulate(measure, **more):
        record = [lt.Record("odd", measure, **more)]
        return lt.simulate(linear(), "lora", rank=2, learning_rate=0.1, steps=2, record=record)

    with pytest.raises(ValueError, match=r"must have shape \(times, \*batch\) = \(1, 3\)"):
        simulate(lambda view: view.shift.dense())
    with pytest.raises(TypeError, match="must return a tensor; got float"):
        simulate(lambda view: 1.0)
    with pytest.raises(ValueError, match="need of record 'odd' must be one of"):
        simulate(lambda view: view.residual, needs={"nothing"})
    with pytest.raises(TypeError, match="put it into a list"):
        lt.simulate(linear(), "lora", rank=2, learning_rate=0.1, steps=2, record="loss")


def test_what_a_problem_does_not_know_is_told():
    run = lt.simulate(linear(), "lora", rank=2, learning_rate=0.1, steps=2,
                      record=["loss", "test_loss"])  # fmt: skip
    assert bool(run["test_loss"].isnan().all())
    assert run.reasons == {"test_loss": "needs 'test_loss', which this LinearProblem does not know"}
    assert run.ok.all()


def test_growing_and_oscillating_runs_are_told_from_the_others():
    problem = lt.sample_linear(d=6, k=5, true_rank=1, samples=600, seeds=[0])
    top = float(torch.linalg.eigvalsh(problem.covariance.matrix)[0, -1])
    given = {"rank": 1, "steps": 40, "record": ("loss",)}
    # Full fine-tuning is linear: past η = 2/λ_max the loss grows by (1 − ηλ)² a step.
    slow = lt.simulate(problem, "full", learning_rate=[1.0 / top, 2.2 / top], **given)
    assert [s.outcome for s in slow.status[:, 0]] == [lt.Outcome.COMPLETED, lt.Outcome.GROWING]
    growing = slow.status[1, 0]
    expected = float(slow["loss"][-1, 1, 0] / slow["loss"][0, 1, 0])
    assert growing.factor == pytest.approx(expected, rel=rounding(2))
    assert not growing.ok
    assert "lower the learning rate" in str(growing)
    assert slow.ok.tolist() == [[True], [False]]
    assert not slow.diverged.any()
    # A scalar factorisation past its edge goes round a cycle of period 2 and does not settle.
    wild = lt.simulate(problem, "lora-one", learning_rate=1.05, **(given | {"steps": 400}))
    assert wild.status[0].outcome is lt.Outcome.OSCILLATING
    tail = wild["loss"][-7:, 0]
    expected = float((tail.max() - tail.min()) / wild["loss"][0, 0])
    assert wild.status[0].factor == pytest.approx(expected, rel=rounding(2))
    # The answer does not depend on what is recorded.
    silent = lt.simulate(problem, "lora-one", learning_rate=1.05, rank=1, steps=400, record=())
    assert silent.status[0] == wild.status[0]


def test_an_infinite_loss_is_a_divergence_with_its_step():
    problem = lt.sample_linear(d=6, k=5, true_rank=1, samples=60, seeds=[0])
    run = lt.simulate(problem, "full", rank=1, learning_rate=1e4, steps=300, record=("loss",))
    status = run.status[0]
    assert status.outcome is lt.Outcome.DIVERGED
    before = lt.simulate(problem, "full", rank=1, learning_rate=1e4, steps=status.step - 1)
    after = lt.simulate(problem, "full", rank=1, learning_rate=1e4, steps=status.step)
    assert bool(torch.isfinite(problem.loss(before.final)))
    assert not bool(torch.isfinite(problem.loss(after.final)))
    assert bool(torch.isfinite(after.final.A).all())  # the factors still are


def test_judging_by_hand():
    never = torch.tensor([endings.NEVER] * 4)
    start = torch.ones(1, 4, dtype=torch.float64)
    tail = torch.tensor(
        [
            [0.5, 0.5, 1e-30, 1.5],
            [0.4, 0.9, 3e-30, 3.0],
            [0.3, 0.5, 1e-30, 6.0],
            [0.2, 0.9, 3e-30, 12.0],
            [0.1, 0.5, 1e-30, 24.0],
        ],
        dtype=torch.float64,
    )
    found = endings.judge(never, torch.cat([start, tail]), start[0], None, 99)
    O = lt.Outcome
    assert [s.outcome for s in found] == [O.COMPLETED, O.OSCILLATING, O.COMPLETED, O.GROWING]
    assert found[1].factor == pytest.approx(0.4, rel=rounding(2, operations=4))
    assert found[3].factor == 24.0


def test_a_record_of_its_own_size_is_not_taken_for_invariant():
    """It holds a matrix of the problem's size, and the check is made at another one."""
    problem = lt.sample_linear(d=30, k=20, true_rank=2, samples=300)
    along = torch.ones(30, dtype=torch.float64)
    overlap = lt.Record("overlap", lambda view: (along @ view.shift.A).norm(dim=-1), invariant=True)
    with pytest.raises(ValueError, match=r"record 'overlap' claims .*leave invariant=True out"):
        lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=1, record=(overlap,))
    plain = lt.Record("overlap", overlap.measure)
    run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=1, record=(plain,))
    found = (along @ run.initial.A[0]).norm()
    # A sum of 30 entries and its norm.
    torch.testing.assert_close(run["overlap"][0, 0], found, **near(64, scale=1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_norm_of_a_gradient_does_not_depend_on_scale(dtype):
    """Of factors sA and sB with s so small that s²AB is lost beside Δ, it is s times one number."""
    draws = torch.Generator().manual_seed(0)
    shift, A, B = (torch.randn(*n, generator=draws, dtype=dtype) for n in ((6, 5), (6, 2), (2, 5)))
    problem = lt.LinearProblem.population(shift=shift)
    found = []
    for power in (40, 70 if dtype == torch.float32 else 540):
        initial = lt.Factors(A * 2.0**-power, B * 2.0**-power)
        run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=1,
                          initial=initial, record=["gradient_norm"])  # fmt: skip
        found.append(run["gradient_norm"][0] * 2.0**power)
    # Products of length 6 and a norm of 22 numbers, which may be summed in another order.
    allowed = rounding(22, operations=3, dtype=dtype)
    torch.testing.assert_close(*found, rtol=allowed, atol=0)
    assert float(found[0]) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e12])
def test_sharpness_does_not_depend_on_the_size_of_a_problem(size, dtype):
    """Against autograd's Hessian: where both factors are large, one, the other, and none."""
    draws = torch.Generator().manual_seed(0)
    L, R, A, B = (
        torch.randn(*n, generator=draws, dtype=dtype) for n in ((6, 2), (2, 5), (6, 2), (2, 5))
    )
    shift = size * (L @ R)
    problem = lt.LinearProblem.population(shift=shift)
    root = size**0.5
    for left, right in ((root, root), (root, 0.0), (0.0, 9 * root), (1.0, 0.0), (0.0, 0.0)):
        initial = lt.Factors(left * A, right * B)
        run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=1,
                          initial=initial, record=["sharpness"])  # fmt: skip

        def loss(x):
            return 0.5 * ((x[:12].view(6, 2) @ x[12:].view(2, 5) - shift.double()) ** 2).sum()

        theta = torch.cat([M.flatten() for M in initial]).double()
        want = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, theta))[-1]
        # Rounding and third differences, each eps^(2/3) of terms that are six times λ at most.
        allowed = 2 * 6 * eps(dtype) ** (2 / 3)
        np.testing.assert_allclose(run["sharpness"][0], want, rtol=allowed)
    # Of the shift itself, far from and near its start at zero.
    run = lt.simulate(problem, "full", rank=2, learning_rate=1e-9, steps=1, record=["sharpness"])
    np.testing.assert_allclose(run["sharpness"], 1.0, rtol=12 * eps(dtype) ** (2 / 3))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_sharpness_of_a_relu_problem_does_not_depend_on_its_size(size, method):
    draws = torch.Generator().manual_seed(1)
    X, W, D, A = (
        torch.randn(*n, generator=draws, dtype=torch.float64)
        for n in ((80, 6), (6, 5), (6, 5), (6, 2))
    )
    problem = lt.ReLUProblem.from_data(X, pretrained=size * W, shift=0.2 * size * D)
    initial = lt.Factors(size**0.5 * A, torch.zeros(2, 5, dtype=torch.float64))
    start = {"initial": initial} if method == "lora" else {}
    run = lt.simulate(problem, method, rank=2, learning_rate=0.1, steps=1,
                      record=["sharpness"], **start)  # fmt: skip
    labels = (X @ (size * W + 0.2 * size * D)).relu()

    def loss(x):
        shift = x.view(6, 5) if method == "full" else x[:12].view(6, 2) @ x[12:].view(2, 5)
        return 0.5 * (((X @ (size * W + shift)).relu() - labels) ** 2).sum() / 80

    theta = torch.zeros(30, dtype=torch.float64)
    if method == "lora":
        theta = torch.cat([M.flatten() for M in initial])
    want = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, theta))[-1]
    # Rounding of outputs of size 10 beside residuals of size one.
    np.testing.assert_allclose(run["sharpness"][0], want, rtol=2 * 10 * eps() ** (2 / 3))


@pytest.mark.parametrize("reduce", ["auto", "never"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["lora-ga", "lora-one-early", "pissa", "milora", "olora"])
def test_the_stable_rank_of_what_is_zero_to_rounding_is_undefined(method, dtype, reduce):
    problem = lt.sample_linear(d=12, k=8, true_rank=2, samples=60, seeds=(0, 1), dtype=dtype)
    run = lt.simulate(problem, method, rank=3, learning_rate=0.1, steps=3, reduce=reduce,
                      record=["stable_rank", "singular_values"])  # fmt: skip
    assert bool(run["stable_rank"][0].isnan().all())
    squares = run["singular_values"][1:].square()
    assert torch.equal(run["stable_rank"][1:], squares.sum(-1) / squares[..., 0])
    assert bool((run["stable_rank"][1:] >= 1).all())
