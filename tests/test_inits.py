"""Initial tensors against numpy's SVD and QR written out, against peft, and their refusals."""

import numpy as np
import pytest
import torch
from tolerance import near

import loraone_theory as lt
from loraone_theory.methods import inits

D, K, RANK = 9, 7, 3
S = 1.5

_rng = np.random.default_rng(11)
X = _rng.standard_normal((60, D))


def matrix(values: list[float]) -> np.ndarray:
    left = np.linalg.qr(_rng.standard_normal((D, len(values))))[0]
    right = np.linalg.qr(_rng.standard_normal((K, len(values))))[0]
    return left * np.array(values) @ right.T


W = matrix([2.0, 1.7, 1.3, 1.0, 0.7, 0.4, 0.2])
DELTA = matrix([1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1])
PROBLEM = lt.LinearProblem.from_data(X, shift=DELTA, pretrained=W)
G = X.T @ X @ DELTA / len(X)
# Three products over 60 samples and an SVD: singular vectors lose σ₁ over the least gap between
# singular values; factors, and their products, are of the size of σ₁.
_spectra = [np.linalg.svd(M, compute_uv=False) for M in (W, G)]
GAP = min(-np.diff(values).min() / values[0] for values in (*map(np.asarray, _spectra),))
CLOSE = near(60, operations=4, condition=1 / GAP, scale=max(v[0] for v in _spectra))


def start(init: inits.Init, rank: int = RANK, seeds: tuple[int, ...] = (0,)):
    return init(PROBLEM, rank, seeds)


def product(trainable: tuple[torch.Tensor, ...]) -> np.ndarray:
    A, B = trainable
    return (A @ B).numpy()


def best(M: np.ndarray, rank: int) -> np.ndarray:
    U, values, Vt = np.linalg.svd(M)
    return U[:, :rank] * values[:rank] @ Vt[:rank]


def assert_balanced(trainable: tuple[torch.Tensor, ...], values: np.ndarray) -> None:
    """AᵀA = BBᵀ = diag(values): the split is even and in the singular basis."""
    A, B = (t.numpy() for t in trainable)
    np.testing.assert_allclose(A.T @ A, np.diag(values), **CLOSE)
    np.testing.assert_allclose(B @ B.T, np.diag(values), **CLOSE)


def assert_offset(found, s: float) -> None:
    A, B = found.trainable
    np.testing.assert_array_equal(found.offset.dense().numpy(), ((s * A) @ B).numpy())


def test_lora_one_spectral_and_released() -> None:
    values = np.linalg.svd(G, compute_uv=False)[:RANK]
    found = start(inits.spectral(2.0, S))
    np.testing.assert_allclose(S * product(found.trainable), 2.0 * best(G, RANK), **CLOSE)
    assert_balanced(found.trainable, 2.0 / S * values)
    assert found.offset is None
    found = start(inits.released(128.0))
    expected = best(G, RANK) / (128.0 * values[0])
    np.testing.assert_allclose(product(found.trainable), expected, **CLOSE)
    assert_balanced(found.trainable, values / values[0] / 128.0)
    assert found.offset is None


def test_lora_one_early() -> None:
    U, _, Vt = np.linalg.svd(G)
    found = start(inits.early(4.0, S))
    zeta = K**0.25 / 2.0
    expected = zeta**2 * U[:, :RANK] @ Vt[:RANK]
    np.testing.assert_allclose(product(found.trainable), expected, **CLOSE)
    assert_balanced(found.trainable, np.full(RANK, zeta**2))
    assert_offset(found, S)


# Zero-based columns of U for A and rows of Vᵀ for B.
SPLITS = {
    "ArB2r": ([0, 1, 2], [3, 4, 5]),
    "A2rBr": ([3, 4, 5], [0, 1, 2]),
    "ArBr": ([1, 3, 5], [0, 2, 4]),
}
SIZES = {
    "stable": K**0.25 / 16.0**0.5,
    "gd": 1 / S,
    "unit": 1.0,
    "weightS": float(np.sqrt(np.array([2.0, 1.7, 1.3]) / S).mean()),
}


@pytest.mark.parametrize("direction", SPLITS)
@pytest.mark.parametrize("size", SIZES)
def test_lora_ga_directions_and_sizes(direction: str, size: str) -> None:
    U, _, Vt = np.linalg.svd(G)
    found = start(inits.lora_ga(16.0, S, direction, size))
    of_A, of_B = SPLITS[direction]
    A, B = (t.numpy() for t in found.trainable)
    np.testing.assert_allclose(abs(U[:, of_A].T @ A), SIZES[size] * np.eye(RANK), **CLOSE)
    np.testing.assert_allclose(abs(B @ Vt[of_B].T), SIZES[size] * np.eye(RANK), **CLOSE)
    assert_offset(found, S)


