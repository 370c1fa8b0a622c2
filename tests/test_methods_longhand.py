"""Every method's first step and 50-step trajectory against a dense numpy loop of its formulas.

The loops share no code with the package: they take its initial tensors (checked on their own in
test_inits.py) and go on with X, W and Y as matrices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tolerance

import loraone_theory as lt

D, K, N, RANK, TRUE_RANK, STEPS = 8, 7, 40, 3, 4, 50
# 50 steps of two products each, of sums over N, by maps that magnify rounding less than 1e2 times.
TOLERANCE = tolerance.rounding(N, operations=2 * STEPS, condition=1e2)

Params = list[np.ndarray]
Memory = dict[str, Any]
Step = Callable[..., Params]

_rng = np.random.default_rng(7)
X = _rng.standard_normal((N, D))
W = 0.5 * _rng.standard_normal((D, K))
DELTA = (
    np.linalg.qr(_rng.standard_normal((D, TRUE_RANK)))[0]
    * np.array([1.0, 0.8, 0.6, 0.5])
    @ np.linalg.qr(_rng.standard_normal((K, TRUE_RANK)))[0].T
)
Y = X @ (W + DELTA)
PROBLEM = lt.LinearProblem.from_data(X, shift=DELTA, pretrained=W)
SIGMA = X.T @ X / N
ADAM = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}


def pinv(M: np.ndarray) -> np.ndarray:
    return np.linalg.pinv(M, rcond=len(M) * 2.3e-16, hermitian=True)


def adam(memory: Memory, key: str, g: np.ndarray, kw: dict[str, Any], corrected: bool = True):
    b1, b2 = kw["betas"]
    t, m, v = memory.get(key, (0, np.zeros_like(g), np.zeros_like(g)))
    t, m, v = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    memory[key] = (t, m, v)
    if corrected:
        m, v = m / (1 - b1**t), v / (1 - b2**t)
    return m / (np.sqrt(v) + kw["eps"])


# Effective weights: trainable tensors, frozen tensors, s -> what is added to W_f.
def of_pair(p: Params, f: Params, s: float) -> np.ndarray:
    return s * p[0] @ p[1]


def of_full(p: Params, f: Params, s: float) -> np.ndarray:
    return p[0]


def of_core(p: Params, f: Params, s: float) -> np.ndarray:
    return s * f[0] @ p[0] @ f[1]


def of_triplets(p: Params, f: Params, s: float) -> np.ndarray:
    return s * p[0] @ np.diag(p[1][0]) @ p[2]


# Gradients of the trainable tensors from the full gradient F = ∇_W L.
def grads_pair(p: Params, f: Params, s: float, F: np.ndarray) -> Params:
    return [s * F @ p[1].T, s * p[0].T @ F]


def grads_full(p: Params, f: Params, s: float, F: np.ndarray) -> Params:
    return [F]


def grads_core(p: Params, f: Params, s: float, F: np.ndarray) -> Params:
    return [s * f[0].T @ F @ f[1].T]


def grads_triplets(p: Params, f: Params, s: float, F: np.ndarray) -> Params:
    P, lam, Q = p
    on_lam = s * np.diag(P.T @ F @ Q.T)[None, :]
    return [s * F @ Q.T @ np.diag(lam[0]), on_lam, s * np.diag(lam[0]) @ P.T @ F]


# Steps: (params, gradients, memory, eta, hyper, s, damping) -> params.
def gd(p, g, memory, eta, kw, s, damping):
    return [P - eta * G for P, G in zip(p, g, strict=True)]


def heavy_ball(p, g, memory, eta, kw, s, damping):
    old = memory.get("ball", [np.zeros_like(G) for G in g])
    memory["ball"] = ball = [kw["beta"] * M + G for M, G in zip(old, g, strict=True)]
    return [P - eta * M for P, M in zip(p, ball, strict=True)]


def flow(p, g, memory, eta, kw, s, damping):
    """Runge and Kutta's method of order 4 in 200 pieces: its error is (0.3/200)^4 = 5e-12."""
    h, at = eta / 200, memory["gradients"]
    for _ in range(200):
        one = at(p)
        two = at([P - h / 2 * G for P, G in zip(p, one, strict=True)])
        three = at([P - h / 2 * G for P, G in zip(p, two, strict=True)])
        four = at([P - h * G for P, G in zip(p, three, strict=True)])
        slopes = zip(p, one, two, three, four, strict=True)
        p = [P - h / 6 * (a + 2 * b + 2 * c + d) for P, a, b, c, d in slopes]
    return p


