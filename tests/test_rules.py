"""Update rules against torch's optimisers, their identities, and the hard corners."""

import inspect
import itertools

import numpy as np
import pytest
import tolerance
import torch
from longhand import normal

import loraone_theory as lt
from loraone_theory.methods import rules
from loraone_theory.methods.rules.adalora import adalora, budget, penalty_gradient
from loraone_theory.methods.rules.lora_pro import project, sylvester

D, K, R = 9, 7, 3
STEPS = 30


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return normal(2, D, R, seed=seed), normal(2, R, K, seed=seed + 1)


def run(rule: rules.Rule, steps: int = STEPS) -> tuple[torch.Tensor, ...]:
    """The rule on gradients that do not depend on the parameters."""
    params = pair()
    state = rule.init(params)
    for t in range(steps):
        params, state = rule.update(params, pair(100 + 2 * t), state)
    return params


def run_torch(make, steps: int = STEPS) -> tuple[torch.Tensor, ...]:
    params = [torch.nn.Parameter(P.clone()) for P in pair()]
    optimiser = make(params)
    for t in range(steps):
        for P, G in zip(params, pair(100 + 2 * t), strict=True):
            P.grad = G
        optimiser.step()
    return tuple(P.detach() for P in params)


def gram_condition(A: torch.Tensor, B: torch.Tensor, damping: float = 0.0) -> float:
    """The larger condition number of AᵀA + λI and BBᵀ + λI, by numpy."""
    eye = damping * np.eye(A.shape[-1])
    grams = ((A.mT @ A).numpy(), (B @ B.mT).numpy())
    return float(max(np.linalg.cond(M + eye).max() for M in grams))


def assert_same(found, expected, condition: float = 1.0) -> None:
    """Ten roundings of every entry in each of 30 steps, whose path is below ten times its end."""
    allowed = tolerance.rounding(STEPS, operations=10 * 10, condition=condition)
    assert allowed < tolerance.rounding(STEPS, operations=100, condition=1e4)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm().item() <= allowed * theirs.norm().item()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_torchs(weight_decay: float) -> None:
    hyper = {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": weight_decay}
    expected = run_torch(lambda params: torch.optim.AdamW(params, lr=0.05, **hyper))
    assert_same(run(rules.adamw(0.05, **hyper)), expected)


def test_adamw_with_a_ratio_is_torchs_with_two_groups() -> None:
    hyper = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}

    def make(params):
        groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.2}]
        return torch.optim.AdamW(groups, lr=0.05, **hyper)

    assert_same(run(rules.adamw(0.05, ratio=4.0, **hyper)), run_torch(make))


# torch's AdamW, LoRA+'s ratio, and no damping or decay unless it is asked for.
DEFAULTS = {
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "ratio": 1.0},
    "scaled-adamw": {
        "damping": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "relative": 0.0,
    },
    "lora-pro": {"damping": 0.0, "scale": 1.0, "eps": 1e-8, "weight_decay": 0.0, "ridge": 1e-8},
    "lora-plus": {"ratio": 16.0, "weight_decay": 0.0, "l2": 0.0},
    "momentum": {"beta": 0.9, "weight_decay": 0.0, "l2": 0.0},
    "gd": {"weight_decay": 0.0, "l2": 0.0},
    "preconditioned": {
        "damping": 0.0, "adaptive": 0.0, "weight_decay": 0.0, "l2": 0.0, "relative": 0.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_stated(name: str) -> None:
    given = inspect.signature(rules.RULES[name]).parameters
    assert {key: given[key].default for key in DEFAULTS[name]} == DEFAULTS[name]


def test_momentum_is_torchs() -> None:
    expected = run_torch(lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.7))
    assert_same(run(rules.momentum(0.05, 0.7)), expected)
    assert_same(run(rules.momentum(0.05, 0.0)), run(rules.gd(0.05)))


def test_lora_plus_with_ratio_one_is_gd() -> None:
    assert_same(run(rules.lora_plus(0.05, 1.0)), run(rules.gd(0.05)))