def test_lora_ga_random_splits_the_first_2r_directions() -> None:
    U, _, Vt = np.linalg.svd(G)
    seeds = tuple(range(6))
    found = start(inits.lora_ga(size="unit", direction="random"), seeds=seeds)
    splits = set()
    for A, B in zip(*(t.numpy() for t in found.trainable), strict=True):
        of_A = abs(U[:, : 2 * RANK].T @ A).round(9)
        of_B = abs(B @ Vt[: 2 * RANK].T).round(9).T
        assert (of_A.sum(0) == 1).all()
        assert ((of_A + of_B).sum(1) == 1).all()  # each direction is used once
        splits.add(tuple(of_A.argmax(0)))
    assert len(splits) > 1


@pytest.mark.parametrize("signed", [False, True])
def test_lora_sb_plain_and_signed(signed: bool) -> None:
    found = start(inits.lora_sb(0.5, signed))
    (R,), (A, B) = found.trainable, found.frozen
    expected = best(0.5 * (np.sign(G) if signed else G), RANK)
    np.testing.assert_allclose((A @ R @ B).numpy(), expected, **CLOSE)
    np.testing.assert_allclose((A.mT @ A).numpy(), np.eye(RANK), **CLOSE)
    np.testing.assert_allclose((B @ B.mT).numpy(), np.eye(RANK), **CLOSE)
    assert found.offset is None


def test_pissa_and_milora_take_the_two_ends_of_W() -> None:
    found = start(inits.pissa(S))
    np.testing.assert_allclose(S * product(found.trainable), best(W, RANK), **CLOSE)
    assert_balanced(found.trainable, np.array([2.0, 1.7, 1.3]) / S)
    assert_offset(found, S)
    found = start(inits.milora(S))
    np.testing.assert_allclose(S * product(found.trainable), W - best(W, K - RANK), **CLOSE)
    assert_balanced(found.trainable, np.array([0.7, 0.4, 0.2]) / S)
    assert_offset(found, S)


def test_olora() -> None:
    Q, R = np.linalg.qr(W.T)
    found = start(inits.olora(S))
    A, B = (t.numpy() for t in found.trainable)
    np.testing.assert_allclose(A @ B, R[:RANK].T @ Q[:, :RANK].T, **CLOSE)
    np.testing.assert_allclose(B @ B.T, np.eye(RANK), **CLOSE)
    assert_offset(found, S)


def test_lora_xs() -> None:
    found = start(inits.lora_xs(1e-5), seeds=tuple(range(400)))
    A, B = found.frozen
    np.testing.assert_allclose((A @ B).numpy(), best(W, RANK), **CLOSE)
    np.testing.assert_allclose((B @ B.mT).numpy(), np.eye(RANK), **CLOSE)
    # 3600 draws: the relative error of their standard deviation is 1.2 %, four times that allowed.
    assert found.trainable[0].std().item() == pytest.approx(1e-5, rel=0.05)
    assert found.offset is None


def test_random_starts_have_their_law_and_change_nothing() -> None:
    seeds = tuple(range(100))
    A, B = start(inits.kaiming(), seeds=seeds).trainable
    # 2700 draws from ±1/√9: the largest is within 1 % of the bound, the variance 1/27 within 6 %.
    assert 0.33 < A.abs().max().item() <= 1 / 3
    assert A.var().item() == pytest.approx(1 / 27, rel=0.1)
    assert not B.any()
    P, lam, Q = start(inits.adalora(), seeds=seeds).trainable
    assert lam.shape == (100, 1, RANK)
    assert not lam.any()
    for M in (P, Q):
        assert M.std().item() == pytest.approx(0.02, rel=0.06)
    assert (P[:, :K, :] - Q.mT).abs().max() > 0.01  # independent of each other


def test_completion_beyond_the_rank_of_the_gradient() -> None:
    problem = lt.LinearProblem.from_data(X, shift=matrix([1.0, 0.5]))
    for init in (inits.early(K**0.5), inits.lora_ga(size="unit")):
        A, B = init(problem, RANK, (0, 1)).trainable
        for frame in (A, B.mT):
            np.testing.assert_allclose(
                (frame.mT @ frame).numpy(), np.broadcast_to(np.eye(RANK), (2, 3, 3)), **CLOSE
            )
        assert (B[0] - B[1]).abs().max() > 0.01  # the completion differs between seeds


