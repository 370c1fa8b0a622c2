"""The PEFT route on a second device, by tensors that claim one (second_device.py)."""

from collections.abc import Iterator
from typing import Any

import pytest
import tolerance
import torch
from peft_nets import QUIET, batch, config, net, peft, squared, step_on
from second_device import Elsewhere, Mixed, SecondDevice, back
from torch import Tensor, nn

from loraone_theory.integrations import peft_targets
from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    PairOptimizer,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)
from loraone_theory.methods.rules import RULES

pytestmark = QUIET
# Two steps of a few products of length 64 each, of well conditioned adapters.
CLOSE = tolerance.rounding(64, operations=2 * 8, condition=1e2, dtype=torch.float32)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondDevice]:
    """The second device; its parameters are of a class of their own, which targets refuse."""
    monkeypatch.setattr(peft_targets, "_differentiable", lambda weight: weight is not None)
    with SecondDevice() as entered:
        yield entered


def sent(model: nn.Module, place: SecondDevice) -> nn.Module:
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(place.put(parameter.data))
    return model


def adapted(
    place: SecondDevice | None, settings: LoRAOneConfig, reduce: str
) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The route of the README: gradients, then adapters that start at them."""
    model, (X, Y) = net(8, 10, 6), batch(8, 6)
    if place is not None:
        model, X, Y = sent(model, place), place.put(X), place.put(Y)
    options: dict[str, Any] = {} if reduce == "none" else {"keep": 3}
    gradients = get_lora_one_gradients(
        model, config(), step_on(model, (X, Y)), reduce=reduce, **options
    )
    wrapped = peft.get_peft_model(model, config())
    initialize_lora_one_weights(wrapped, gradients, settings)
    return wrapped, (X, Y)


@pytest.mark.parametrize("reduce", ["none", "svd", "sketch"])
@pytest.mark.parametrize("init", ["released", "spectral"])
def test_adapters_start_there_as_here(place: SecondDevice, init: str, reduce: str) -> None:
    """One copy to the host for each part that is kept of a module's gradient."""
    there, _ = adapted(place, LoRAOneConfig(init), reduce)
    copies = place.reads.count("a copy to the CPU")
    assert copies == 2 * {"none": 1, "svd": 4, "sketch": 2}[reduce]
    here, _ = adapted(None, LoRAOneConfig(init), reduce)
    for ours, theirs in zip(lora_pairs(there), lora_pairs(here), strict=True):
        for found, expected in zip(ours.factors, theirs.factors, strict=True):
            assert isinstance(found, Elsewhere)
            tolerance.close(back(found)[0], expected, CLOSE)


@pytest.mark.parametrize("rule", [name for name, make in RULES.items() if not make(0.1).advance])
def test_steps_of_every_rule_are_those_of_the_cpu(place: SecondDevice, rule: str) -> None:
    ends = []
    for where in (place, None):
        wrapped, (X, Y) = adapted(where, LoRAOneConfig("spectral"), "none")
        optimizer = PairOptimizer(wrapped, rule, lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            squared(wrapped, X, Y).backward()
            optimizer.step()
        ends.append([tensor for pair in lora_pairs(wrapped) for tensor in pair.factors])
    for found, expected in zip(*ends, strict=True):
        assert isinstance(found, Elsewhere)
        tolerance.close(back(found)[0], expected, CLOSE)


def test_pairs_of_one_optimiser_may_be_in_two_places(place: SecondDevice) -> None:
    """The second layer elsewhere, as a model that is spread over devices has it."""
    ends = []
    for spread in (True, False):
        wrapped, _ = adapted(None, LoRAOneConfig("spectral"), "none")
        wrapped.requires_grad_(False)
        pairs = lora_pairs(wrapped)
        if spread:
            sent(pairs[1].layer, place)
        for pair in pairs:
            for part in pair.layer.lora_A, pair.layer.lora_B:
                part.requires_grad_(True)
        pairs = lora_pairs(wrapped)
        optimizer = PairOptimizer(pairs, "adamw", lr=1e-2)
        for _ in range(2):
            for pair in pairs:
                pair.down.grad, pair.up.grad = (torch.ones_like(p) for p in (pair.down, pair.up))
            optimizer.step()
        ends.append([tensor for pair in pairs for tensor in pair.factors])
    assert [isinstance(tensor, Elsewhere) for tensor in ends[0]] == [False, False, True, True]
    for found, expected in zip(*ends, strict=True):
        tolerance.close(back(found)[0], expected, CLOSE)


# --- mutants -----------------------------------------------------------------------------------


def test_a_batch_left_on_the_cpu_is_found_out(place: SecondDevice) -> None:
    model = sent(net(8, 10, 6), place)
    with pytest.raises(Mixed, match="cuda:0 and on cpu"):
        get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))


def test_one_more_copy_to_the_host_is_counted(place: SecondDevice) -> None:
    """A step that looks at a gradient on the way, beside one that does not."""
    counts = []
    for looks in (False, True):
        model, (X, Y) = sent(net(8, 10, 6), place), (place.put(part) for part in batch(8, 6))
        step = step_on(model, (X, Y))

        def looking(step: Any = step, model: nn.Module = model, looks: bool = looks) -> None:
            step()
            if looks:
                next(model.parameters()).detach().cpu()

        place.reads.clear()
        get_lora_one_gradients(model, config(), looking)
        counts.append(place.reads.count("a copy to the CPU"))
    assert counts[1] == counts[0] + 1