def projector(frame: torch.Tensor) -> torch.Tensor:
    Q = torch.linalg.qr(frame).Q
    return Q @ Q.mT


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("free", [None, 0, 1])
def test_lora_pro_equivalent_gradient(scale: float, free: int | None) -> None:
    """s(A g^B + g^A B) = P_A𝒢 + (I − P_A)𝒢P_B, whatever Z is."""
    A, B = pair()
    full = normal(2, D, K, seed=5)
    Z = None if free is None else 3 * normal(2, R, R, seed=free)
    gradients = (scale * full @ B.mT, scale * A.mT @ full)
    g_A, g_B = project((A, B), gradients, 0.0, scale, Z).steps
    P_A, P_B = projector(A), projector(B.mT)
    expected = P_A @ full + (full - P_A @ full) @ P_B
    # Gram matrices are inverted; A Z B is added to one term and taken from the other.
    unit = tolerance.rounding(D, operations=6, condition=gram_condition(A, B))
    free_part = 0.0 if Z is None else float(A.norm() * Z.norm() * B.norm())
    gap = (scale * (A @ g_B + g_A @ B) - expected).norm()
    assert gap <= unit * (full.norm() + scale * free_part)


def test_lora_pro_equivalent_gradient_is_the_least_squares_optimum() -> None:
    A, B = pair()
    full = normal(2, D, K, seed=5)
    g_A, g_B = project((A, B), (full @ B.mT, A.mT @ full), 0.0, 1.0).steps
    misfit = full - (A @ g_B + g_A @ B)
    # Stationary: the misfit is orthogonal to every A Y + X B.
    unit = tolerance.rounding(D, operations=6, condition=gram_condition(A, B)) * full.norm()
    assert (A.mT @ misfit).norm() <= unit * A.norm()
    assert (misfit @ B.mT).norm() <= unit * B.norm()


def test_lora_pro_chooses_the_steps_nearest_to_the_gradients() -> None:
    """Among all Z, the Sylvester solution minimises ‖g^A − ∇_A‖² + ‖g^B − ∇_B‖²."""
    A, B = pair()
    full = normal(2, D, K, seed=5)
    gradients = (full @ B.mT, A.mT @ full)

    def distance(Z: torch.Tensor | None) -> torch.Tensor:
        steps = project((A, B), gradients, 0.0, 1.0, Z).steps
        pairs = zip(steps, gradients, strict=True)
        return sum(((g - G) ** 2).sum((-2, -1)) for g, G in pairs)

    M, N = A.mT @ A, B @ B.mT
    best = sylvester(M, N, -(A.mT @ gradients[0] @ torch.linalg.inv(N)))
    at_best = distance(best)
    # The least of a square: to the square of what Z is off by, and its own sums over D and R.
    once = tolerance.rounding(D * R, operations=4)
    torch.testing.assert_close(distance(None), at_best, rtol=once, atol=0)
    for seed in range(20):
        assert (distance(best + 0.1 * normal(2, R, R, seed=seed)) > at_best).all()


def test_sylvester_against_kronecker_and_in_the_singular_case() -> None:
    half_M, half_N, C = normal(5, R, seed=1), normal(6, R, seed=2), normal(R, R, seed=3)
    M, N = half_M.mT @ half_M, half_N.mT @ half_N
    eye = torch.eye(R, dtype=M.dtype)
    system = torch.kron(M, eye) + torch.kron(eye, N)
    expected = torch.linalg.solve(system, C.flatten())[None]
    found, zero = sylvester(M, N, C).flatten()[None], torch.zeros_like(M)
    for ours, theirs, solved in ((found, expected, system), (sylvester(zero, N, C) @ N, C, N)):
        condition = float(np.linalg.cond(solved.numpy()))
        tolerance.close(ours, theirs, tolerance.rounding(R * R, operations=4, condition=condition))
    assert not sylvester(zero, zero, C).any()


def test_lora_pro_at_zero_B() -> None:
    """First step from LoRA-init: g^A = 0 and g^B = s⁻²M⁻¹∇_B."""
    A, B = pair()
    full = normal(2, D, K, seed=5)
    B = torch.zeros_like(B)
    g_A, g_B = project((A, B), (2.0 * full @ B.mT, 2.0 * A.mT @ full), 0.0, 2.0).steps
    assert not g_A.any()
    expected = torch.linalg.solve(A.mT @ A, 2.0 * A.mT @ full) / 4.0
    condition = float(np.linalg.cond((A.mT @ A).numpy()).max())
    tolerance.close(g_B, expected, tolerance.rounding(D, operations=4, condition=condition))


