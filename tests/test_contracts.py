"""What a row in METHODS, RULES or INITS promises, checked for every row."""

import importlib.util
import inspect
import json
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tolerance
import torch
from conftest import CUDA

import loraone_theory as lt
from loraone_theory.core.factors import Factors
from loraone_theory.methods import inits, rules

D, K, TRUE_RANK, RANK, N = 9, 8, 4, 3, 72
SEEDS = (0, 1, 2)
W_BASED = {"pissa", "milora", "olora", "lora-xs"}
# A learning rate at which 40 steps of every method neither stall nor blow up.
ETA, STEPS = 0.02, 40
# 40 contractive steps of two products each, of sums over N samples; nothing is magnified.
TOLERANCE = {
    dtype: tolerance.rounding(N, operations=2 * STEPS, dtype=dtype)
    for dtype in (torch.float64, torch.float32)
}

# Two products and a norm over at most d·k entries.
ONCE = tolerance.rounding(D * K, operations=3)
# 15 steps of four products over d at condition numbers below 10^3, of tensors of size 3 at most.
PATHS = tolerance.near(D, operations=4 * 15, condition=1e3, scale=3.0)

# Gaussian entries of size 0.3 in place of 0.01, so that every method moves in 40 steps.
HYPER: dict[str, dict[str, Any]] = {
    name: {"init_std": 0.3} | ({"total_steps": 30} if name == "adalora" else {})
    for name, factory in lt.METHODS.items()
    if "init_std" in inspect.signature(factory).parameters
}


def method(name: str, **extra: Any) -> lt.Method:
    return lt.METHODS[name](**HYPER.get(name, {}), **extra)


def problem(
    seeds: tuple[int, ...] = SEEDS, dtype: str = "float64", device: str = "cpu"
) -> lt.LinearProblem:
    return lt.sample_linear(
        d=D, k=K, true_rank=TRUE_RANK, samples=N, seeds=seeds, dtype=dtype, device=device
    )


def simulate(name: str, given: lt.LinearProblem, seeds: Any = SEEDS, **options: Any):
    # Without a damping the first Gram matrix of B after B = 0 is nearly singular, and Adam's
    # entrywise steps turn its rounding into differences of 1e-7: such rules state a damping.
    damping = method(name).facts.damping
    known = {"rank": RANK, "learning_rate": ETA, "steps": STEPS, "damping": damping}
    options = known | options
    return lt.simulate(given, method(name), seeds=seeds, **options)


def slack(name: str) -> float:
    """Roundings of 40 steps, or as many errors of an integrator."""
    return max(TOLERANCE[torch.float64] * 100, STEPS * method(name).hyper["rule"].get("rtol", 0.0))


def assert_close(found: torch.Tensor, expected: torch.Tensor, relative: float) -> None:
    size = torch.linalg.matrix_norm(expected)
    assert (torch.linalg.matrix_norm(found - expected) <= relative * size).all()


def loops() -> list[Any]:
    """(method, engine): every method by torch, and by numba those of plain descent of a pair."""
    absent = importlib.util.find_spec("numba") is None
    skip = pytest.mark.skipif(absent, reason="the compiled loops need the extra fast")
    found = [pytest.param(name, "torch", id=name) for name in lt.METHODS]
    for name in lt.METHODS:
        descent = method(name).at(RANK).facts.descent
        if method(name).is_pair and descent is not None and descent.inverses is None:
            found.append(pytest.param(name, "numba", id=f"{name} by numba", marks=skip))
    return found


by_every_loop = pytest.mark.parametrize(("name", "engine"), loops())
# Where only the exact reduction leaves a problem that numba has a loop for.
UNREDUCED = {"torch": "never", "numba": "auto"}


# --- the tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "table"),
    [(rules, {**rules.RULES, **rules.AROUND}), (inits, inits.INITS)],
    ids=["rules", "inits"],
)
def test_table_equals_folder(package: Any, table: dict[str, Callable]) -> None:
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"base"}
    assert {name.replace("-", "_") for name in table} == files
    for name, factory in table.items():
        stem = name.replace("-", "_")
        assert factory.__name__ == stem
        assert factory.__module__ == f"{package.__name__}.{stem}"
        assert getattr(package, stem) is factory


