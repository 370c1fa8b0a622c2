"""Measurement operators against the explicit matrices a_i, written out longhand."""

import pkgutil

import numpy as np
import pytest
import scipy.sparse
import tolerance
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from tolerance import roots, rounding

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.problems.sensing import operators
from loraone_theory.problems.sensing.operators import (
    OPERATORS,
    Completion,
    Dense,
    Given,
    MultiResponse,
    RankOne,
    SingleResponse,
    Symmetric,
)
from loraone_theory.problems.sensing.problem import SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing

# Sums of dk = 36 and m = 60 products, as badly conditioned as the mean to the largest of them.
RELATIVE = rounding(36 + 60, operations=2, condition=6)
LIKE = torch.empty(0, dtype=torch.float64)
# (d, k, m): odd widths, m below and above the degrees of freedom r(d + k − r) of rank 2.
SHAPES = [(5, 7, 4), (7, 5, 60), (1, 3, 6), (6, 6, 11), (9, 2, 30)]


def explicit(operator, instance: int) -> np.ndarray:
    """a (m, d, k) of one instance, each matrix made by its definition."""
    d, k = operator.d, operator.k
    units = np.eye(d), np.eye(k)
    match operator.name:
        case "dense":
            return operator.matrices[instance].numpy()
        case "symmetric":
            a = np.zeros((operator.measurements, d, d))
            for i, row in enumerate(operator.packed[instance].numpy()):
                at = 0
                for p in range(d):
                    for q in range(p, d):
                        a[i, p, q] = a[i, q, p] = row[at]
                        at += 1
            return a
        case "rank-one":
            X, Z = operator.X[instance].numpy(), operator.Z[instance].numpy()
            return np.stack([np.outer(x, z) for x, z in zip(X, Z, strict=True)])
        case "multi-response":
            X = operator.X[instance].numpy()
            return np.stack([np.sqrt(k) * np.outer(x, e) for x in X for e in units[1]])
        case "single-response":
            X, j = operator.X[instance].numpy(), operator.columns[instance].numpy()
            return np.stack(
                [np.sqrt(k) * np.outer(x, units[1][c]) for x, c in zip(X, j, strict=True)]
            )
        case "completion":
            entries = zip(
                operator.rows[instance].tolist(), operator.columns[instance].tolist(), strict=True
            )
            return np.stack(
                [np.sqrt(d * k) * np.outer(units[0][p], units[1][q]) for p, q in entries]
            )
    raise AssertionError(operator.name)


def cases():
    for name in OPERATORS:
        for d, k, m in SHAPES:
            if name == "symmetric" and d != k:
                k = d
            m = m * k if name == "multi-response" else m
            yield pytest.param(name, d, k, m, id=f"{name}-{d}x{k}-{m}")


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    expected = torch.from_numpy(np.ascontiguousarray(expected))
    assert found.shape == expected.shape
    size = max(float(expected.abs().max()), 1e-300)
    assert float((found - expected).abs().max()) <= RELATIVE * max(size, 1.0)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