def test_preconditioned_counts_the_overlap_twice() -> None:
    """P-GD moves W along P_A𝒢 + 𝒢P_B to first order, LoRA-Pro along that less P_A𝒢P_B."""
    A, B = pair()
    full = normal(2, D, K, seed=5)
    gradients, eta = (full @ B.mT, A.mT @ full), 1e-6
    P_A, P_B = projector(A), projector(B.mT)

    def moved(rule: rules.Rule) -> torch.Tensor:
        new, _ = rule.update((A, B), gradients, rule.init((A, B)))
        return (A @ B - new[0] @ new[1]) / eta

    double = moved(rules.preconditioned(eta)) - moved(rules.lora_pro(eta, ridge=0.0))
    # Each rule has a term ηg^A g^B of second order, with ‖g^A‖ <= ‖𝒢‖/σ_min(B) and the same of B;
    # differences of AB lose its rounding over η.
    least = [float(torch.linalg.svdvals(M)[..., -1].min()) for M in (A, B)]
    second = 2 * eta * float(full.norm()) ** 2 / (least[0] * least[1])
    lost = tolerance.rounding(R, operations=4) * float(A.norm() * B.norm()) / eta
    assert (double - P_A @ full @ P_B).norm() <= second + lost


def balanced_excess(rank: int) -> tuple[lt.LinearProblem, lt.Factors]:
    """A population problem of true rank 3 and balanced factors of a full-rank neighbour of Δ."""
    problem = lt.LinearProblem.population(
        shift=lt.sample_linear(d=12, k=10, true_rank=3, samples=20).shift
    )
    near = problem.shift.dense() + 0.1 * normal(1, 12, 10, seed=0)
    U, S, V = lt.linalg.truncated_svd(near, rank)
    return problem, lt.Factors(U * S.sqrt()[..., None, :], S.sqrt()[..., None] * V.mT)


def test_adaptive_damping_restores_the_linear_rate_when_r_exceeds_the_true_rank() -> None:
    problem, initial = balanced_excess(rank=6)
    options = {"rank": 6, "learning_rate": 0.3, "initial": initial, "record": ("error",)}
    fixed = lt.simulate(problem, "p-lora", steps=200, damping=0.1, **options)
    # x ← x − ηx³/(x² + λ) has x² → λ/(2ηt) in each of the r − r* excess directions; to first order
    # λ/2x² = ηt + λ/2x₀² + ln(x/x₀), which from x₀² = 0.1/6 or more is within a tenth of ηt = 60.
    expected = 3**0.5 * 0.1 / (2 * 0.3 * 200)
    assert fixed["error"][-1].item() == pytest.approx(expected, rel=0.1)
    for c in (0.01, 0.1, 0.3):
        method = lt.methods.p_lora(adaptive=c)
        adaptive = lt.simulate(problem, method, steps=100, **options)
        # The law of fixed damping would leave 1e-3, a linear rate of 1 − η or so leaves 0.7^100.
        # At least a step of 0.7·0.3 in the logarithm: half of them would do.
        assert adaptive["error"][-1].item() < 0.8**100
        assert adaptive.status[0].outcome is lt.Outcome.COMPLETED
    undamped = lt.simulate(problem, "p-lora", steps=100, **options)
    assert undamped.status[0].outcome is lt.Outcome.TRUNCATED


def test_adaptive_damping_vanishes_linearly_with_the_residual() -> None:
    """From a point at distance t of a solution, the first step differs from undamped by c·ρ ∝ t."""
    A, B = pair()
    full = normal(2, D, K, seed=5)
    c = 1e-6
    damped, plain = rules.preconditioned(1.0, adaptive=c), rules.preconditioned(1.0)

    def effect(t: float) -> torch.Tensor:
        gradients = (t * full @ B.mT, t * A.mT @ full)
        with_it, without = (
            rule.update((A, B), gradients, rule.init((A, B)))[0] for rule in (damped, plain)
        )
        # The step is proportional to t as well, so divide it out.
        return (with_it[0] - without[0]).norm() / t

    # The effect per unit of gradient is c·ρ(t)·const: ten times smaller for a tenth of t, but for
    # the next power of cρ/σ_min² = 1e-6·10/0.1, and for rounding over cρ.
    assert (effect(1.0) / effect(0.1)).item() == pytest.approx(10.0, rel=10 * c * 10 / 0.1)