def test_siblings_do_not_import_each_other() -> None:
    for package in (rules, inits):
        for factory in (rules.RULES if package is rules else inits.INITS).values():
            source = inspect.getsource(inspect.getmodule(factory))
            lines = [line for line in source.splitlines() if f"from {package.__name__}" in line]
            assert all(line.startswith(f"from {package.__name__}.base import") for line in lines)


@pytest.mark.parametrize("name", lt.METHODS)
def test_method_row(name: str) -> None:
    factory = lt.METHODS[name]
    made = factory()
    assert made.name == name
    assert made.name == lt.methods.get(name).name
    assert factory.__doc__.splitlines()[0].endswith(".")
    resolved = lt.methods.get(name, 4)
    assert resolved.scale > 0
    assert resolved.init_std is None or resolved.with_init_std(0.5).name == name
    keywords = inspect.signature(factory).parameters
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in keywords.values())


# --- methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@by_every_loop
def test_shapes_dtypes_and_devices(name: str, engine: str, dtype: str, device: str) -> None:
    if engine == "numba" and device != "cpu":
        pytest.skip("the compiled loops are the CPU's")
    run = simulate(name, problem(dtype=dtype, device=device), steps=3, engine=engine)
    wanted = getattr(torch, dtype)
    for factors in (run.initial, run.final):
        assert factors.shape == (len(SEEDS), D, K)
        for tensor in factors:
            assert tensor.dtype == wanted
            assert tensor.device.type == device
            assert torch.isfinite(tensor).all()
    assert run["risk"].shape == (4, len(SEEDS))
    assert run["risk"].dtype == wanted
    json.dumps(dict(run.config))


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("name", lt.METHODS)
def test_devices_agree(name: str, device: str) -> None:
    """The GPU's run is the CPU's; without a GPU there is nothing to compare."""
    expected = simulate(name, problem(), reduce="never")
    found = simulate(name, problem(device=device), reduce="never")
    shift = found.learned_shift().dense().cpu()
    assert_close(shift, expected.learned_shift().dense(), slack(name))


@by_every_loop
def test_float32_follows_float64(name: str, engine: str) -> None:
    options = {"reduce": UNREDUCED[engine], "engine": engine}
    single = simulate(name, problem(dtype="float32"), **options)
    double = simulate(name, problem(), **options)
    found, expected = (run.learned_shift().dense().double() for run in (single, double))
    # Adam divides by the size of each entry: where a gradient entry passes zero its float32
    # rounding becomes one wrong step of size η; all entries doing so would add up to this.
    entrywise = name.endswith("adamw")
    allowed = ETA * (D * K) ** 0.5 / 10 if entrywise else 0.0
    gap = torch.linalg.matrix_norm(found - expected)
    assert (gap <= TOLERANCE[torch.float32] * torch.linalg.matrix_norm(expected) + allowed).all()


