"""Every record of every method against a longhand value, on the unreduced problem's own tensors."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import eps, rounding, subspace

import loraone_theory as lt

N, HELD, RANK, STEPS = 40, 11, 2, 4
F64 = torch.float64
# The trained tensors in the original coordinates, which no built-in record gives.
TRAINED = lt.Record(
    "trained", lambda view: torch.cat([t.flatten(-2) for t in view.trainable], -1), axis="entry"
)

Tensors = list[torch.Tensor]
SHIFTS: dict[str, Callable[[float, Tensors, Tensors], torch.Tensor]] = {
    "full": lambda s, p, f: p[0],
    "AB": lambda s, p, f: p[0] @ p[1],
    "sAB": lambda s, p, f: s * p[0] @ p[1],
    "sARB": lambda s, p, f: s * f[0] @ p[0] @ f[1],
    "sPλQ": lambda s, p, f: s * p[0] @ torch.diag(p[1][0]) @ p[2],
}
SIDES: dict[str, Callable[[Tensors, Tensors], tuple[torch.Tensor, torch.Tensor]]] = {
    "full": lambda p, f: (p[0], p[0]),
    "AB": lambda p, f: (p[0], p[1]),
    "sAB": lambda p, f: (p[0], p[1]),
    "sARB": lambda p, f: (f[0] @ p[0], p[0] @ f[1]),
    "sPλQ": lambda p, f: (p[0] @ torch.diag(p[1][0]), torch.diag(p[1][0]) @ p[2]),
}


def arrays(seed: int, d: int, k: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (d, k))
    return {
        "X": rng.standard_normal((N, d)),
        "held": rng.standard_normal((HELD, d)),
        "W": rng.standard_normal((d, k)) / d**0.5,
        "shift": U @ np.diag([1.0, 0.5]) @ V.T,
    }


def longhand(made, start, entries, data) -> tuple[dict, dict]:
    """Every record from the trained tensors, and how far rounding can have moved each."""
    f, p, at = [M.reshape(M.shape[-2:]) for M in start.frozen], [], 0
    for t in start.trainable:
        p.append(entries[at : at + t.shape[-2:].numel()].reshape(t.shape[-2:]))
        at += p[-1].numel()
    form, s = made.parametrisation.name, made.scale
    offset = torch.zeros(1, dtype=F64) if start.offset is None else start.offset.dense().squeeze(0)
    Sigma, Delta = (torch.from_numpy(M) for M in (data["X"].T @ data["X"] / N, data["shift"]))

    def loss(theta: torch.Tensor) -> torch.Tensor:
        parts = [M.view_as(q) for M, q in zip(theta.split([q.numel() for q in p]), p, strict=True)]
        E = SHIFTS[form](s, parts, f) - offset - Delta
        return 0.5 * (E * (Sigma @ E)).sum()

    leaf = entries.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    hessian = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, entries))
    whole = SHIFTS[form](s, p, f)
    learned = (whole - offset).numpy()
    E = learned - data["shift"]
    U, S, Vt = np.linalg.svd(Sigma.numpy() @ data["shift"])
    left, right = (M.numpy() for M in SIDES[form](p, f))
    UA, VB = np.linalg.svd(left)[0][:, :RANK], np.linalg.svd(right)[2][:RANK].T
    values = np.linalg.svd(learned)[1]
    expected = {
        "loss": 0.5 * np.trace(E.T @ Sigma.numpy() @ E),
        "risk": 0.5 * (E**2).sum(),
        "error": np.linalg.norm(E),
        "left_alignment": np.linalg.norm(UA - U[:, :RANK] @ (U[:, :RANK].T @ UA), 2),
        "right_alignment": np.linalg.norm(VB - Vt[:RANK].T @ (Vt[:RANK] @ VB), 2),
        "left_angles": scipy.linalg.subspace_angles(U[:, :RANK], UA),
        "right_angles": scipy.linalg.subspace_angles(Vt[:RANK].T, VB),
        "singular_values": values,
        "nuclear_norm": values.sum(),
        "stable_rank": (values**2).sum() / values[0] ** 2,
        "gradient_norm": gradient.norm().item(),
        "sharpness": hessian[-1].item(),
        "test_loss": 0.5 * (data["held"] @ E).__pow__(2).sum() / HELD,
    }
    if made.is_pair:
        expected["balance"] = np.linalg.norm(left.T @ left - right @ right.T)
    # To reduced coordinates and back, Σ̂ from its rows, and the products of a record: sums over N.
    unit = rounding(N, operations=10)
    size = float(whole.norm() + offset.norm()) + np.linalg.norm(data["shift"])
    spread = max(np.linalg.norm(M, 2) ** 2 / len(M) for M in (data["X"], data["held"]))
    moved = [
        subspace(S, RANK, unit * S[0])
        + subspace(np.linalg.svd(M)[1], RANK, unit * np.linalg.norm(M, 2))
        for M in (left, right)
    ]
    for side, M in (("left", left), ("right", right)):
        top, least = np.linalg.svd(M)[1][[0, RANK - 1]]
        if least <= unit * top:  # AdaLoRA has pruned: below r* there is no such subspace
            expected[f"{side}_alignment"] = np.nan
            expected[f"{side}_angles"] = np.full(RANK, np.nan)
    slopes = sum(float(q.norm()) for q in (*p, *f))
    error = dict.fromkeys(expected, unit * size)
    error |= dict.fromkeys(("loss", "test_loss", "risk"), unit * max(spread, 1) * size**2)
    error |= {"left_alignment": moved[0], "left_angles": moved[0]}
    error |= {"right_alignment": moved[1], "right_angles": moved[1]}
    error["balance"] = unit * float(np.linalg.norm(left) + np.linalg.norm(right)) ** 2
    error["nuclear_norm"] *= len(values)
    error["stable_rank"] = 2 * len(values) * unit * size / values[0]
    error["gradient_norm"] = unit * spread * size * max(slopes, 1) ** 2
    # The Hessian's products are differences of relative error eps^(2/3), of its largest.
    error["sharpness"] = 200 * eps() ** (2 / 3) * float(hessian.abs().max())
    return expected, error


@pytest.mark.parametrize("name", lt.METHODS)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10**6), d=st.integers(4, 7), k=st.integers(4, 6))
def test_every_record_of_every_method(name: str, seed: int, d: int, k: int) -> None:
    data = arrays(seed, d, k)
    problem = lt.LinearProblem.from_data(
        data["X"], shift=data["shift"], pretrained=data["W"], held_out=data["held"]
    )
    made = lt.methods.get(name, RANK)
    start = made.init(problem, RANK, (seed,))
    given = {"rank": RANK, "learning_rate": 0.02, "steps": STEPS, "every": 2, "seeds": (seed,)}
    names = [n for n in lt.RECORDS if n != "balance" or made.is_pair]
    given |= {"damping": made.facts.damping, "record": [*names, TRAINED]}
    for reduce in ("auto", "never"):
        run = lt.simulate(problem, made, reduce=reduce, **given)
        for i in (1, 2):
            expected, error = longhand(made, start, run["trained"][i, 0], data)
            assert set(expected) == set(names)
            for record, value in expected.items():
                found, want = run[record][i, 0].numpy(), np.asarray(value)
                want = want[: len(found)] if want.ndim else want  # the other values are 0
                np.testing.assert_allclose(
                    found, want, rtol=0, atol=error[record], err_msg=f"{record}, {reduce}"
                )