@pytest.mark.parametrize(
    ("name", "eta"),
    [("p-lora", 0.1), ("p-lora-adamw", 0.01), ("lora-pro", 0.1), ("lora-pro-adamw", 0.01)],
)
def test_singular_gram_is_reported_or_damped_and_harmless(name: str, eta: float) -> None:
    problem = lt.sample_linear(d=10, k=8, true_rank=2, samples=80)
    duplicated = normal(1, 10, 1, seed=0).expand(1, 10, 3).contiguous()
    initial = lt.Factors(duplicated, torch.zeros(1, 3, 8, dtype=torch.float64))
    one = lt.simulate(problem, name, rank=3, learning_rate=eta, steps=20, initial=initial)
    ridge = name.startswith("lora-pro")  # its own, 1e-8
    expected = lt.Outcome.COMPLETED if ridge else lt.Outcome.TRUNCATED
    assert one.status[0].outcome is expected
    assert torch.isfinite(one["risk"]).all()
    assert one["risk"][-1] < one["risk"][0]


@pytest.mark.parametrize("name", lt.METHODS)
def test_a_diverging_run_does_not_disturb_the_others(name: str) -> None:
    problem = lt.sample_linear(d=8, k=7, true_rank=2, samples=60, seeds=(0, 1))
    options = {"rank": 2, "steps": 150, "record": ("loss",)}
    alone = lt.simulate(problem, name, learning_rate=0.01, **options)
    both = lt.simulate(problem, name, learning_rate=[0.01, 1e200], **options)
    # 150 steps of two products over 60 samples, whose maps magnify rounding less than 1e2 times.
    allowed = tolerance.rounding(60, operations=2 * 150, condition=1e2)
    torch.testing.assert_close(both["loss"][:, 0], alone["loss"], rtol=allowed, atol=0)
    # Adam's steps are bounded, so its parameters may stay finite; its loss does not stay small.
    assert not (both["loss"][-1, 1] < 1e100).any()


# --- AdaLoRA ---------------------------------------------------------------------------------


@pytest.mark.parametrize("squared", [False, True])
def test_penalty_gradient_against_autograd(squared: bool) -> None:
    P = normal(2, D, R, seed=0).requires_grad_()
    sizes = torch.linalg.matrix_norm(P.mT @ P - torch.eye(R, dtype=P.dtype))
    (expected,) = torch.autograd.grad((sizes**2 if squared else sizes).sum(), P)
    # A Gram matrix over D, its norm and a product.
    tolerance.close(
        penalty_gradient(P.detach(), squared), expected, tolerance.rounding(D, operations=3)
    )


def test_penalty_gradient_at_an_exact_frame_is_zero() -> None:
    P = torch.eye(D, R, dtype=torch.float64)
    assert not penalty_gradient(P).any()


def test_budget_starts_at_the_rank_and_ends_at_the_target() -> None:
    plan = [budget(t, 12, 8, total=100, initial=10, final=30) for t in range(101)]
    assert plan[:11] == [12] * 11
    assert plan[70:] == [8] * 31
    assert all(a >= b for a, b in itertools.pairwise(plan))
    # Half way, an eighth of the difference is left: 8 + 4/8 rounds down to 8.
    assert plan[40] == 8
    assert plan[25] == int(8 + 4 * 0.75**3)


def counts(method: lt.Method, rank: int, steps: int) -> list[list[int]]:
    """Non-zero λ in each of three runs, after every step."""
    problem = lt.sample_linear(d=10, k=9, true_rank=4, samples=100, seeds=(0, 1, 2))
    rule = method.rule(0.3, 0.0)
    start = method.init(problem, rank, (0, 1, 2))
    params, state, seen = start.trainable, rule.init(start.trainable), []
    for _ in range(steps):
        gradients = problem.gradients(method.parametrisation.shift(params, ()))
        pulled = method.parametrisation.pullback(params, (), gradients)
        params, state = rule.update(params, pulled, state)
        seen.append((params[1] != 0).sum((-2, -1)).tolist())
    return seen


