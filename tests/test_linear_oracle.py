"""The simulated runs against a longhand loop over X, W and Y in float64."""

import numpy as np
import pytest
import torch
import xloop
from tolerance import rounding, subspace

import loraone_theory as lt

STEPS = 1500
ETA = 0.2
# At most 100 samples, two products a step on either side, Gram matrices of condition 10.
AGREE = rounding(100, operations=2 * STEPS, condition=10)


def instance(d, k, true_rank, samples, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, d))
    shift = rng.standard_normal((d, true_rank)) @ rng.standard_normal((true_rank, k))
    shift /= np.linalg.norm(shift, 2)
    W = rng.standard_normal((d, k))
    return X, W, shift


CASES = [(7, 5, 2, 60, 2), (5, 9, 3, 40, 4), (12, 12, 1, 100, 3), (6, 6, 4, 90, 2)]


def run_both(case, method, rank, initial=None, eta=ETA, damping=0.0, reduce="auto"):
    X, W, shift = instance(*case[:4], seed=case[4])
    problem = lt.LinearProblem.from_data(X, shift=shift, pretrained=W)
    run = lt.simulate(
        problem,
        method,
        rank=rank,
        learning_rate=eta,
        steps=STEPS,
        initial=initial,
        damping=damping,
        record=("loss", "risk", "error"),
        every=500,
        reduce=reduce,
    )
    return X, W, shift, run


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def given_factors(case, rank, size=0.3):
    d, k = case[:2]
    rng = np.random.default_rng(99)
    A, B = size * rng.standard_normal((d, rank)), size * rng.standard_normal((rank, k))
    return lt.Factors(torch.from_numpy(A), torch.from_numpy(B))


