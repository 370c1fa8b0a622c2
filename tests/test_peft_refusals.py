"""Refusals of the PEFT route: one clear error, before anything is modified."""

from collections.abc import Callable

import pytest
import torch
from peft_nets import QUIET, batch, config, net, peft, step_on
from torch import Tensor, nn

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
)

pytestmark = QUIET


def changed(**entries: object) -> dict[str, Tensor]:
    gradients = {"0": torch.ones(10, 8), "2": torch.ones(6, 10)}
    return {n: G for n, G in {**gradients, **entries}.items() if G is not None}


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ({}, "needs a gradient; got none for 0, none for 2"),
        (changed(**{"2": None}), "got none for 2; estimate them"),
        (changed(**{"2": torch.zeros(6, 10)}), "must not be zero.*zero for 2"),
        (changed(**{"2": torch.full((6, 10), torch.nan)}), "must be finite.*for 2"),
        (changed(**{"0": torch.ones(8, 10)}), r"shape of its module's weight; got \(8, 10\) for 0"),
    ],
)
def test_bad_gradients_modify_nothing(gradients: dict[str, Tensor], message: str) -> None:
    wrapped = peft.get_peft_model(net(8, 10, 6), config())
    before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
    with pytest.raises(ValueError, match=message):
        initialize_lora_one_weights(wrapped, gradients)
    assert all(torch.equal(p, before[n]) for n, p in wrapped.named_parameters())


def test_bad_adapters_are_refused() -> None:
    wrapped = peft.get_peft_model(net(8, 10, 6), config())
    with pytest.raises(ValueError, match="adapter_name must be one of default; got 'defualt'; did"):
        initialize_lora_one_weights(wrapped, changed(), adapter_name="defualt")
    with pytest.raises(ValueError, match="must have LoRA layers; got Sequential"):
        initialize_lora_one_weights(net(8, 10, 6), changed())
    wrapped.merge_adapter()
    with pytest.raises(ValueError, match="must not be merged"):
        initialize_lora_one_weights(wrapped, changed())
    dora = peft.get_peft_model(net(8, 10, 6), config(use_dora=True))
    with pytest.raises(ValueError, match="applies to plain LoRA"):
        initialize_lora_one_weights(dora, changed())
    words = peft.LoraConfig(r=2, target_modules=["0"])
    embedding = peft.get_peft_model(nn.Sequential(nn.Embedding(5, 4)), words)
    with pytest.raises(ValueError, match="applies to linear layers and Conv1D; got 0"):
        initialize_lora_one_weights(embedding, {"0": torch.ones(5, 4)})


def quantised(model: nn.Sequential) -> nn.Sequential:
    model[0].weight = nn.Parameter(torch.ones(10, 8, dtype=torch.int8), requires_grad=False)
    return model


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("make", "lora", "train_step", "message"),
    [
        (lambda: net(8, 10, 6), config(use_dora=True), nothing, "got use_dora=True"),
        (lambda: quantised(net(8, 10, 6)), config(), nothing, "quantised.* no gradient; got 0"),
        (lambda: net(8, 10, 6), config("1"), nothing, "linear layers and Conv1D; got 1"),
        (lambda: net(8, 10, 6), config("7"), nothing, "must name modules of the model"),
        (lambda: net(8, 10, 6), config(), nothing, "train_step must run forward and backward"),
        (
            lambda: peft.get_peft_model(net(8, 10, 6), config()),
            config(),
            nothing,
            "must be the base model",
        ),
    ],
)
def test_bad_estimations_are_refused(
    make: Callable[[], nn.Module], lora: object, train_step: Callable[[], None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        get_lora_one_gradients(make(), lora, train_step)


def test_gradients_that_lead_nowhere_are_refused() -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6)

    def reaches_the_first_layer_only() -> None:
        model[0](X).square().sum().backward()

    with pytest.raises(ValueError, match=r"got none for 2; .*the loss does not reach"):
        get_lora_one_gradients(model, config(), reaches_the_first_layer_only)
    with pytest.raises(ValueError, match="must be finite"):
        get_lora_one_gradients(model, config(), step_on(model, (X, Y * torch.inf)))
    with pytest.raises(ValueError, match="must not be zero"):
        get_lora_one_gradients(model, config(), step_on(model, (X, model(X).detach())))
    with pytest.raises(FileNotFoundError, match=r"the folder of .* must exist"):
        get_lora_one_gradients(model, config(), nothing, cache_file="nowhere/gradients")
    with pytest.raises(ValueError, match="num_batches must be >= 1; got num_batches=0"):
        get_lora_one_gradients(model, config(), nothing, num_batches=0)


def test_given_gradients_initialise_a_quantised_base() -> None:
    model = quantised(net(8, 10, 6))
    wrapped = peft.get_peft_model(model, config())
    before = model[0].get_base_layer().weight.clone()
    reports = initialize_lora_one_weights(wrapped, changed())
    assert reports["0"].kept_rank == 1
    assert torch.equal(model[0].get_base_layer().weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "spectrla"}, "init must be one of released, spectral; got 'spectrla'; did"),
        ({"svd": "fast"}, "svd must be one of auto, exact, lowrank, released"),
        ({"gamma": 0.0}, "gamma must be finite and > 0"),
        ({"q": 0}, "q must be >= 1"),
        ({"rel_tol": 1.0}, "0 <= rel_tol < 1"),
    ],
)
def test_bad_configs_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRAOneConfig(**options)