def test_adalora_masks_as_many_as_the_budget_says_and_ends_at_the_target() -> None:
    method = lt.methods.adalora(
        target_rank=2, total_steps=40, initial_steps=8, final_steps=12, interval=4
    )
    seen = counts(method, rank=6, steps=60)
    for t, found in enumerate(seen, start=1):
        if t >= 28 or t % 4 == 0:
            assert found == [budget(t, 6, 2, 40, 8, 12)] * 3
        else:  # masked λ go on receiving gradients until the next mask
            assert found == [6] * 3
    assert seen[-1] == [2] * 3


def test_adalora_with_target_equal_to_rank_masks_nothing() -> None:
    seen = counts(lt.methods.adalora(target_rank=4, total_steps=10), rank=4, steps=20)
    assert seen == [[4] * 3] * 20


def test_adalora_smooths_sensitivities_by_085() -> None:
    assert inspect.signature(adalora).parameters["betas"].default == (0.85, 0.85)


def test_adalora_default_target_is_two_thirds() -> None:
    assert counts(lt.methods.adalora(total_steps=10), rank=6, steps=10)[-1] == [4] * 3
    assert counts(lt.methods.adalora(total_steps=10), rank=1, steps=10)[-1] == [1] * 3


def test_adalora_refuses_bad_schedules() -> None:
    problem = lt.sample_linear(d=10, k=9, true_rank=4, samples=100)
    options = {"rank": 3, "learning_rate": 0.1, "steps": 1}
    with pytest.raises(ValueError, match="target_rank=4 with rank=3; lower target_rank"):
        lt.simulate(problem, lt.methods.adalora(target_rank=4), **options)
    with pytest.raises(ValueError, match=r"must be < total_steps; got 2 \+ 3 with total_steps=5"):
        lt.methods.adalora(total_steps=5, initial_steps=2, final_steps=3)


# --- choosing rules --------------------------------------------------------------------------


def test_trained_by_says_what_fits() -> None:
    with pytest.raises(
        ValueError, match="train A and B; 'lora-sb-preconditioned' trains sARB; use gd"
    ):
        lt.methods.lora_sb().trained_by("preconditioned")
    with pytest.raises(ValueError, match=r"rule must be one of .*did you mean 'adamw'"):
        lt.methods.lora().trained_by("adam")
    with pytest.raises(ValueError, match="hyper-parameter of 'adamw' must be one of betas"):
        lt.methods.lora().trained_by("adamw", beta=0.9)
    with pytest.raises(ValueError, match="rule must be one of"):
        lt.methods.lora().trained_by("adalora")


def test_trained_by_keeps_the_start_and_its_sweeps() -> None:
    problem = lt.sample_linear(d=8, k=7, true_rank=2, samples=60)
    method = lt.methods.lora().trained_by("adamw", eps=1e-3)
    run = lt.simulate(
        problem, method, rank=2, learning_rate=0.01, steps=5, init_std=[0.1, 0.3], record=("loss",)
    )
    one = lt.simulate(
        problem, lt.methods.lora_adamw(init_std=0.3, eps=1e-3), rank=2, learning_rate=0.01, steps=5
    )
    allowed = tolerance.rounding(60, operations=2 * 5)  # five steps of two products over samples
    torch.testing.assert_close(run["loss"][:, 1], one["loss"], rtol=allowed, atol=0)
    assert run.config["hyper"]["rule"]["name"] == "adamw"


def test_a_scale_that_waits_for_the_rank() -> None:
    problem = lt.sample_linear(d=8, k=7, true_rank=2, samples=60)
    options = {"rank": 4, "learning_rate": 0.01, "steps": 30}
    cases = {
        "alpha / r": (lt.methods.Alpha(6.0), 1.5),
        "alpha / sqrt r": (lt.methods.Alpha(6.0, stabilised=True), 3.0),
    }
    for scale, s in cases.values():
        for factory in (lt.methods.lora, lt.methods.pissa, lt.methods.lora_pro, lt.methods.lora_sb):
            waiting = lt.simulate(problem, factory(scale=scale), **options)
            plain = lt.simulate(problem, factory(scale=s), **options)
            assert torch.equal(waiting["risk"], plain["risk"])
            assert waiting.scale == plain.scale
    with pytest.raises(ValueError, match=r"not known yet; take the method from methods.get"):
        _ = lt.methods.rslora().parametrisation
    waiting = lt.methods.lora(scale=lt.methods.Alpha(6.0)).init(problem, 4, (0,))
    assert torch.equal(waiting.trainable[0], lt.methods.lora().init(problem, 4, (0,)).trainable[0])