def lora_plus(p, g, memory, eta, kw, s, damping):
    return [p[0] - eta * g[0], p[1] - kw["ratio"] * eta * g[1]]


def adamw(p, g, memory, eta, kw, s, damping):
    rates = [eta] * (len(p) - 1) + [eta * kw.get("ratio", 1.0)]
    new = []
    for i, (P, G, rate) in enumerate(zip(p, g, rates, strict=True)):
        P = P * (1 - rate * kw["weight_decay"])
        new.append(P - rate * adam(memory, f"adam{i}", G, kw))
    return new


def preconditioned(p, g, memory, eta, kw, s, damping):
    A, B = p
    lam, eye = damping, np.eye(RANK)
    if kw.get("adaptive"):
        on_B = np.trace(g[0] @ pinv(B @ B.T) @ g[0].T)
        on_A = np.trace(g[1].T @ pinv(A.T @ A) @ g[1])
        lam = lam + kw["adaptive"] * np.sqrt(on_A + on_B)
    invert = pinv if lam == 0 else np.linalg.inv
    return [
        A - eta * g[0] @ invert(B @ B.T + lam * eye),
        B - eta * invert(A.T @ A + lam * eye) @ g[1],
    ]


def alternating(p, g, memory, eta, kw, s, damping):
    A, B = p
    A = A - eta * memory["gradients"]([A, B])[0] @ pinv(B @ B.T)
    return [A, B - eta * pinv(A.T @ A) @ memory["gradients"]([A, B])[1]]


def gauss_newton(p, g, memory, eta, kw, s, damping):
    """The Hessians solved: those of ½⟨E, ΣE⟩ are X ↦ s²ΣXBBᵀ and Y ↦ s²AᵀΣAY."""
    A, B = p
    grad = memory["gradients"]([A, B])[0]
    A = A - eta / s**2 * np.linalg.solve(SIGMA, grad) @ pinv(B @ B.T)
    return [A, B - eta / s**2 * pinv(A.T @ SIGMA @ A) @ memory["gradients"]([A, B])[1]]


def spectral_scaled(p, g, memory, eta, kw, s, damping):
    by = [np.linalg.norm(P, 2) ** 2 + damping for P in (p[1], p[0])]
    return [P - eta * G / n if n else P for P, G, n in zip(p, g, by, strict=True)]


def lora_rite(p, g, memory, eta, kw, s, damping):
    def side(key: str, G: np.ndarray, N: np.ndarray, other: np.ndarray) -> np.ndarray:
        root = inverse_root(N + damping * np.eye(RANK))
        Q, plain = other @ root, G @ root
        t, m, v, old, rho = memory.get(key, (0, 0 * plain, 0 * N, 0 * Q, 0.0))
        P, (b1, b2) = Q.T @ old, kw["betas"]
        t, m, kept = t + 1, b1 * m @ P.T + (1 - b1) * plain, P @ v @ P.T
        if kw.get("escaped_mass"):
            rho = b2 * (rho + np.abs(np.linalg.eigvalsh(v) - np.linalg.eigvalsh(kept)).max())
        v = b2 * kept + (1 - b2) * plain.T @ plain
        memory[key] = (t, m, v, Q, rho)
        return m / (1 - b1**t) @ inverse_root((v + rho * np.eye(RANK)) / (1 - b2**t)) @ root

    A, B = p
    step_A, step_B = side("A", g[0], B @ B.T, B.T), side("B", g[1].T, A.T @ A, A)
    return [A - eta * step_A, B - eta * step_B.T]


def whitened(p, g, memory, eta, kw, s, damping):
    A, B = p
    Sigma = SIGMA if "covariance" in kw else np.eye(D)
    return [
        A - eta * np.linalg.solve(Sigma, g[0]) @ pinv(B @ B.T),
        B - eta * pinv(A.T @ Sigma @ A) @ g[1],
    ]


def msign(M: np.ndarray) -> np.ndarray:
    U, S, Vh = np.linalg.svd(M, full_matrices=False)
    kept = S > len(M) * 2.3e-16 * S[0]
    return U[:, kept] @ Vh[kept]