@pytest.mark.parametrize("reduce", ["auto", "never"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {}),
        ("lora+", {"ratio": 2.0}),
        ("p-lora", {"preconditioned": True}),
        ("p-lora", {"preconditioned": True, "damping": 1e-2}),
        ("lora-one", {}),
        ("lora-one-preconditioned", {"preconditioned": True}),
        ("lora-one-released", {"s": 0.5}),
        ("lora-ga", {"s": 2.0}),
    ],
)
def test_pair_methods_from_given_factors(name, options, case, reduce):
    """AB after 1500 steps, from factors of full column rank."""
    rank = min(3, *case[:2])
    if name == "lora-ga":
        rank = min(rank, min(case[:2]) // 2)
    hyper = {"scale": options["s"]} if "s" in options else {}
    hyper |= {"ratio": options["ratio"]} if "ratio" in options else {}
    method = lt.METHODS[name](**hyper)
    initial = given_factors(case, rank)
    damping = options.get("damping", 0.0)
    start = method.at(rank).started_at(initial)
    X, W, shift, run = run_both(case, start, rank, damping=damping, reduce=reduce)
    A, B = (f.numpy() for f in initial)
    W_f = W - method.scale * A @ B if method.offset else W
    Y = X @ (W + shift)
    *_, (A_T, B_T) = xloop.pair_loop(X, Y, W_f, A, B, eta=ETA, steps=STEPS, **options)
    assert not run.diverged[0]
    ours = (run.final.A @ run.final.B)[0].numpy()
    assert relative(ours, A_T @ B_T) <= AGREE
    # The records describe our own final factors, so they may differ by what these differ by.
    # Sums of rank + 3 terms of the size of W.
    formed = rounding(rank + 3) * np.linalg.norm(W)
    gap = method.scale * np.linalg.norm(ours - A_T @ B_T) + formed
    E = W_f + method.scale * A_T @ B_T - W - shift
    norm = rounding(E.size + len(X))  # of E, or of XE
    assert run["error"][-1, 0].item() == pytest.approx(np.linalg.norm(E), rel=norm, abs=gap)
    root = np.linalg.norm(X @ E) / np.sqrt(2 * len(X))
    slack = gap * np.linalg.norm(X, 2) / np.sqrt(2 * len(X))
    assert run["loss"][-1, 0].sqrt().item() == pytest.approx(root, rel=norm, abs=slack)
    learned = run.learned_shift().dense()[0].numpy()
    assert relative(W + learned, W_f + method.scale * A_T @ B_T) <= AGREE


@pytest.mark.parametrize("case", CASES)
def test_own_initialisations(case):
    """Spectral-init and LoRA-SB from the longhand gradient's SVD."""
    rank = case[2]
    X, W, shift, run = run_both(case, "lora-one", rank)
    Y = X @ (W + shift)
    U, S, Vt = np.linalg.svd(-xloop.full_gradient(X, Y, W))
    A = U[:, :rank] * np.sqrt(S[:rank])
    B = np.sqrt(S[:rank])[:, None] * Vt[:rank]
    *_, (A_T, B_T) = xloop.pair_loop(X, Y, W, A, B, eta=ETA, steps=STEPS)
    assert relative(run.final.dense()[0].numpy(), A_T @ B_T) <= AGREE

    X, W, shift, run = run_both(case, "lora-sb", rank)
    R = xloop.core_loop(X, Y, W, U[:, :rank], np.diag(S[:rank]), Vt[:rank], eta=ETA, steps=STEPS)
    assert relative(run.final.dense()[0].numpy(), U[:, :rank] @ R @ Vt[:rank]) <= AGREE

    X, W, shift, run = run_both(case, "full", rank)
    weight = xloop.full_loop(X, Y, W, eta=ETA, steps=STEPS)
    assert relative(run.learned_shift().dense()[0].numpy(), weight - W) <= AGREE


def test_records_of_alignment_against_full_svd():
    """Alignments from thin factors equal those of complete SVDs of A_t and B_t."""
    X, W, shift = instance(20, 15, 3, 300, 5)
    problem = lt.LinearProblem.from_data(X, shift=shift, pretrained=W)
    names = ("left_alignment", "right_alignment", "balance")
    run = lt.simulate(
        problem, lt.methods.lora(init_std=0.05), rank=6, learning_rate=0.3, steps=60, record=names
    )
    Y = X @ (W + shift)
    U, S, Vt = np.linalg.svd(-xloop.full_gradient(X, Y, W))
    A, B = (f[0].numpy() for f in run.initial)
    for t, (A_t, B_t) in enumerate(xloop.pair_loop(X, Y, W, A, B, eta=0.3, steps=60)):
        # Two products of length N a step on either side, and Wedin's bound for G, A and B.
        wrong = rounding(300, operations=4 * (t + 1))
        known = [subspace(np.linalg.svd(M)[1], 3, wrong * np.linalg.norm(M)) for M in (A_t, B_t)]
        of_G = subspace(S, 3, rounding(300) * S[0])
        left = np.linalg.norm(U[:, 3:].T @ np.linalg.svd(A_t)[0][:, :3], 2)
        assert run["left_alignment"][t, 0].item() == pytest.approx(left, abs=known[0] + of_G)
        balance, size = (np.linalg.norm(A_t.T @ A_t + s * B_t @ B_t.T) for s in (-1, 1))
        assert run["balance"][t, 0].item() == pytest.approx(balance, abs=wrong * size)
        if t == 0:
            assert bool(run["right_alignment"][0].isnan().all())
        else:
            right = np.linalg.norm(Vt[3:] @ np.linalg.svd(B_t)[2][:3].T, 2)
            assert run["right_alignment"][t, 0].item() == pytest.approx(right, abs=known[1] + of_G)


def test_risk_keeps_its_digits_below_rounding_of_the_weights():
    """No floor at 1e-16: from a start at distance 1e-13 the risk is the square of it, halved."""
    problem = lt.sample_linear(d=30, k=20, true_rank=3, samples=600)
    U, S, V = lt.linalg.truncated_svd(problem.shift, 3)
    nudge = torch.zeros_like(U)
    nudge[..., 0, 0] = 1e-13
    initial = lt.Factors(U * S[..., None, :] + nudge, V.mT)
    run = lt.simulate(
        problem, "lora", rank=3, learning_rate=0.1, steps=1, initial=initial, record=("risk",)
    )
    # U S has entries of size < 1, so its rounding moves E by less than 1e-16 an entry.
    assert run["risk"][0, 0].item() == pytest.approx(0.5e-26, rel=2e-2)
    done = lt.simulate(problem, "lora-one", rank=3, learning_rate=0.3, steps=800, record=("risk",))
    # Entries move until a step of η times the gradient is less than what sums of 30 terms round.
    assert float(done["risk"][-1, 0]) <= 0.5 * rounding(30, operations=1 / 0.3) ** 2