@by_every_loop
def test_same_seed_same_bits_and_inputs_untouched(name: str, engine: str) -> None:
    given, options = problem(), {"reduce": UNREDUCED[engine], "engine": engine}
    tensors = [given.covariance.matrix, *given.shift, given.pretrained]
    before = [t.clone() for t in tensors]
    first, second = (simulate(name, given, **options) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert torch.equal(first["risk"], second["risk"])
    assert all(torch.equal(a, b) for a, b in zip(first.final, second.final, strict=True))


@by_every_loop
def test_batch_equals_stacked_singles(name: str, engine: str) -> None:
    together = simulate(name, problem(), engine=engine)
    for i, seed in enumerate(SEEDS):
        alone = simulate(name, problem((seed,)), seeds=[seed], engine=engine)
        found = together.learned_shift().dense()[i]
        assert_close(found, alone.learned_shift().dense()[0], slack(name))


@by_every_loop
def test_sweeps_equal_single_runs(name: str, engine: str) -> None:
    rates = [ETA / 2, ETA]
    swept = simulate(name, problem(), learning_rate=rates, engine=engine)
    for i, eta in enumerate(rates):
        alone = simulate(name, problem(), learning_rate=eta, engine=engine)
        found, expected = swept.learned_shift().dense(), alone.learned_shift().dense()
        # Factors of the offset carry no sweep axis, so the sum broadcasts to (rates, seeds).
        assert_close(found[i], expected, slack(name))
    if lt.methods.get(name).facts.inverts:
        dampings = [0.01, 0.1]
        swept = simulate(name, problem(), damping=dampings)
        for i, lam in enumerate(dampings):
            alone = simulate(name, problem(), damping=lam)
            assert_close(swept.final.dense()[i], alone.final.dense(), slack(name))


@by_every_loop
@pytest.mark.parametrize("population", [False, True], ids=["sampled", "population"])
def test_reduction_is_exact(name: str, engine: str, population: bool) -> None:
    """The reduced run by each loop against the unreduced one, which is torch's."""
    given = problem()
    if population:
        given = lt.LinearProblem.population(shift=given.shift, pretrained=given.pretrained)
    auto = simulate(name, given, reduce="auto", engine=engine)
    never = simulate(name, given, reduce="never")
    found, expected = (run.learned_shift().dense() for run in (auto, never))
    assert_close(found, expected, slack(name))
    tolerance.roots(auto["risk"], never["risk"], slack(name))
    if not lt.methods.get(name, RANK).rule(ETA, 0.0).equivariant:
        assert torch.equal(auto["risk"], never["risk"])  # nothing was reduced


@pytest.mark.parametrize("name", lt.METHODS)
def test_scale_is_consistent(name: str) -> None:
    """sA₀B₀ is what is offset, and the function at t = 0 is W or W + sA₀B₀ as the row says."""
    factory = lt.METHODS[name]
    if "scale" not in inspect.signature(factory).parameters:
        assert name in {"full", "full-adamw", "full-flow", "rslora"}
        return
    made = method(name, scale=2.0)
    assert made.scale == 2.0
    run = lt.simulate(problem(), made, rank=RANK, learning_rate=ETA, steps=1, record=("error",))
    delta = torch.linalg.matrix_norm(problem().shift.dense())
    start = run.scale * run.initial.dense()
    if made.offset:
        assert run.offset is not None
        assert_close(start, run.offset.dense(), ONCE)
        torch.testing.assert_close(run["error"][0], delta, rtol=ONCE, atol=0)
    else:
        assert run.offset is None
        expected = torch.linalg.matrix_norm(start - problem().shift.dense())
        torch.testing.assert_close(run["error"][0], expected, rtol=ONCE, atol=0)


@pytest.mark.parametrize("name", lt.METHODS)
def test_gradients_of_the_trainable_tensors_against_autograd(name: str) -> None:
    made = lt.methods.get(method(name), RANK)
    if made.parametrisation.is_pair or name == "full":
        made = lt.methods.get(method(name, scale=2.0) if "scale" in _keywords(name) else made, RANK)
    given = problem()
    start = made.init(given, RANK, SEEDS)
    if start.offset is not None:
        given = given.with_offset(start.offset)
    noise = [
        0.1 * torch.from_numpy(np.random.default_rng(i).standard_normal(t.shape))
        for i, t in enumerate(start.trainable)
    ]
    leaves = [(t + e).requires_grad_() for t, e in zip(start.trainable, noise, strict=True)]
    shift = made.parametrisation.shift(tuple(leaves), start.frozen)
    E = shift.dense() - given.target.dense()
    loss = 0.5 * (E * (given.covariance.matrix @ E)).sum()
    expected = torch.autograd.grad(loss, leaves)
    params = tuple(leaf.detach() for leaf in leaves)
    with torch.no_grad():
        gradients = given.gradients(made.parametrisation.shift(params, start.frozen))
        found = made.parametrisation.pullback(params, start.frozen, gradients)
    for ours, theirs in zip(found, expected, strict=True):
        # A start that all instances share collects the gradients of all of them.
        found, size = ours.sum_to_size(theirs.shape), float(theirs.norm())
        torch.testing.assert_close(found, theirs, **tolerance.near(N, operations=4, scale=size))


def _keywords(name: str) -> set[str]:
    return set(inspect.signature(lt.METHODS[name]).parameters)


# --- rules -----------------------------------------------------------------------------------

RULES: dict[str, Callable[[], rules.Rule]] = {
    name: (lambda make=make: make(0.01))
    for name, make in rules.RULES.items()
    if make(0.01).advance is None  # those are held to check_rule
}
RULES["adalora"] = lambda: rules.adalora(rules.gd(0.01), target_rank=2, total_steps=12)
RULES["lora-pro with betas"] = lambda: rules.lora_pro(0.01, betas=(0.9, 0.999))
RULES["scaled-adamw of peft"] = lambda: rules.scaled_adamw(0.01, order="peft")
RULES["whitened by a covariance"] = lambda: rules.whitened(
    0.01, covariance=np.diag(1.0 + np.arange(D))
)
RULES["adaptive preconditioned"] = lambda: rules.preconditioned(0.01, adaptive=0.1)


def test_every_rule_is_under_contract() -> None:
    elsewhere = {name for name, make in rules.RULES.items() if make(0.01).advance is not None}
    assert set(rules.RULES) <= set(RULES) | elsewhere


def tensors(
    name: str, dtype: torch.dtype = torch.float64, device: str = "cpu", runs: int = 2
) -> tuple[torch.Tensor, ...]:
    shapes = [(D, RANK), (RANK, K)]
    if name == "adalora":
        shapes.insert(1, (1, RANK))
    rng = np.random.default_rng(3)
    return tuple(
        torch.from_numpy(rng.standard_normal((runs, *shape))).to(device, dtype) for shape in shapes
    )


def turned(M: tuple[torch.Tensor, ...], left: torch.Tensor, right: torch.Tensor):
    return (left.mT @ M[0], *M[1:-1], M[-1] @ right)


def path(rule: rules.Rule, params, target: torch.Tensor, covariance: torch.Tensor, steps: int = 15):
    """The rule on ½⟨E, Σ̂E⟩ with E = AB − target, or PλQ − target."""
    state = rule.init(params)
    for _ in range(steps):
        A = params[0] if len(params) == 2 else params[0] * params[1]
        B = params[-1]
        M = covariance @ (A @ B - target)
        gradients = (M @ B.mT, A.mT @ M)
        if len(params) == 3:
            on_lam = (params[0] * gradients[0]).sum(-2, keepdim=True)
            gradients = (gradients[0] * params[1], on_lam, gradients[1])
        params, state = rule.update(params, gradients, state)
    return params


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_rule_keeps_shapes_and_mutates_nothing(name: str, dtype: torch.dtype, device: str) -> None:
    rule = RULES[name]()
    params = tensors(name, dtype, device)
    gradients = tuple(0.1 * P.flip(-1) for P in params)
    state = rule.init(params)
    before = [t.clone() for t in (*params, *gradients)]
    once, after = rule.update(params, gradients, state)
    again, _ = rule.update(params, gradients, state)
    assert all(torch.equal(a, b) for a, b in zip((*params, *gradients), before, strict=True))
    for new, repeated, old in zip(once, again, params, strict=True):
        assert torch.equal(new, repeated)  # neither the state nor anything hidden was changed
        assert (new.shape, new.dtype, new.device) == (old.shape, old.dtype, old.device)
        assert not torch.equal(new, old)
    if rule.dropped is not None:
        count, last = rule.dropped(after)
        assert count.shape == last.shape == (2,)


@pytest.mark.parametrize("name", RULES)
def test_rule_treats_runs_and_rates_of_a_batch_separately(name: str) -> None:
    params = tensors(name)
    target = torch.from_numpy(np.random.default_rng(5).standard_normal((2, D, K)))
    eye = torch.eye(D, dtype=torch.float64)
    together = path(RULES[name](), params, target, eye)
    for i in range(2):
        alone = path(RULES[name](), tuple(P[i] for P in params), target[i], eye)
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[i], expected, **PATHS)