# --- weight decay ----------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "rule"), [(0.0, "gd"), (0.7, "momentum")])
def test_l2_is_the_weight_decay_of_torchs_sgd(beta: float, rule: str) -> None:
    hyper = {"beta": beta} if rule == "momentum" else {}
    expected = run_torch(
        lambda params: torch.optim.SGD(params, lr=0.05, momentum=beta, weight_decay=0.3)
    )
    assert_same(run(rules.RULES[rule](0.05, l2=0.3, **hyper)), expected)


def test_decoupled_decay_is_its_formula() -> None:
    """Entry by entry in numpy: P ← (1 − ηw)P − η(step)."""
    eta, w, beta, lam = 0.05, 0.3, 0.6, 0.2
    start = [P.numpy() for P in pair()]
    names = ("gd", "momentum", "lora-plus", "preconditioned")
    for name in names:
        condition = 1.0
        A, B = (P.copy() for P in start)
        ball = [np.zeros_like(A), np.zeros_like(B)]
        for t in range(5):
            steps = [G.numpy() for G in pair(100 + 2 * t)]
            rates = [eta, eta]
            if name == "momentum":
                ball = [beta * M + G for M, G in zip(ball, steps, strict=True)]
                steps = ball
            elif name == "lora-plus":
                rates = [eta, 4 * eta]
            elif name == "preconditioned":
                eye = lam * np.eye(R)
                right = np.linalg.inv(B @ B.swapaxes(-1, -2) + eye)
                left = np.linalg.inv(A.swapaxes(-1, -2) @ A + eye)
                condition = max(condition, *(np.linalg.cond(M).max() for M in (left, right)))
                steps = [steps[0] @ right, left @ steps[1]]
            A = (1 - rates[0] * w) * A - rates[0] * steps[0]
            B = (1 - rates[1] * w) * B - rates[1] * steps[1]
        hyper = {
            "momentum": {"beta": beta},
            "lora-plus": {"ratio": 4.0},
            "preconditioned": {"damping": lam},
        }.get(name, {})
        found = run(rules.RULES[name](eta, weight_decay=w, **hyper), steps=5)
        assert_same(found, tuple(torch.from_numpy(P) for P in (A, B)), condition)


def test_l2_in_preconditioned_descent_is_preconditioned_with_the_gradient() -> None:
    eta, w, lam = 0.05, 0.3, 0.2
    (A, B), (grad_A, grad_B) = pair(), pair(100)
    eye = lam * torch.eye(R, dtype=torch.float64)
    expected = (
        A - eta * (grad_A + w * A) @ torch.linalg.inv(B @ B.mT + eye),
        B - eta * torch.linalg.inv(A.mT @ A + eye) @ (grad_B + w * B),
    )
    condition = gram_condition(A, B, lam)
    assert_same(run(rules.preconditioned(eta, lam, l2=w), steps=1), expected, condition)


DECAYED = [
    (name, kind)
    for name in ("gd", "momentum", "lora-plus", "preconditioned")
    for kind in ("weight_decay", "l2")
] + [("lora-pro", "weight_decay")]


@pytest.mark.parametrize(("name", "kind"), DECAYED)
def test_decayed_runs_reduce_exactly_and_state_what_changes(name: str, kind: str) -> None:
    problem = lt.sample_linear(d=9, k=8, true_rank=2, samples=60, seeds=(0, 1))
    method = lt.methods.lora(init_std=0.3).trained_by(name, **{kind: 0.2})
    assert method.facts.equivariant
    assert method.facts.descent is None  # the step in place has no decay
    assert method.facts.local is None
    damping = 0.1 if method.facts.inverts else 0.0
    auto, never = (
        lt.simulate(
            problem, method, rank=3, learning_rate=0.05, steps=40, damping=damping, reduce=how
        )
        for how in ("auto", "never")
    )
    # 40 contractive steps of two products over 60 samples, E being a tenth of AB at the least.
    allowed = tolerance.rounding(60, operations=2 * 40, condition=10.0)
    torch.testing.assert_close(auto["risk"], never["risk"], rtol=allowed, atol=0)
    note = lt.predict.contraction(problem, method, rank=3).notes[0]
    assert "weight decay moves the solution" in note