@pytest.mark.parametrize(("name", "d", "k", "m"), list(cases()))
def test_against_the_explicit_matrices(name: str, d: int, k: int, m: int) -> None:
    """forward, tangent, pulls and adjoints; runs as further leading dimensions."""
    operator = OPERATORS[name].sample(d, k, m, (3, 4), LIKE)
    assert operator.measurements == m
    assert operator.batch_shape == (2,)
    r, p = 2, 3
    F, dF = Factors(draw(4, 2, d, r), draw(4, 2, r, k)), Factors(draw(2, d, r, seed=1), draw(r, k))
    y, right, left = draw(4, 2, m), draw(2, k, p), draw(4, 2, d, p)
    a = np.stack([explicit(operator, i) for i in range(2)])  # (2, m, d, k)
    numpy = {n: t.numpy() for n, t in zip("ABy", (*F, y), strict=True)}
    AB = numpy["A"] @ numpy["B"]
    close(operator.forward(F), np.einsum("nmdk,lndk->lnm", a, AB))
    moved = dF.A.numpy() @ numpy["B"] + numpy["A"] @ dF.B.numpy()
    close(operator.tangent(F, dF), np.einsum("nmdk,lndk->lnm", a, moved))
    adjoint = np.einsum("nmdk,lnm->lndk", a, numpy["y"])
    close(operator.adjoint(y), adjoint)
    close(operator.adjoint_right(y, right), adjoint @ right.numpy())
    close(operator.adjoint_left(y, left), adjoint.swapaxes(-1, -2) @ left.numpy())
    pulled = operator.pull(y, F)
    close(pulled.A, adjoint @ numpy["B"].swapaxes(-1, -2))
    close(pulled.B, numpy["A"].swapaxes(-1, -2) @ adjoint)
    miss, both = operator.miss_and_pull(F, y)
    expected = np.einsum("nmdk,lndk->lnm", a, AB) - numpy["y"]
    R = np.einsum("nmdk,lnm->lndk", a, expected)
    close(miss, expected)
    close(both.A, R @ numpy["B"].swapaxes(-1, -2))
    close(both.B, numpy["A"].swapaxes(-1, -2) @ R)
    gradient = operator.gradient(y)
    close(gradient if isinstance(gradient, torch.Tensor) else gradient.dense(), adjoint)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_is_one(name: str) -> None:
    """⟨𝒜M, y⟩ = ⟨M, 𝒜*y⟩, in float32 as well."""
    for dtype in (torch.float64, torch.float32):
        operator = OPERATORS[name].sample(6, 6, 30, (0, 1, 2), LIKE.to(dtype))
        F = Factors(draw(3, 6, 2).to(dtype), draw(3, 2, 6).to(dtype))
        y = draw(3, 30).to(dtype)
        forward, back = operator.forward(F), operator.adjoint(y)
        assert forward.dtype == back.dtype == dtype
        left, right = (forward * y).sum(-1), (F.dense() * back).sum((-2, -1))
        size = forward.norm(dim=-1) * y.norm(dim=-1)
        # Sums of 36·30 products.
        assert ((left - right).abs() <= 100 * torch.finfo(dtype).eps * size).all()


@pytest.mark.parametrize(("name", "d", "k", "m"), list(cases()))
def test_loss_and_gradients_of_the_problem(name: str, d: int, k: int, m: int) -> None:
    """L = ‖𝒜(AB − offset) − y‖²/2m and its derivatives, from autograd on the explicit matrices."""
    problem = sample_sensing(
        ensemble=name, d=d, k=k, true_rank=1, measurements=m, noise_std=0.3, seeds=(5, 6)
    )
    offset = Factors(draw(2, d, 1), draw(2, 1, k))
    given = problem.with_offset(offset).with_offset(offset)
    a = torch.from_numpy(np.stack([explicit(problem.operator, i) for i in range(2)]))
    A, B = (M.requires_grad_() for M in (draw(2, d, 2), draw(2, 2, k)))
    miss = torch.einsum("nmdk,ndk->nm", a, A @ B - 2 * offset.dense()) - problem.labels
    loss = (miss**2).sum(-1) / (2 * m)
    expected = torch.autograd.grad(loss.sum(), (A, B))
    F = Factors(A.detach(), B.detach())
    close(given.loss(F), loss.detach().numpy())
    for found, wanted in zip(given.gradients(F), expected, strict=True):
        close(found, wanted.numpy())
    G = torch.einsum("nmdk,nm->ndk", a, problem.labels) / m
    found = problem.one_step_gradient()
    close(found if isinstance(found, torch.Tensor) else found.dense(), G.numpy())
    E = F.dense() - problem.shift.dense() - 2 * offset.dense()
    close(given.residual(F), E.numpy())
    close(given.risk(F), 0.5 * (E**2).sum((-2, -1)).numpy())


@pytest.mark.parametrize("name", OPERATORS)
def test_isotropy(name: str) -> None:
    """E 𝒜*𝒜/m = I on R^{dk} (on symmetric matrices for the symmetric ensemble)."""
    d, m = 3, 1200
    operator = OPERATORS[name].sample(d, d, m, tuple(range(50)), LIKE)
    a = np.stack([explicit(operator, i) for i in range(50)]).reshape(-1, d * d)
    K = a.T @ a / len(a)
    if name == "symmetric":
        rows, columns = np.triu_indices(d)
        basis = np.zeros((len(rows), d, d))
        for i, (p, q) in enumerate(zip(rows, columns, strict=True)):
            basis[i, p, q] = basis[i, q, p] = 1.0 if p == q else 0.5**0.5
        basis = basis.reshape(-1, d * d)
        K = basis @ K @ basis.T
    # 60,000 measurements; the entries of aaᵀ with the heaviest tails (completion) have variance
    # dk − 1 = 8, so K's have a standard deviation of 0.012 at most: six of those.
    assert np.abs(K - np.eye(len(K))).max() < 6 * (8 / 60_000) ** 0.5