@pytest.mark.parametrize("name", RULES)
def test_equivariant_flag_is_honest(name: str) -> None:
    """A rotated problem gives the rotated trajectory exactly where the rule states so."""
    rule = RULES[name]()
    rng = np.random.default_rng(9)
    left, right = (torch.from_numpy(np.linalg.qr(rng.standard_normal((n, n)))[0]) for n in (D, K))
    X = torch.from_numpy(rng.standard_normal((N, D)))
    target = torch.from_numpy(rng.standard_normal((D, K)))
    covariance = X.mT @ X / N
    # AdaLoRA's scores decide which triplets go: in many runs, some are decided differently.
    params = tensors(name, runs=40 if name == "adalora" else 2)
    plain = turned(path(rule, params, target, covariance), left, right)
    rotated = path(
        rule, turned(params, left, right), left.mT @ target @ right, left.mT @ covariance @ left
    )
    gap = max(((a - b).norm() / b.norm()).item() for a, b in zip(rotated, plain, strict=True))
    # 15 steps at condition numbers below 10^3, or differences of the size of the steps.
    assert gap < PATHS["rtol"] if rule.equivariant else gap > 1e-4


# --- initialisations -------------------------------------------------------------------------


@pytest.mark.parametrize("name", inits.INITS)
def test_init_contract(name: str, device: str) -> None:
    make = (lambda: inits.gaussian(0.1)) if name == "gaussian" else inits.INITS[name]
    for dtype in ("float32", "float64"):
        given = problem(dtype=dtype, device=device)
        start = make()(given, RANK, SEEDS)
        again = make()(given, RANK, SEEDS)
        for first, second in zip(
            (*start.trainable, *start.frozen, *(start.offset or ())),
            (*again.trainable, *again.frozen, *(again.offset or ())),
            strict=True,
        ):
            assert torch.equal(first, second)
            assert first.dtype == getattr(torch, dtype)
            assert first.device.type == device
            assert torch.broadcast_shapes(first.shape[:-2], (len(SEEDS),)) == (len(SEEDS),)
    for i, seed in enumerate(SEEDS):
        alone = make()(problem((seed,), "float64", device), RANK, (seed,))
        for batch, single in zip(start.trainable, alone.trainable, strict=True):
            mine = batch if batch.ndim == 2 else batch[i]
            # A gradient, an SVD and a product over N; factors and W are of size 3 at most.
            once = tolerance.near(N, operations=4, scale=3.0)
            torch.testing.assert_close(mine, single.reshape(mine.shape), **once)


@pytest.mark.parametrize("name", [n for n in lt.METHODS if n not in W_BASED])
def test_exact_law_problems(name: str) -> None:
    """Methods run on problems known up to a rotation where, and only where, that makes sense."""
    given = lt.sample_linear_matrix_free(d=12, k=10, true_rank=3, samples=60)
    rule = lt.methods.get(name, RANK).rule(ETA, 0.0)
    if rule.equivariant:
        assert torch.isfinite(simulate(name, given, seeds=[0])["risk"]).all()
    else:
        with pytest.raises(ValueError, match="not rotation-equivariant"):
            simulate(name, given, seeds=[0])


def test_factors_of_the_offset_broadcast() -> None:
    """A method with an offset keeps W_f + sA₀B₀ = W in every instance of a batch."""
    for name in lt.METHODS:
        start = lt.methods.get(name, RANK).init(problem(), RANK, SEEDS)
        assert (start.offset is not None) == lt.methods.get(name).offset
        if start.offset is not None:
            made = lt.methods.get(name)
            learned = made.parametrisation.shift(start.trainable, start.frozen).dense()
            assert_close(learned, Factors(*start.offset).dense(), ONCE)