def test_without_decay_nothing_is_changed() -> None:
    for name in ("gd", "momentum", "lora-plus", "preconditioned"):
        plain, zero = rules.RULES[name](0.05), rules.RULES[name](0.05, weight_decay=0.0, l2=0.0)
        assert all(torch.equal(a, b) for a, b in zip(run(plain), run(zero), strict=True))
        assert (plain.descent is None) == (zero.descent is None) == (name == "momentum")


# --- one clear error -------------------------------------------------------------------------

BAD_HYPER = [
    ("adamw", {"betas": (2, 2)}, r"betas\[0\] of rule 'adamw' must satisfy 0 <= betas\[0\] < 1"),
    ("adamw", {"betas": (0.9, -0.1)}, r"betas\[1\] of rule 'adamw' must satisfy"),
    ("adamw", {"betas": 0.9}, "betas of rule 'adamw' must be two numbers; got 0.9"),
    ("adamw", {"betas": (0.9, 0.9, 0.9)}, "betas of rule 'adamw' must be two numbers"),
    ("adamw", {"eps": -1e-8}, "eps of rule 'adamw' must satisfy 0 < eps; got eps=-1e-08; 1e-8"),
    ("adamw", {"eps": 0.0}, "eps of rule 'adamw' must satisfy 0 < eps"),
    ("adamw", {"weight_decay": -0.1}, "weight_decay of rule 'adamw' must satisfy 0 <= weight"),
    ("adamw", {"ratio": 0.5}, "ratio of rule 'adamw' must satisfy 1 <= ratio"),
    ("gd", {"weight_decay": float("nan")}, "weight_decay of rule 'gd' must satisfy"),
    ("gd", {"l2": -1.0}, "l2 of rule 'gd' must satisfy 0 <= l2; got l2=-1"),
    ("gd", {"decay": 0.1}, "hyper-parameter of 'gd' must be one of l2, weight_decay; got 'decay'"),
    (
        "momentum",
        {"beta": 2},
        "beta of rule 'momentum' must satisfy 0 <= beta < 1; got beta=2; 0.9",
    ),
    ("momentum", {"beta": "0.9"}, "beta of rule 'momentum' must be a number"),
    ("lora-plus", {"ratio": -4}, "ratio of rule 'lora-plus' must satisfy 1 <= ratio; got ratio=-4"),
    ("preconditioned", {"adaptive": -1}, "adaptive of rule 'preconditioned' must satisfy"),
    ("preconditioned", {"damping": 1.0}, "hyper-parameter of 'preconditioned' must be one of"),
    ("scaled-adamw", {"betas": (1.0, 0.9)}, r"betas\[0\] of rule 'scaled-adamw' must satisfy"),
    ("scaled-adamw", {"order": "later"}, "order must be one of released, peft"),
    ("lora-pro", {"ridge": -1.0}, "ridge of rule 'lora-pro' must satisfy"),
    ("lora-pro", {"betas": (0.9, 1.5)}, r"betas\[1\] of rule 'lora-pro' must satisfy"),
]


@pytest.mark.parametrize(("rule", "hyper", "message"), BAD_HYPER)
def test_bad_hyper_parameters_are_refused_at_once(rule: str, hyper: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        lt.methods.lora().trained_by(rule, **hyper)


@pytest.mark.parametrize("name", rules.RULES)
def test_rules_refuse_rates_below_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"learning_rate of rule '{name}' must satisfy 0 <= learn"):
        rules.RULES[name](-1.0)
    if rules.RULES[name](1.0).inverts:
        with pytest.raises(ValueError, match=f"damping of rule '{name}' must satisfy 0 <= damping"):
            rules.RULES[name](1.0, damping=-1.0)
