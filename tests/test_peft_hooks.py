"""Adapters that do not see the gradient of their weight: refused by name, or found by the check."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from peft_nets import QUIET, batch, close, config, net, peft, squared, step_on
from tolerance import rounding
from torch import Tensor, nn

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = QUIET

SPECTRAL = LoRAOneConfig("spectral", 1e-3)


def returning(
    model: nn.Module, *data: Tensor, more: Callable[[], Tensor] | None = None
) -> Callable[[], Tensor]:
    def train_step() -> Tensor:
        loss = squared(model, *data)
        if more is not None:
            loss = loss + more()
        loss.backward()
        return loss

    return train_step


def in_place(module: nn.Module, args: object, output: Tensor) -> None:
    output.mul_(2)


CHANGING: dict[str, Callable[[nn.Module], object]] = {
    "before": lambda m: m.register_forward_pre_hook(lambda _, args: (2 * args[0],)),
    "keywords": lambda m: m.register_forward_pre_hook(
        lambda _, args, kwargs: ((args[0] + 1,), kwargs), with_kwargs=True
    ),
    "after": lambda m: m.register_forward_hook(lambda _, args, output: 3 * output),
    "in place": lambda m: m.register_forward_hook(in_place),
}


@pytest.mark.parametrize("form", CHANGING)
@pytest.mark.parametrize("missing", ["error", "lora"])
def test_hooks_that_change_what_a_target_does_are_refused_by_name(form: str, missing: str) -> None:
    model = net(8, 10, 6)
    CHANGING[form](model[2])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    held = [dict(h) for h in (model[2]._forward_hooks, model[2]._forward_pre_hooks)]
    step = step_on(model, batch(8, 6))
    with pytest.raises(ValueError, match=r"must not change what a target is given.*got 2; remove"):
        get_lora_one_gradients(model, config(), step, missing=missing)  # type: ignore[arg-type]
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert [dict(h) for h in (model[2]._forward_hooks, model[2]._forward_pre_hooks)] == held
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks
    assert list(get_lora_one_gradients(model, config("0"), step)) == ["0"]


def test_hooks_that_look_on_are_let_through() -> None:
    model, (X, Y) = net(8, 10, 6), batch(8, 6)
    expected = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    seen: list[Tensor] = []
    model[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model[0].register_forward_hook(lambda _, args, output: seen.append(output))
    model[2].register_forward_pre_hook(lambda _, args: (args[0].clone(),))
    model[2].register_forward_hook(lambda _, args, output: output.requires_grad_(True))
    found = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    assert all(torch.equal(found[n], G) for n, G in expected.items())
    assert len(seen) == 2


def adapters_own(model: nn.Module, data: tuple[Tensor, Tensor], gamma: float) -> float:
    """⟨∇_D L, sA₀B₀⟩ over the layers, for matrices D added to what the layers return, longhand."""
    wide = copy.deepcopy(model).double()
    pairs = lora_pairs(wide)
    added = [
        torch.zeros(pair.base_shape, dtype=torch.float64, requires_grad=True) for pair in pairs
    ]
    steps = [(pair.scale * pair.factors.dense()).mT.detach() for pair in pairs]
    for pair in pairs:
        nn.init.zeros_(pair.up)
    for pair, D in zip(pairs, added, strict=True):
        pair.layer.register_forward_hook(lambda _, args, output, D=D: output + args[0] @ D.mT)
    squared(wide, *(t.double() for t in data)).backward()
    return sum(float((D.grad * step).sum()) for D, step in zip(added, steps, strict=True))


@pytest.mark.parametrize("form", [None, *CHANGING])
def test_the_check_finds_hooks_that_came_later(form: str | None) -> None:
    """The gradients are given; the hook is on a base layer when the adapter is there."""
    model, data = net(8, 10, 6), batch(8, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, data))
    wrapped = peft.get_peft_model(model, config())
    if form is not None:
        CHANGING[form](lora_pairs(wrapped)[1].layer.get_base_layer())
    run = returning(wrapped, *data)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = initialize_lora_one_weights(wrapped, gradients, SPECTRAL, check=run).check
    assert found is not None
    assert found.other == (() if form is None else ("2",))
    assert found.inert == ()
    told = [
        str(w.message) for w in said if "see the gradient of its weight; 1 see" in str(w.message)
    ]
    assert len(told) == (form is not None)
    # Products over the widths and the batch, in float32, of three layers.
    allowed = rounding(64, operations=6, dtype=torch.float32)
    assert found.first_order == pytest.approx(adapters_own(wrapped, data, 1e-3), rel=allowed)
    if form is None:
        assert found.first_order == pytest.approx(found.predicted, rel=allowed)
    assert not any(p.grad is not None for p in wrapped.parameters())


class Uses(nn.Module):
    """Two layers with one weight, one module twice, and a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight
        shared = nn.Linear(6, 6)
        self.first, self.second = nn.Sequential(shared), nn.Sequential(shared)
        self.last = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).tanh()).tanh()
        return self.last(self.other(self.one(x).tanh()).tanh())


def test_the_check_knows_tied_and_shared_weights_and_finds_uses_elsewhere() -> None:
    lora = config("one", "other", "0", "last")
    for decay in (0.0, 0.1):
        model, data = Uses(), batch(6, 6)
        last = model.last

        def penalty(decay: float = decay, last: nn.Linear = last) -> Tensor:
            return decay * last.weight.square().sum()

        gradients = get_lora_one_gradients(model, lora, returning(model, *data, more=penalty))
        wrapped = peft.get_peft_model(model, lora)
        run = returning(wrapped, *data, more=penalty)
        with warnings.catch_warnings():
            if decay:
                warnings.filterwarnings("ignore", ".*should see the gradient of its weight")
            found = initialize_lora_one_weights(wrapped, gradients, SPECTRAL, check=run).check
        assert found is not None
        assert found.other == (("last",) if decay else ())
        base = wrapped.base_model.model
        assert base.second[0] is base.first[0].get_base_layer()
        assert base.one.get_base_layer().weight is base.other.get_base_layer().weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_adapters_dropout_is_off_while_the_check_runs(dtype: torch.dtype) -> None:
    """So that the second loss is that at W + sA₀B₀, also where the step sets training mode."""
    model, data = net(8, 10, 6).to(dtype), [t.to(dtype) for t in batch(8, 6)]
    lora = config(lora_dropout=0.5)
    gradients = get_lora_one_gradients(model, lora, step_on(model, (data[0], data[1])))
    wrapped = peft.get_peft_model(model, lora)

    def run() -> Tensor:
        wrapped.train()
        return returning(wrapped, *data)()

    found = initialize_lora_one_weights(wrapped, gradients, SPECTRAL, check=run).check
    assert found is not None
    assert found.other == ()
    assert all(isinstance(p.layer.lora_dropout["default"], nn.Dropout) for p in lora_pairs(wrapped))
    exact = squared(wrapped.eval(), *data)
    assert found.after == pytest.approx(exact.item(), rel=rounding(8, operations=4, dtype=dtype))
    assert close(torch.tensor(found.first_order), torch.tensor(found.predicted), 0.05)


def test_the_check_needs_no_gradient_mode_around_it() -> None:
    model, data = net(8, 10, 6), batch(8, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, data))
    wrapped = peft.get_peft_model(model, config())
    with torch.no_grad():
        run = returning(wrapped, *data)
        found = initialize_lora_one_weights(wrapped, gradients, SPECTRAL, check=run).check
    assert found is not None
    assert found.after < found.before