# --- equalities between ensembles --------------------------------------------------------------


def test_rank_one_with_unit_vectors_is_single_response() -> None:
    d, k, m = 5, 4, 40
    single = SingleResponse.sample(d, k, m, (0, 1), LIKE)
    Z = k**0.5 * torch.eye(k, dtype=torch.float64)[single.columns]
    both = single, RankOne(single.X, Z)
    F, y = Factors(draw(3, 2, d, 2), draw(3, 2, 2, k)), draw(3, 2, m)
    one, two = (o.miss_and_pull(F, y) for o in both)
    close(one[0], two[0].numpy())
    close(one[1].A, two[1].A.numpy())
    close(one[1].B, two[1].B.numpy())


def test_all_outputs_of_all_inputs_are_the_linear_model() -> None:
    """Multi-response sensing and the linear problem of the same inputs: the same trajectories."""
    sizes = {"d": 6, "k": 5, "true_rank": 2, "seeds": (0, 1)}
    linear = lt.sample_linear(samples=40, **sizes)
    sensed = sample_sensing(ensemble="multi-response", measurements=200, **sizes)
    runs = [
        lt.simulate(p, "lora-one", rank=3, learning_rate=0.2, steps=30, seeds=(0, 1))
        for p in (linear, sensed)
    ]
    for record in ("loss", "risk"):
        # 30 contractive steps of two products on either side; sums of 200 measurements.
        roots(runs[0][record], runs[1][record], rounding(200, operations=4 * 30))


def test_single_responses_of_every_output_are_multi_response() -> None:
    d, k, N = 4, 3, 7
    multi = operators.MultiResponse.sample(d, k, N * k, (2,), LIKE)
    single = SingleResponse(
        multi.X.repeat_interleave(k, dim=-2), torch.arange(k).repeat(N)[None], k
    )
    F, y = Factors(draw(1, d, 2), draw(1, 2, k)), draw(1, N * k)
    close(multi.forward(F), single.forward(F).numpy())
    close(multi.adjoint(y), single.adjoint(y).numpy())


def test_packed_symmetric_is_dense_with_symmetric_matrices() -> None:
    packed = Symmetric.sample(4, 4, 9, (1,), LIKE)
    dense = Dense(torch.from_numpy(explicit(packed, 0)))
    F, y = Factors(draw(2, 4, 3), draw(2, 3, 4)), draw(2, 9)
    close(packed.forward(F), dense.forward(F).numpy())
    close(packed.adjoint(y), dense.adjoint(y).numpy())


def test_repeated_and_missing_entries() -> None:
    """Repeats add up (a plain assignment would lose them); unseen rows and columns get nothing."""
    rows, columns = torch.tensor([2, 0, 2, 2, 0]), torch.tensor([1, 3, 1, 0, 3])
    operator = Completion(rows, columns, 4, 5, LIKE, repeated=True)
    y = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    expected = np.zeros((4, 5))
    expected[2, 1], expected[0, 3], expected[2, 0] = 5, 18, 8
    close(operator.adjoint(y), 20**0.5 * expected)
    close(
        operator.counts,
        np.sign(expected) * np.array([[2.0], [0], [2], [0]]) - (np.arange(20).reshape(4, 5) == 10),
    )
    pulled = operator.pull(y, Factors(torch.eye(4).double(), torch.eye(5).double()[:4]))
    assert (pulled.A[[1, 3]] == 0).all()
    assert (pulled.B[:, [2, 4]] == 0).all()


def test_without_replacement_no_entry_repeats() -> None:
    seen = Completion.sample(5, 6, 30, (0, 1), LIKE, replace=False)
    assert (seen.counts == 1).all()
    some = Completion.sample(5, 6, 12, (0, 1), LIKE, replace=False)
    assert some.counts.max() == 1
    # Every entry seen once: 𝒜*𝒜/m is the identity exactly.
    F = Factors(draw(2, 5, 3), draw(2, 3, 6))
    close(seen.adjoint(seen.forward(F)) / 30, F.dense().numpy())


# --- operators of one's own --------------------------------------------------------------------


