"""Values of rules and problems in corners that runs of whole methods do not tell apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from longhand import close, normal, quadratic
from tolerance import rounding

import loraone_theory as lt
from loraone_theory.core.factors import Params
from loraone_theory.core.linalg import EXACT
from loraone_theory.core.randomness import generator
from loraone_theory.methods.inits import INITS
from loraone_theory.methods.inits.base import complete_frame, gradient_svd
from loraone_theory.methods.rules import RULES
from loraone_theory.methods.rules.base import Rule
from loraone_theory.methods.rules.spectral_scaled import spectral_scaled
from loraone_theory.methods.symmetric import _gd, gram_preconditioned
from loraone_theory.problems import rows
from loraone_theory.problems.linear.revealed import Revealed
from loraone_theory.testing import check_rule
from loraone_theory.testing.base import leaves

# --- rules


def test_beside_a_factor_of_zero_its_partner_rests() -> None:
    """By ‖A‖² + λ = 0 no gradient is divided, whatever it is; by λ alone it is."""
    A, B = torch.zeros(5, 2).double(), normal(2, 4)
    G, H = normal(5, 2, seed=1), normal(2, 4, seed=2)
    top = float(torch.linalg.svdvals(B)[0]) ** 2
    for damping in (0.0, 0.5):
        (new_A, new_B), _ = spectral_scaled(0.1, damping).update((A, B), (G, H), None)
        close(new_A, -0.1 * G / (top + damping), rounding(5, operations=4))
        step = 0.1 * H / damping if damping else torch.zeros_like(B)
        close(new_B, B - step, rounding(5, operations=4))
        (new_B, new_A), _ = spectral_scaled(0.1, damping).update((B.mT, A.mT), (H.mT, G.mT), None)
        close(new_A, -0.1 * G.mT / (top + damping), rounding(5, operations=4))
        close(new_B, (B - step).mT, rounding(5, operations=4))


@pytest.mark.parametrize("make", [_gd, gram_preconditioned])
def test_rules_of_one_square_factor_keep_what_rules_promise(make: Callable[..., Rule]) -> None:
    rule = make(0.1)
    assert rule.equivariant
    assert rule.replays
    check_rule(lambda eta, lam: make(eta, lam) if rule.inverts else make(eta), trains="full")


D, K, R = 5, 4, 2
FORMS: dict[str, Callable[[], Rule]] = {
    **{name: (lambda make=make: make(0.1)) for name, make in RULES.items()},
    "whitened by a covariance": lambda: RULES["whitened"](
        0.1, covariance=torch.diag(1.0 + torch.arange(D)).double()
    ),
    "lora-rite with its escaped mass": lambda: RULES["lora-rite"](0.1, escaped_mass=True),
    "lora-pro with moments": lambda: RULES["lora-pro"](0.1, betas=(0.9, 0.999)),
    "lora-pro with moments of the pair": lambda: RULES["lora-pro"](
        0.1, betas=(0.9, 0.999), moments="pair"
    ),
    "scaled-adamw of peft": lambda: RULES["scaled-adamw"](0.1, order="peft"),
    "adaptive preconditioned": lambda: RULES["preconditioned"](0.1, adaptive=0.1),
    "scaled muon": lambda: RULES["muon"](0.1, scaled=True),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_grid_of_runs_is_its_runs_and_the_state_keeps_its_shapes(name: str) -> None:
    """Two steps of 3 × 2 runs, each by itself, on quadratics of condition numbers below 10."""
    S = torch.diag(1.0 + torch.arange(D) / 2).double()
    T, grid = normal(3, 2, D, K), (normal(3, 2, D, R, seed=1), normal(3, 2, R, K, seed=2))

    def two_steps(params: Params, T: torch.Tensor) -> tuple[Params, list[list[torch.Size]]]:
        rule, gradients = FORMS[name](), quadratic(S, T)
        state, seen = rule.init(params), []
        for _ in range(3):
            seen.append([leaf.shape for leaf in leaves(state) if isinstance(leaf, torch.Tensor)])
            if rule.advance is not None:
                params, state = rule.advance(params, gradients, state)
            else:
                params, state = rule.update(params, gradients(params), state)
        return params, seen

    found, seen = two_steps(grid, T)
    assert seen[1:] == seen[:-1]
    worst = max(float(torch.linalg.cond(P).max()) for P in grid) ** 2
    for i, j in np.ndindex(3, 2):
        alone, _ = two_steps(tuple(P[i, j] for P in grid), T[i, j])
        for run, P in zip(found, alone, strict=True):
            # Inverses of Gram matrices, three steps in a row; LoRA-RITE's and Adam's directions
            # are quotients of what has half of its digits.
            close(run[i, j], P, rounding(D, operations=100, condition=worst) ** 0.5)


# --- starts


def test_a_frame_is_completed_beside_the_columns_that_are_known() -> None:
    # Of both signs, since a QR decomposition turns columns round.
    Q = torch.linalg.qr(normal(6, 4)).Q * torch.tensor([1.0, -1.0, -1.0, 1.0])
    for kept in (1, 2, 3):
        S = torch.tensor([1.0, 0.5, 0.25, 0.125]).double() * (torch.arange(4) < kept)
        found = complete_frame(Q.expand(2, 6, 4), S.expand(2, 4), (0, 1), "corner")
        allowed = rounding(6, operations=16)
        close(found[..., :kept], Q[:, :kept].expand(2, 6, kept), allowed)
        close(found.mT @ found, torch.eye(4).double().expand(2, 4, 4), allowed)
        assert (found[0, :, kept:] - found[1, :, kept:]).abs().amax() > allowed  # drawn per seed
        turned = complete_frame(-Q, S, (0,), "corner")
        close(turned[..., :kept], -Q[:, :kept].expand(turned[..., :kept].shape), allowed)
    assert complete_frame(Q, torch.ones(4).double(), (0,), "corner") is Q


def test_the_largest_entry_of_each_left_vector_is_positive() -> None:
    problem = lt.sample_linear(d=9, k=7, true_rank=3, samples=40, seeds=range(4))
    found = gradient_svd(problem, 3, EXACT)
    top = found.U.gather(-2, found.U.abs().argmax(-2, keepdim=True))
    assert (top > 0).all()
    G = problem.one_step_gradient().dense()
    # Gradients of rank 3: the triplets are all of it.
    allowed = rounding(40, operations=8) * float(G.norm())
    close((found.U * found.S[..., None, :]) @ found.V.mT, G, allowed)


@pytest.mark.parametrize(
    "std", [0.25, torch.tensor([0.25, 4.0]).reshape(2, 1, 1, 1)], ids=["one", "swept"]
)
def test_a_gaussian_start_is_its_draw_times_the_deviation(std: float | torch.Tensor) -> None:
    """One deviation, or a sweep of two along a new axis; powers of two leave no rounding."""
    problem = lt.sample_linear(d=D, k=K, true_rank=R, samples=30, seeds=(3, 4))
    A, B = INITS["gaussian"](std)(problem, R, (3, 4)).trainable
    assert not B.any()
    assert B.shape == (2, R, K)
    for i, seed in enumerate((3, 4)):
        Z = torch.from_numpy(generator(seed, "A0").standard_normal((D, R)))
        if isinstance(std, float):
            assert torch.equal(A[i], std * Z)
        else:
            assert torch.equal(A[:, i], torch.stack([0.25 * Z, 4.0 * Z]))


# What is drawn per seed; all else follows from the problem.
DRAWN = {"adalora", "gaussian", "kaiming", "lora-xs", "nystrom"}


@pytest.mark.parametrize("name", sorted(set(INITS) - {"zero"}))
def test_all_tensors_of_a_start_have_the_runs_of_one(name: str) -> None:
    make = INITS[name](0.1) if name == "gaussian" else INITS[name]()
    inner = {"adalora": 1, "lora-xs": R, "lora-sb": R}.get(name)
    for instances, seeds in ((2, (3, 4)), (1, (3, 4, 5))):
        # A gradient of full rank leaves nothing to be drawn beside it.
        problem = lt.sample_linear(d=D, k=K, true_rank=K, samples=30, seeds=range(instances))
        runs = len(seeds) if name in DRAWN else instances
        found = [tuple(P.shape) for P in make(problem, R, seeds).trainable]
        ends = [(runs, D, R), (runs, R, K)] if inner in (None, 1) else []
        core = [] if inner is None else [(runs, inner, R)]
        assert found == ends[:1] + core + ends[1:]


def test_the_corrected_spectral_start_undoes_the_shrinkage() -> None:
    """A₀B₀ is 2/(1 − c/π) times the best rank-r part of G, with c that of each instance."""
    sizes = {"d": 9, "k": 7, "true_rank": 2, "samples": 60, "seeds": (3, 4)}
    problem = lt.sample_relu(relative_shift=0.5, **sizes)
    start = INITS["spectral"](gamma="corrected", scale=3.0)(problem, 2, (3, 4)).trainable
    G = problem.one_step_gradient()
    shares = problem.shift.dense().norm(dim=-2) / problem.pretrained.norm(dim=-2)
    for i in range(2):
        c = float(shares[i].max())
        U, S, Vh = torch.linalg.svd(G[i])
        expected = 2 / (1 - c / math.pi) * (U[:, :2] * S[:2]) @ Vh[:2]
        gap = float(S[0] / (S[1] - S[2]))
        allowed = rounding(60, operations=8, condition=gap) * float(expected.norm())
        close(3.0 * start[0][i] @ start[1][i], expected, allowed)


# --- rows


def test_fresh_rows_have_labels_of_the_stated_noise() -> None:
    """‖X(AB − Δ) − σZ‖²/2b with X and Z drawn by seed and step."""
    sigma, b, seeds = 0.3, 8, (3, 4)
    problem = lt.sample_linear(
        d=D, k=K, true_rank=R, samples=30, noise_std=sigma, seeds=seeds, keep_inputs=True
    )
    A, B = normal(D, R), normal(R, K, seed=1)
    for step in (0, 5):
        found = problem.fresh(step, b, seeds).loss(lt.Factors(A, B))
        for i, seed in enumerate(seeds):
            X = generator(seed, f"fresh/{step}").standard_normal((b, D))
            Z = generator(seed, f"fresh noise/{step}").standard_normal((b, K))
            E = (A @ B - problem.shift.dense()[i]).numpy()
            expected = ((X @ E - sigma * Z) ** 2).sum() / (2 * b)
            assert float(found[i]) == pytest.approx(expected, rel=rounding(b * D, operations=8))


def test_a_minibatch_has_the_noise_of_its_rows() -> None:
    """‖X_I(AB − Δ) − Z_I‖²/2b, and ⟨X_Iᵀ(X_I E − Z_I)/b, ·⟩, with σZ the draw of the sampler."""
    sigma, seeds, at = 0.3, (3, 4), torch.tensor([7, 0, 7, 21])
    problem = lt.sample_linear(
        d=D, k=K, true_rank=R, samples=30, noise_std=sigma, seeds=seeds, keep_inputs=True
    )
    A, B = normal(D, R), normal(R, K, seed=1)
    part = problem.batch(at)
    loss, gradients = part.loss(lt.Factors(A, B)), part.gradients(lt.Factors(A, B))
    for i, seed in enumerate(seeds):
        X = torch.from_numpy(generator(seed, "inputs").standard_normal((30, D)))[at]
        Z = torch.from_numpy(generator(seed, "noise").standard_normal((30, K)))[at]
        miss = X @ (A @ B - problem.shift.dense()[i]) - sigma * Z
        J = X.mT @ miss / len(at)
        allowed = rounding(len(at) * D, operations=8) * max(1.0, float(miss.norm()))
        close(loss[i], (miss**2).sum() / (2 * len(at)), allowed * float(miss.norm()))
        size = allowed * float(X.norm() * max(A.norm(), B.norm()))
        close(gradients.A[i], J @ B.mT, size)
        close(gradients.B[i], A.mT @ J, size)


def test_labels_of_a_relu_problem_have_the_stated_noise() -> None:
    sizes = {"d": D, "k": K, "true_rank": R, "samples": 30, "relative_shift": 0.1}
    clean = lt.sample_relu(**sizes, seeds=(3, 4))
    for sigma in (0.1, 0.4):
        noisy = lt.sample_relu(**sizes, noise_std=sigma, seeds=(3, 4))
        for i, seed in enumerate((3, 4)):
            Z = torch.from_numpy(generator(seed, "noise").standard_normal((30, K)))
            size = float(clean.labels.abs().max())
            close(noisy.labels[i], clean.labels[i] + sigma * Z, rounding(2) * max(1.0, size))


def gelu(z: np.ndarray) -> np.ndarray:
    return z * (1 + scipy.special.erf(z / 2**0.5)) / 2


def softplus(z: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(z))


@pytest.mark.parametrize(
    ("name", "phi"), [("gelu", gelu), ("softplus", softplus), ("tanh", np.tanh)]
)
def test_the_loss_of_another_activation(name: str, phi: Callable[[np.ndarray], np.ndarray]) -> None:
    """‖φ(X(W + AB)) − φ(X(W + Δ))‖_F²/2N, with X, W and Δ of the ReLU problem of those seeds."""
    sizes = {"d": D, "k": K, "true_rank": R, "samples": 30, "relative_shift": 0.5, "seeds": (3, 4)}
    problem, relu = lt.sample_activation(activation=name, **sizes), lt.sample_relu(**sizes)
    A, B = normal(D, R), normal(R, K, seed=1)
    found = problem.loss(lt.Factors(A, B))
    for i in range(2):
        X, W, shift = (M[i].numpy() for M in (relu.inputs, relu.pretrained, relu.shift.dense()))
        miss = phi(X @ (W + (A @ B).numpy())) - phi(X @ (W + shift))
        expected = (miss**2).sum() / (2 * 30)
        assert float(found[i]) == pytest.approx(expected, rel=rounding(30 * K, operations=20))


WRAPPED = {"numpy": np.asarray, "torch": torch.from_numpy}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_rows_are_finite_real_numbers_and_labels_stay_whole(
    wrap: Callable[[np.ndarray], Any],
) -> None:
    X = np.arange(6.0).reshape(3, 2)
    for labels in (np.array([2, 0, 1]), np.array([True, False, True])):
        found = rows.own("data", (wrap(X), wrap(labels)), 0)
        assert found[0].dtype == torch.float64
        assert found[0].tolist() == X.tolist()
        assert found[1].dtype == torch.from_numpy(labels).dtype
        assert found[1].tolist() == labels.tolist()
    for bad, error in (
        (np.array([[1.0, np.nan]]), ValueError),
        (np.array([[1.0, -np.inf]]), ValueError),
        (np.array([[1.0 + 1j, 0]]), TypeError),
        (np.array([[1.0, 2.0]], dtype=np.float16), TypeError),
        (np.zeros((0, 2)), ValueError),
        (np.zeros((0, 2), dtype=np.int64), ValueError),
    ):
        with pytest.raises(error, match=r"data\[0\]"):
            rows.own("data", wrap(bad), 0)


@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize("count", [0, 2])
def test_noise_that_is_asked_for_along_all_directions_is_all_there(first: str, count: int) -> None:
    """Some directions of one side, then all of the other: a matrix of the norm that was drawn."""
    d, k, h = 7, 5, 6
    noise = Revealed.draw((3, 4), (d, k, h), 2.0, 20, torch.empty(0, dtype=torch.float64))
    left, right = normal(2, d, count, seed=1), normal(2, k, count, seed=2)
    left[:, h:] = 0  # where nothing is drawn
    part = noise.transposed_times(left) if first == "left" else noise.times(right)
    Z = noise.times(torch.eye(k).double().expand(2, k, k))
    allowed = rounding(d, operations=20) * float(noise.total.max())
    assert not Z[:, h:].any()
    close((Z * Z).sum((-2, -1)), noise.total, allowed)
    assert noise.rest.abs().max() <= allowed
    close(part, Z.mT @ left if first == "left" else Z @ right, allowed)
    close(noise.transposed_times(left), Z.mT @ left, allowed)
    assert noise.right.free.tolist() == [0, 0]
    assert noise.left.free.tolist() == [h - count] * 2
