"""Steps in place and the randomised decomposition, against their plain forms."""

import copy

import pytest
import torch
from peft_nets import QUIET, batch, config, net, peft, squared
from tolerance import near
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.linalg import SVDOptions
from loraone_theory.integrations.peft import PairOptimizer, lora_pairs
from loraone_theory.methods.rules import RULES

pytestmark = QUIET

WRITTEN = {
    "adamw": ("adamw", {"weight_decay": 0.1, "ratio": 4.0}),
    "scaled-adamw, peft": ("scaled-adamw", {"order": "peft", "weight_decay": 0.1}),
    "scaled-adamw, released": ("scaled-adamw", {"order": "released", "weight_decay": 0.1}),
    "scaled-adamw, corrected": ("scaled-adamw", {"bias_correction": True, "relative": 0.1}),
}
STEPS = 5


def test_every_rule_that_writes_in_place_is_here() -> None:
    assert {rule for rule, _ in WRITTEN.values()} == {
        name for name, make in RULES.items() if make(0.1).in_place is not None
    }


def layouts(M: Tensor) -> list[Tensor]:
    """The same values, of rows, of columns, and of neither."""
    return [M.clone(), M.mT.contiguous().mT, torch.stack([M, M], dim=-1)[..., 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", WRITTEN)
def test_a_step_in_place_is_the_step(name: str, dtype: torch.dtype) -> None:
    rule, more = WRITTEN[name]
    more = more | ({"damping": 1e-2} if rule == "scaled-adamw" else {})
    made = RULES[rule](0.01, **more)
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=dtype)  # noqa: E731
    start, gradients = (
        (draw(4, 7, 3), draw(4, 3, 5)),
        [(draw(4, 7, 3), draw(4, 3, 5)) for _ in range(STEPS)],
    )
    expected, state = start, made.init(start)
    for G in gradients:
        expected, state = made.update(expected, G, state)
    # Steps of 0.01 times Gram matrices of 3 columns with a condition number below 1e3.
    allowed = near(7, operations=4 * STEPS, condition=1e3, scale=0.01, dtype=dtype)
    for A, B in zip(layouts(start[0]), layouts(start[1]), strict=True):
        params = (A, B)
        own = made.init(params)
        for G in gradients:
            params, own = made.in_place(params, G, own)
        for found, right in zip(params, expected, strict=True):
            torch.testing.assert_close(found, right, **allowed)


def test_the_state_of_another_optimiser_is_not_written_over() -> None:
    X, Y = batch(8, 6)
    model = peft.get_peft_model(net(8, 8, 8, 6), config("0", "2", init_lora_weights=False))
    twin = copy.deepcopy(model)
    one, two = (PairOptimizer(m, "adamw", lr=1e-2) for m in (model, twin))

    def step(model, optimizer) -> None:
        optimizer.zero_grad()
        squared(model, X, Y).backward()
        optimizer.step()

    step(model, one)
    step(twin, two)
    two.load_state_dict(one.state_dict())
    held = copy.deepcopy(one.state_dict()["state"])
    for _ in range(3):
        step(twin, two)
    for index, entries in one.state_dict()["state"].items():
        for key, value in entries.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(held[index][key]))
    for _ in range(3):
        step(model, one)
    for mine, other in zip(lora_pairs(model), lora_pairs(twin), strict=True):
        assert torch.equal(mine.down, other.down)
        assert torch.equal(mine.up, other.up)


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (60, 60), (2, 60, 90)])
def test_the_randomised_decomposition_is_torchs(shape: tuple[int, ...], rows: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    M = torch.randn(shape, generator=rng, dtype=torch.float64)
    M = M if rows else M.mT.contiguous().mT
    with torch.random.fork_rng():
        torch.manual_seed(5)
        U, S, V = torch.svd_lowrank(M, q=12, niter=3)
    before = torch.random.get_rng_state()
    found = linalg.truncated_svd(M, 4, SVDOptions("lowrank", 12, 3, 5))
    assert torch.equal(torch.random.get_rng_state(), before)
    # Eight products and as many orthonormalisations of twelve directions; neighbouring singular
    # values of a Gaussian matrix of this size differ by more than 1/100 of the largest.
    allowed = near(90, operations=16, condition=1e2, scale=float(S.max()))
    torch.testing.assert_close(found.S, S[..., :4], **allowed)
    product = (U[..., :4] * S[..., None, :4]) @ V[..., :4].mT
    torch.testing.assert_close((found.U * found.S[..., None, :]) @ found.V.mT, product, **allowed)


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e200])
def test_powers_of_a_matrix_neither_overflow_nor_vanish(scale: float) -> None:
    """Three applications of MMᵀ at any size of M, and none of a zero matrix."""
    rng = torch.Generator().manual_seed(0)
    M = torch.randn(30, 20, generator=rng, dtype=torch.float64)
    M[0] = 0
    options = SVDOptions("lowrank", 12, 3, 5)
    usual = linalg.truncated_svd(M, 4, options)
    found = linalg.truncated_svd(scale * M, 4, options)
    allowed = near(30, operations=16, condition=1e2, scale=scale * float(usual.S.max()))
    torch.testing.assert_close(found.S, scale * usual.S, **allowed)
    assert bool(torch.isfinite(found.U).all() and torch.isfinite(found.V).all())