def test_functions_and_linear_operators() -> None:
    a = draw(12, 3, 4)
    dense = Dense(a)
    pair = Given(
        lambda M: torch.einsum("mdk,dk->m", a, M),
        lambda y: torch.einsum("mdk,m->dk", a, y),
        3,
        4,
        12,
        LIKE,
    )
    scipy = Given.from_scipy(aslinearoperator(a.reshape(12, 12).numpy()), d=3, k=4)
    F, y = Factors(draw(2, 5, 3, 2), draw(2, 5, 2, 4)), draw(2, 5, 12)
    for own in (pair, scipy):
        close(own.forward(F), dense.forward(F).numpy())
        close(own.adjoint(y), dense.adjoint(y).numpy())
        close(own.pull(y, F).A, dense.pull(y, F).A.numpy())
    problems = [
        SensingProblem.from_data(o, dense.forward(Factors(a[0, :, :1], a[0, :1])))
        for o in (dense, scipy)
    ]
    runs = [
        lt.simulate(p, "lora-one", rank=2, learning_rate=0.1, steps=20, record=("loss",))
        for p in problems
    ]
    # 12 measurements of 12 entries, four products in each of 20 steps.
    roots(runs[0]["loss"], runs[1]["loss"], rounding(12 + 12, operations=4 * 20))


def test_own_functions_that_do_not_fit() -> None:
    def measure(M: torch.Tensor) -> torch.Tensor:
        return M.sum(0)

    with pytest.raises(ValueError, match="must be each other's adjoint"):
        Given(measure, lambda y: 2 * y.expand(2, 3), 2, 3, 3, LIKE)
    with pytest.raises(ValueError, match=r"measure must map \(2, 3\) to \(4,\)"):
        Given(measure, lambda y: y[:3].expand(2, 3), 2, 3, 4, LIKE)
    with pytest.raises(ValueError, match=r"d \* k columns"):
        Given.from_scipy(aslinearoperator(np.eye(5)), d=2, k=3)


# --- methods -----------------------------------------------------------------------------------

W_BASED = {"pissa", "milora", "olora", "lora-xs"}


@pytest.mark.parametrize("method", lt.METHODS)
def test_every_method_on_every_ensemble(method: str) -> None:
    """The loss falls, or the method says by name what it lacks.

    Entrywise moments of nearly vanishing gradients may step the wrong way at first: there the run
    has to stay finite.
    """
    for name in OPERATORS:
        problem = sample_sensing(
            ensemble=name, d=6, k=6, true_rank=1, measurements=120, seeds=(0, 1)
        )
        options = {"rank": 2, "learning_rate": 0.01, "steps": 20, "seeds": (0, 1)}
        if method in W_BASED:
            with pytest.raises(ValueError, match=f"'{method}' initialises from the pre-trained"):
                lt.simulate(problem, method, **options)
        else:
            damping = 0.01 if method == "p-lora-adamw" else 0.0
            loss = lt.simulate(problem, method, damping=damping, **options)["loss"]
            falls = torch.isfinite(loss[-1]) if "adam" in method else loss[-1] < loss[0]
            assert falls.all()


# --- the table, and what is refused ------------------------------------------------------------


def test_table_equals_folder() -> None:
    files = {module.name for module in pkgutil.iter_modules(operators.__path__)} - {"given"}
    assert {name.replace("-", "_") for name in OPERATORS} == files
    for name, made in OPERATORS.items():
        assert made.name == name
        assert made.__module__.rpartition(".")[2] == name.replace("-", "_")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ensemble": "dens"}, "ensemble must be one of .* did you mean 'dense'"),
        ({"measurements": 0}, "measurements must be >= 1"),
        ({"noise_std": -1.0}, "noise_std must be finite and >= 0"),
        ({"true_rank": 9}, "true_rank must satisfy"),
        ({"ensemble": "symmetric"}, "d must equal k"),
        ({"ensemble": "multi-response"}, "must be a multiple of k"),
        ({"replace": False}, "replace=False applies to the completion ensemble"),
        (
            {"ensemble": "completion", "replace": False, "measurements": 31},
            r"measurements <= d \* k",
        ),
        ({"d": 10**4, "k": 10**4, "measurements": 10**6}, "take .* PB of memory, and this"),
    ],
)
def test_bad_arguments_of_sample_sensing(changed: dict, message: str) -> None:
    known = {"ensemble": "dense", "d": 5, "k": 6, "true_rank": 2, "measurements": 20}
    with pytest.raises(ValueError, match=message):
        sample_sensing(**(known | changed))