def muon(p, g, memory, eta, kw, s, damping):
    old = memory.get("means", [np.zeros_like(G) for G in g])
    memory["means"] = means = [kw["beta"] * M + G for M, G in zip(old, g, strict=True)]
    keep = 1 - eta * kw["weight_decay"]
    return [keep * P - eta * msign(M) for P, M in zip(p, means, strict=True)]


def inverse_root(M: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(pinv(M))
    return vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T


def lora_muon(p, g, memory, eta, kw, s, damping):
    A, B = p
    eye = damping * np.eye(RANK)
    left, right = inverse_root(A.T @ A + eye), inverse_root(B @ B.T + eye)
    return [A - eta * msign(g[0] @ right) @ right, B - eta * left @ msign(left @ g[1])]


def scaled_released(p, g, memory, eta, kw, s, damping):
    A, B = p
    eye = np.eye(RANK)
    A = A - eta * adam(memory, "A", g[0] @ np.linalg.inv(B @ B.T + damping * eye), kw, False)
    B = B - eta * adam(memory, "B", np.linalg.inv(A.T @ A + damping * eye) @ g[1], kw, False)
    keep = 1 - eta * kw["weight_decay"]
    return [keep * A, keep * B]


def scaled_peft(p, g, memory, eta, kw, s, damping):
    A, B = p
    eye = np.eye(RANK)
    g_A = g[0] @ np.linalg.inv(B @ B.T + damping * eye)
    g_B = np.linalg.inv(A.T @ A + damping * eye) @ g[1]
    return adamw(p, [g_A, g_B], memory, eta, kw, s, damping)


def pro_gradients(p, g, s, damping):
    A, B = p
    M, Nb, eye, delta = A.T @ A, B @ B.T, np.eye(RANK), damping + 1e-8
    Mi, Ni = np.linalg.inv(M + delta * eye), np.linalg.inv(Nb + delta * eye)
    C = -A.T @ g[0] @ Ni / s**2
    system = np.kron(eye, M) + np.kron(Nb.T, eye)  # of the columns of Z, stacked
    Z = np.linalg.solve(system, C.flatten("F")).reshape((RANK, RANK), order="F")
    g_A = g[0] @ Ni / s**2 + A @ Z
    g_B = Mi @ g[1] @ (np.eye(K) - B.T @ Ni @ B) / s**2 - Z @ B
    return g_A, g_B


def lora_pro(p, g, memory, eta, kw, s, damping):
    g_A, g_B = pro_gradients(p, g, s, damping)
    return [p[0] - eta * g_A, p[1] - eta * g_B]


def lora_pro_adamw(p, g, memory, eta, kw, s, damping):
    A, B = p
    g_A, g_B = pro_gradients(p, g, s, damping)
    Dir = adam(memory, "full", s * (A @ g_B + g_A @ B), kw)
    g_A, g_B = pro_gradients(p, [s * Dir @ B.T, s * A.T @ Dir], s, damping)
    keep = 1 - eta * kw["weight_decay"]
    return [keep * A - eta * g_A, keep * B - eta * g_B]


def adalora(p, g, memory, eta, kw, s, damping):
    P, _, Q = p
    t = memory["t"] = memory.get("t", 0) + 1
    total, start, end = kw["total_steps"], kw["initial_steps"], kw["final_steps"]
    gap_P, gap_Q = P.T @ P - np.eye(RANK), Q @ Q.T - np.eye(RANK)
    weight = kw["penalty"] / 2
    g = [
        g[0] + weight * 2 * P @ gap_P / np.linalg.norm(gap_P),
        g[1],
        g[2] + weight * 2 * gap_Q @ Q / np.linalg.norm(gap_Q),
    ]
    if kw.get("adam"):
        p = adamw(p, g, memory, eta, kw["adam"], s, damping)
    else:
        p = [V - eta * G for V, G in zip(p, g, strict=True)]
    zeros = [np.zeros_like(G) for G in g]
    mean, spread = memory.get("scores", (zeros, zeros))
    if t < total - end:
        now = [abs(V * G) for V, G in zip(p, g, strict=True)]
        mean = [0.85 * m + 0.15 * i for m, i in zip(mean, now, strict=True)]
        spread = [0.85 * u + 0.15 * abs(i - m) for u, i, m in zip(spread, now, mean, strict=True)]
    memory["scores"] = (mean, spread)
    product = [m * u for m, u in zip(mean, spread, strict=True)]
    score = product[1][0] + product[0].mean(0) + product[2].mean(1)
    if t <= start:
        budget = RANK
    elif t >= total - end:
        budget = kw["target_rank"]
    else:
        shrink = (1 - (t - start) / (total - end - start)) ** 3
        budget = int(kw["target_rank"] + (RANK - kw["target_rank"]) * shrink)
    if budget < RANK and (t >= total - end or t % kw["interval"] == 0):
        threshold = np.sort(score)[RANK - budget - 1]
        p = [p[0], np.where(score <= threshold, 0.0, p[1]), p[2]]
    return p


class Case(NamedTuple):
    name: str
    step: Step
    eta: float
    hyper: dict[str, Any] = {}  # noqa: RUF012
    kind: str = "pair"
    damping: float = 0.0
    method: lt.Method | None = None
    label: str = ""
    tolerance: float = TOLERANCE

    def __str__(self) -> str:
        return self.label or self.name


ADALORA = {"target_rank": 1, "total_steps": 40, "initial_steps": 5, "final_steps": 10}
ADALORA |= {"interval": 3, "penalty": 0.3}
STD = {"init_std": 0.3, "scale": 1.5}
CASES = [
    Case("full", gd, 0.3, kind="full"),
    Case("full-adamw", adamw, 0.05, ADAM, kind="full"),
    Case("full-flow", flow, 0.3, kind="full", tolerance=STEPS * 1e-10),
    Case("flow", flow, 0.3, STD, tolerance=STEPS * 1e-10),  # the integrator's own in each step
    Case("lora", gd, 0.3, STD),
    Case("lora", gd, 0.3, {"init_std": "kaiming"}, label="lora kaiming"),
    Case("lora-momentum", heavy_ball, 0.1, {"beta": 0.7, **STD}),
    Case("lora-adamw", adamw, 0.05, {**ADAM, **STD}),
    Case("rslora", gd, 0.3, {"alpha": 2.0, "init_std": 0.3}),
    Case("lora+", lora_plus, 0.1, {"ratio": 4.0, **STD}),
    Case("lora+-adamw", adamw, 0.02, {"ratio": 4.0, **ADAM, **STD}),
    Case("p-lora", preconditioned, 0.3, STD),
    Case("p-lora", preconditioned, 0.3, STD, damping=1e-2, label="p-lora damped"),
    Case("p-lora", preconditioned, 0.3, {"adaptive": 0.1, **STD}, label="p-lora adaptive"),
    Case("p-lora-adamw", scaled_released, 0.05, {**ADAM, **STD}, damping=1e-2),
    Case(
        "p-lora-adamw",
        scaled_peft,
        0.05,
        {"order": "peft", **ADAM, **STD},
        damping=1e-2,
        label="p-lora-adamw peft",
    ),
    Case("p-lora-alternating", alternating, 0.3, STD),
    Case("lora-spectral-scaled", spectral_scaled, 0.3, STD, damping=1e-2),
    Case("muon", muon, 0.02, {"beta": 0.7, "weight_decay": 0.1, **STD}),
    Case("lora-muon", lora_muon, 0.02, STD, damping=1e-2),
    Case("lora-rite", lora_rite, 0.02, {"betas": (0.8, 0.95), **STD}, damping=1e-2),
    Case(
        "lora-rite",
        lora_rite,
        0.02,
        {"betas": (0.8, 0.95), "escaped_mass": True, **STD},
        damping=1e-2,
        label="lora-rite with its escaped mass",
    ),
    Case("nystrom", preconditioned, 0.3, {"scale": 1.5}),
    Case("lora-pro", lora_pro, 0.3, STD),
    Case("lora-pro", lora_pro, 0.3, STD, damping=1e-2, label="lora-pro damped"),
    Case("lora-pro-adamw", lora_pro_adamw, 0.05, {**ADAM, **STD}),
    Case("adalora", adalora, 0.3, {**ADALORA, "scale": 1.5}, kind="triplets"),
    Case("pissa", gd, 0.1, {"scale": 1.5}),
    Case("milora", gd, 0.1, {"scale": 1.5}),
    Case("olora", gd, 0.1, {"scale": 1.5}),
    Case("lora-xs", gd, 0.02, {"core_std": 0.1, "scale": 1.5}, kind="core"),
    Case("lora-ga", gd, 0.1, {"scale": 1.5}),
    Case("lora-sb", gd, 0.1, {"step": 0.5, "scale": 1.5}, kind="core"),
    Case("lora-sb", gd, 0.1, {"step": 0.1, "signed": True}, kind="core", label="lora-sb signed"),
    Case("lora-one", gd, 0.2, {"scale": 1.5}),
    Case("lora-one-preconditioned", preconditioned, 0.3, {"scale": 1.5}),
    Case("lora-one-adamw", adamw, 0.02, {**ADAM, "scale": 1.5}),
    Case("lora-one-scaled-adamw", scaled_released, 0.02, {**ADAM, "scale": 1.5}, damping=1e-2),
    Case("lora-one-whitened", whitened, 0.3, {"scale": 1.5}),
    Case(
        "lora-one-whitened",
        whitened,
        0.3,
        {"covariance": SIGMA, "scale": 1.5},
        label="lora-one-whitened by the samples",
    ),
    Case("lora-one-released", gd, 0.3, {"scale": 1.5}),
    Case("lora-one-early", gd, 0.1, {"scale": 1.5}),
]
OTHER_RULES = [
    Case(
        "adalora",
        adalora,
        0.05,
        {**ADALORA, "adam": ADAM},
        kind="triplets",
        method=lt.methods.adalora(**ADALORA).trained_by("adamw", **ADAM),
        label="adalora by adamw",
    ),
    Case(
        "lora-sb",
        adamw,
        0.02,
        ADAM,
        kind="core",
        method=lt.methods.lora_sb().trained_by("adamw", **ADAM),
        label="lora-sb by adamw",
    ),
    Case(
        "lora",
        gauss_newton,
        0.3,
        method=lt.methods.lora(**STD).trained_by("gauss-newton"),
        label="lora by gauss-newton",
    ),
    Case(
        "lora-ga",
        lora_pro,
        0.2,
        method=lt.methods.lora_ga().trained_by("lora-pro"),
        label="lora-ga by lora-pro",
    ),
]
SHIFTS = {"pair": of_pair, "full": of_full, "core": of_core, "triplets": of_triplets}
GRADIENTS = {
    "pair": grads_pair,
    "full": grads_full,
    "core": grads_core,
    "triplets": grads_triplets,
}


def longhand(case: Case, trainable: Params, frozen: Params, s: float, offset: bool):
    """The learned shift W_eff − W and the loss at t = 0 … STEPS."""
    kept = s * trainable[0] @ trainable[1] if offset else np.zeros_like(W)
    params, memory = trainable, {}

    def at(params: Params) -> Params:
        F = X.T @ (X @ (W + SHIFTS[case.kind](params, frozen, s) - kept) - Y) / N
        return GRADIENTS[case.kind](params, frozen, s, F)

    for t in range(STEPS + 1):
        learned = SHIFTS[case.kind](params, frozen, s) - kept
        misfit = X @ (W + learned) - Y
        yield learned, (misfit**2).sum() / (2 * N)
        if t < STEPS:
            memory["gradients"] = at
            params = case.step(params, at(params), memory, case.eta, case.hyper, s, case.damping)


def test_every_method_has_a_longhand() -> None:
    assert {case.name for case in CASES} == set(lt.METHODS)


@pytest.mark.parametrize("case", CASES + OTHER_RULES, ids=str)
def test_first_step_and_trajectory(case: Case) -> None:
    method = case.method or lt.METHODS[case.name](**case.hyper)
    method = lt.methods.get(method, RANK)
    start = method.init(PROBLEM, RANK, (3,))
    trainable, frozen = (
        [t.numpy().reshape(t.shape[-2:]) for t in group]
        for group in (start.trainable, start.frozen)
    )
    expected = list(longhand(case, trainable, frozen, method.scale, method.offset))
    options = {"rank": RANK, "learning_rate": case.eta, "seeds": [3], "damping": case.damping}
    for steps in (1, STEPS):
        run = lt.simulate(PROBLEM, method, steps=steps, record=("loss",), reduce="never", **options)
        learned = run.learned_shift().dense().numpy()[0]
        size = np.linalg.norm(expected[steps][0])
        assert np.linalg.norm(learned - expected[steps][0]) <= case.tolerance * size
    losses = np.array([loss for _, loss in expected])
    assert np.abs(run["loss"][:, 0].numpy() - losses).max() <= case.tolerance * losses[0]
    # The comparison means something: the run went somewhere and stayed finite.
    assert losses[-1] != losses[0]
    assert np.isfinite(losses).all()