W_BASED = {
    "pissa": lt.methods.pissa(),
    "milora": lt.methods.milora(),
    "olora": lt.methods.olora(),
    "lora-xs": lt.methods.lora_xs(),
    "lora-ga": lt.methods.lora_ga(size="weightS"),
}


@pytest.mark.parametrize("name", W_BASED)
def test_starts_from_W_need_it(name: str) -> None:
    problem = lt.sample_linear_matrix_free(d=12, k=10, true_rank=2, samples=50)
    with pytest.raises(ValueError, match=rf"'{name}.*pre-trained weight W, and this problem"):
        lt.simulate(problem, W_BASED[name], rank=2, learning_rate=0.1, steps=1)


@pytest.mark.parametrize(
    "method",
    [lt.methods.lora(init_std="kaiming"), lt.methods.lora_sb(signed=True)],
    ids=lambda method: method.name,
)
def test_entrywise_starts_need_the_coordinates(method: lt.Method) -> None:
    problem = lt.sample_linear_matrix_free(d=12, k=10, true_rank=2, samples=50)
    with pytest.raises(ValueError, match=r"depends on the coordinates.*draw it with sample_linear"):
        lt.simulate(problem, method, rank=2, learning_rate=0.1, steps=1)


@pytest.mark.parametrize(
    "name", ["lora-one", "lora-one-released", "lora-one-early", "lora-ga", "lora-sb"]
)
def test_zero_gradient_is_an_error(name: str) -> None:
    # Inputs orthogonal to Δ's columns: Σ̂Δ = 0 although Δ is not.
    blind = np.zeros((20, D))
    blind[:, 0] = 1.0
    delta = np.zeros((D, K))
    delta[1, 0] = 1.0
    problem = lt.LinearProblem.from_data(blind, shift=delta)
    with pytest.raises(ValueError, match=r"finite and non-zero \(sigma_1 > 0\)"):
        lt.simulate(problem, name, rank=2, learning_rate=0.1, steps=1)


def test_lora_ga_refuses_too_high_a_rank() -> None:
    with pytest.raises(ValueError, match=r"2 \* rank <= min\(d, k\); got rank=4 with d=9, k=7"):
        lt.simulate(PROBLEM, "lora-ga", rank=4, learning_rate=0.1, steps=1)


PEFT_NAMES = {"pissa": inits.pissa, "olora": inits.olora}


@pytest.mark.parametrize("name", PEFT_NAMES)
@pytest.mark.parametrize("rslora", [False, True])
def test_agrees_with_peft(name: str, rslora: bool) -> None:
    peft = pytest.importorskip("peft", reason="install the extra: pip install -e .[peft]")
    linear = torch.nn.Linear(D, K, bias=False)
    linear.weight.data = torch.from_numpy(W.T.copy()).float()
    config = peft.LoraConfig(
        r=RANK, lora_alpha=4, use_rslora=rslora, init_lora_weights=name, target_modules=["0"]
    )
    layer = peft.get_peft_model(torch.nn.Sequential(linear), config).base_model.model[0]
    A, B = layer.lora_A["default"].weight.detach().T, layer.lora_B["default"].weight.detach().T
    s = lt.methods.Alpha(4.0, stabilised=rslora).at(RANK)
    assert layer.scaling["default"] == s
    found = start(PEFT_NAMES[name](s))
    kept = torch.from_numpy(W) - found.offset.dense()
    # peft takes float32: an SVD of d x k of size 2, over gaps of 0.3 between singular values.
    by_entry = near(D, condition=1 / 0.3, scale=2.0, dtype=torch.float32)
    ours_A, ours_B = found.trainable
    torch.testing.assert_close((ours_A @ ours_B), (A @ B).double(), **by_entry)
    torch.testing.assert_close(kept, layer.weight.detach().T.double(), **by_entry)
    # Signs of singular vectors are free; every column of A with its row of B is not.
    for i in range(RANK):
        theirs = torch.outer(A[:, i], B[i]).double()
        torch.testing.assert_close(torch.outer(ours_A[:, i], ours_B[i]), theirs, **by_entry)


def test_peft_has_no_milora_to_compare_with() -> None:
    peft = pytest.importorskip("peft", reason="install the extra: pip install -e .[peft]")
    config = peft.LoraConfig(r=RANK, init_lora_weights="milora", target_modules=["0"])
    with pytest.raises(ValueError, match="milora"):
        peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(D, K)), config)