def test_indices_that_do_not_fit() -> None:
    good = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"rows must lie in 0..1; got values from 0 to 2"):
        Completion(torch.tensor([0, 2]), good, 2, 2, LIKE)
    with pytest.raises(ValueError, match=r"columns must lie in 0..2; got values from -1 to 1"):
        SingleResponse(draw(2, 4), torch.tensor([-1, 1]), 3)
    with pytest.raises(ValueError, match="one index per measurement"):
        Completion(good, torch.tensor([0, 1, 1]), 2, 2, LIKE)
    with pytest.raises(TypeError, match="must be int64 indices"):
        Completion(good.int(), good.int(), 2, 2, LIKE)
    with pytest.raises(ValueError, match="at least one index"):
        Completion(good[:0], good[:0], 2, 2, LIKE)


def test_an_entry_named_twice_is_refused_unless_asked_for() -> None:
    rows, columns = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 2, 2])
    with pytest.raises(ValueError, match=r"each entry once; got entry \(0, 2\) more than once"):
        Completion(rows, columns, 2, 3, LIKE)
    # Twice among the instances is not twice in one of them.
    apart = Completion(rows[:3].view(3, 1), columns[:3].view(3, 1), 2, 3, LIKE)
    assert apart.batch_shape == (3,)
    same = Completion(rows[:1].expand(3, 1), columns[:1].expand(3, 1), 2, 3, LIKE)
    assert (same.counts.sum((-2, -1)) == 1).all()
    # What the library draws with replacement, and minibatches of it, repeat as they may.
    drawn = Completion.sample(3, 2, 40, (0,), LIKE)
    assert drawn.repeated
    assert drawn.counts.sum() == 40
    once = Completion(rows[:3], columns[:3], 2, 3, LIKE)
    assert once.pick(torch.tensor([1, 1])).counts[1, 0] == 2
    whole = Completion(rows, columns, 2, 3, LIKE, repeated=True)
    assert whole.counts[0, 2] == 2
    with pytest.raises(TypeError, match="repeated"):
        Completion(rows[:3], columns[:3], 2, 3, LIKE, repeated="yes")  # type: ignore[arg-type]


def test_data_of_operators_that_does_not_fit() -> None:
    """Refused when an operator is made, or when labels come to it."""
    with pytest.raises(ValueError, match="X and Z must hold one row per measurement"):
        RankOne(draw(5, 3), draw(4, 2))
    with pytest.raises(TypeError, match="X and Z must have the same dtype"):
        RankOne(draw(5, 3), draw(5, 2).float())
    with pytest.raises(ValueError, match=r"packed must hold d\(d \+ 1\)/2 entries"):
        Symmetric(draw(5, 7), 3)
    for make in (Dense, lambda a: MultiResponse(a[..., 0], 2)):
        with pytest.raises(ValueError, match="must not be empty"):
            make(draw(4, 3, 2)[:0])
        with pytest.raises(TypeError, match="must be float32 or float64"):
            make(np.ones((4, 3, 2), dtype=int))
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        Dense(draw(3, 2))
    broken = draw(6, 3, 2)
    broken[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"operator must be finite; .* 1 NaN or infinite .* of 6"):
        SensingProblem.from_data(Dense(broken), draw(6))
    with pytest.raises(TypeError, match=r"Given\.from_scipy\(operator"):
        SensingProblem.from_data(aslinearoperator(np.eye(6)), draw(6))
    with pytest.raises(TypeError, match=r"rows must be int64 indices.*; got list"):
        Completion([0], [0], 2, 2, LIKE)
    for make in (MultiResponse, lambda X, k: SingleResponse(X, torch.tensor([0, 0]), k)):
        with pytest.raises(ValueError, match="k must be >= 1"):
            make(draw(2, 3), 0)
        with pytest.raises(TypeError, match="k must be an integer"):
            make(draw(2, 3), 2.0)
    with pytest.raises(ValueError, match="d must be >= 1"):
        Completion(torch.tensor([0]), torch.tensor([0]), 0, 2, LIKE)
    with pytest.raises(TypeError, match=r"like must be a Tensor.*torch\.ones"):
        Completion(torch.tensor([0]), torch.tensor([0]), 1, 2, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="operator must be real"):
        Given.from_scipy(aslinearoperator(1j * np.eye(6)), d=2, k=3)
    blind = LinearOperator((6, 6), matvec=lambda v: v, dtype=float)
    with pytest.raises(ValueError, match="must know its adjoint"):
        Given.from_scipy(blind, d=2, k=3)


def test_operators_of_numpy_arrays() -> None:
    """The same as of tensors; indices and floats alike. Printed in a line."""
    F = Factors(draw(3, 2), draw(2, 3))
    X, Z, a = draw(5, 3), draw(5, 3), draw(5, 3, 3)
    rows, columns = torch.tensor([0, 2]), torch.tensor([1, 1])
    for make, arrays in (
        (Dense, (a,)),
        (RankOne, (X, Z)),
        (lambda X: MultiResponse(X, 3), (X,)),
        (lambda X, j: SingleResponse(X, j, 3), (X[:2], rows)),
        (lambda i, j: Completion(i, j, 3, 3, LIKE), (rows, columns)),
        (lambda p: Symmetric(p, 3), (draw(5, 6),)),
    ):
        ours, theirs = make(*arrays), make(*(array.numpy() for array in arrays))
        assert torch.equal(ours.forward(F), theirs.forward(F))
        assert len(repr(ours)) < 120
    sparse = Given.from_scipy(scipy.sparse.csr_matrix(a.reshape(5, 9).numpy()), d=3, k=3)
    close(sparse.forward(F), Dense(a).forward(F).numpy())


def test_labels_that_do_not_fit() -> None:
    operator = Dense(draw(6, 3, 2))
    with pytest.raises(ValueError, match="one number per measurement"):
        SensingProblem.from_data(operator, draw(5))
    with pytest.raises(TypeError, match="same dtype"):
        SensingProblem.from_data(operator, draw(6).float())
    with pytest.raises(ValueError, match="must be finite"):
        SensingProblem.from_data(operator, draw(6) / 0)
    with pytest.raises(ValueError, match=r"shift must have the shape \(d, k\)"):
        SensingProblem.from_data(operator, draw(6), shift=draw(2, 3))


class Duck:
    """What scipy asks of an operator, and PyLops has: no class of either."""

    dtype = np.dtype(float)

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape = rows, rows.shape

    def matvec(self, v: np.ndarray) -> np.ndarray:
        return self.rows @ v

    def rmatvec(self, y: np.ndarray) -> np.ndarray:
        return self.rows.T @ y


@pytest.mark.parametrize("kind", ["duck", "float32"])
def test_operators_of_others_run_as_the_matrix_does(kind: str) -> None:
    """Descent written out over the rows, one by one."""
    rng = np.random.default_rng(3)
    dtype = np.float32 if kind == "float32" else np.float64
    rows = rng.standard_normal((40, 5 * 3)).astype(dtype)
    made = Duck(rows) if kind == "duck" else aslinearoperator(rows)
    operator = Given.from_scipy(made, d=5, k=3)
    assert operator.like.dtype == (torch.float32 if kind == "float32" else torch.float64)
    labels = rng.standard_normal(40).astype(dtype)
    A, B = (0.5 * rng.standard_normal(s).astype(dtype) for s in ((5, 2), (2, 3)))
    run = lt.simulate(
        lt.SensingProblem.from_data(operator, labels), "lora", rank=2, learning_rate=0.05, steps=10,
        initial=lt.Factors(torch.from_numpy(A), torch.from_numpy(B)), record=("loss",),
    )  # fmt: skip
    A, B = A.astype(float), B.astype(float)
    for _ in range(10):
        R = np.zeros((5, 3))
        for a, y in zip(rows.astype(float), labels.astype(float), strict=True):
            R += (a @ (A @ B).ravel() - y) * a.reshape(5, 3) / 40
        A, B = A - 0.05 * R @ B.T, B - 0.05 * A.T @ R
    # Ten steps, of sums over 40 measurements and 15 entries.
    wrong = rounding(55, operations=40, condition=10, dtype=dtype)
    for found, expected in zip(run.final, (A, B), strict=True):
        found = found.double().reshape(expected.shape)
        tolerance.close(found, torch.from_numpy(expected), wrong)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_operator_is_named(dtype: type) -> None:
    a = np.random.default_rng(0).standard_normal((40, 15)).astype(dtype)

    def twice(v: np.ndarray) -> np.ndarray:
        return 2 * (a.T @ v)

    wrong = scipy.sparse.linalg.LinearOperator(
        a.shape, matvec=lambda v: a @ v, rmatvec=twice, dtype=dtype
    )
    for kind, given, message in (
        (TypeError, "rows", "must be a scipy.sparse.linalg.LinearOperator.*got str"),
        (ValueError, a * np.nan, "measure must give finite numbers; got 40"),
        (ValueError, wrong, "each other's adjoint"),
    ):
        with pytest.raises(kind, match=message):
            Given.from_scipy(given, d=5, k=3)
