"""Gradients of a PEFT model's targets: values, kinds of layers, what is left alone."""

import copy

import pytest
import torch
from peft_nets import QUIET, batch, best, close, config, net, peft, squared, step_on, transformers
from torch import Tensor, nn

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = QUIET


def test_gradients_are_the_mean_over_backward_passes() -> None:
    model = net(8, 10, 6)
    batches = [batch(8, 6, seed) for seed in range(4)]
    expected = {}
    for X, Y in batches:
        model.zero_grad()
        squared(model, X, Y).backward()
        for name in ("0", "2"):
            expected[name] = expected.get(name, 0) + model.get_submodule(name).weight.grad / 4
    model.zero_grad()
    looped = get_lora_one_gradients(model, config(), step_on(model, *batches))
    feed = iter(batches)
    called = get_lora_one_gradients(
        model, config(), lambda: step_on(model, next(feed))(), num_batches=4
    )
    both = get_lora_one_gradients(model, config(), step_on(model, *batches), num_batches=4)
    for found in (looped, called, both):
        assert list(found) == ["0", "2"]
        for name, G in found.items():
            assert G.dtype == torch.float32
            assert G.shape == model.get_submodule(name).weight.shape
            assert close(G, expected[name])


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt, RuntimeError])
def test_estimation_leaves_the_model_as_it_was(failure: type[BaseException] | None) -> None:
    model = nn.Sequential(*net(8, 10, 6), nn.Dropout(0.1))
    model[0].bias.requires_grad_(False)
    model[1].eval()
    X, Y = batch(8, 6)
    squared(model, X, Y).backward()
    parameters = dict(model.named_parameters())
    before = {
        n: (p.requires_grad, None if p.grad is None else p.grad.clone())
        for n, p in parameters.items()
    }
    held = {n: p.grad for n, p in parameters.items()}
    values = {n: p.detach().clone() for n, p in parameters.items()}
    modes = [m.training for m in model.modules()]

    def train_step() -> None:
        model.eval()
        squared(model, X, Y).backward()
        model.zero_grad(set_to_none=False)
        if failure is not None:
            raise failure

    if failure is None:
        get_lora_one_gradients(model, config(), train_step)
    else:
        with pytest.raises(failure):
            get_lora_one_gradients(model, config(), train_step)
    assert [m.training for m in model.modules()] == modes
    after = dict(model.named_parameters())
    assert list(after) == list(parameters)
    for n, p in after.items():
        trainable, gradient = before[n]
        assert p is parameters[n]
        assert p.requires_grad == trainable
        assert p.grad is held[n]
        assert gradient is None or torch.equal(p.grad, gradient)
        assert torch.equal(p.detach(), values[n])


class Twice(nn.Module):
    """One linear layer under two parents, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        shared = nn.Linear(6, 6)
        self.first, self.second = nn.Sequential(shared), nn.Sequential(shared)
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.one(self.second(self.first(x).tanh()).tanh()).tanh())


def test_tied_and_shared_weights_get_the_gradient_of_the_adapted_use() -> None:
    """∇ at A₀ = 0, B₀ = I-like is what the adapter itself would see: compare with its own."""
    model, (X, Y) = Twice(), batch(6, 6)
    lora = peft.LoraConfig(r=6, lora_alpha=6, target_modules=["0", "one", "other"])
    names = ["first.0", "one", "other"]
    gradients = get_lora_one_gradients(model, lora, step_on(model, (X, Y)))
    assert model.first[0] is model.second[0]
    assert model.one.weight is model.other.weight
    assert list(gradients) == names
    wrapped = peft.get_peft_model(copy.deepcopy(model), lora)
    pairs = lora_pairs(wrapped)
    with torch.no_grad():
        for pair in pairs:  # with A = I the gradient of B is that of the effective weight
            pair.down.copy_(torch.eye(6))
    squared(wrapped, X, Y).backward()
    for pair in pairs:
        assert close(gradients[pair.name], pair.up.grad)
    initialize_lora_one_weights(wrapped, gradients)


def test_conv1d_patterns_and_rank_stabilised_scales() -> None:
    hf = transformers.GPT2Config(n_layer=2, n_embd=24, n_head=2, vocab_size=17, n_positions=8)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(hf).eval()
    ids = torch.randint(0, 17, (4, 8), generator=torch.Generator().manual_seed(0))
    lora = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=["c_attn", "c_proj"],
        rank_pattern={"h.0.attn.c_attn": 6},
        alpha_pattern={"h.1.attn.c_attn": 32},
        fan_in_fan_out=True,
    )
    gradients = get_lora_one_gradients(
        model, lora, lambda: model(input_ids=ids, labels=ids).loss.backward()
    )
    assert gradients["transformer.h.0.attn.c_attn"].shape == (24, 72)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    wrapped = peft.get_peft_model(model, lora)
    reports = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral", 0.1))
    pairs = {pair.name: pair for pair in lora_pairs(wrapped)}
    assert pairs["transformer.h.0.attn.c_attn"].scale == 8 / 6**0.5
    assert pairs["transformer.h.1.attn.c_attn"].scale == 32 / 2
    assert reports["transformer.h.0.attn.c_attn"].kept_rank == 6
    for name, pair in pairs.items():
        assert pair.transposed
        G = -gradients[name]
        assert close(
            pair.layer.get_delta_weight("default").double(), 0.1 * best(G, pair.down.shape[0]), 1e-5
        )
        assert torch.equal(pair.layer.get_base_layer().weight, before[f"{name}.weight"])


def test_bfloat16_base_keeps_float32_adapters_and_gradients() -> None:
    model = net(8, 10, 6, dtype=torch.bfloat16)
    X, Y = (t.bfloat16() for t in batch(8, 6))
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    assert all(G.dtype == torch.float32 for G in gradients.values())
    before = {n: p.clone() for n, p in model.named_parameters()}
    wrapped = peft.get_peft_model(model, config())
    initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral"))
    for pair in lora_pairs(wrapped):
        assert pair.down.dtype == torch.float32
        assert close(pair.scale * pair.factors.dense().double(), best(-gradients[pair.name].mT, 3))
        assert torch.equal(pair.layer.get_base_layer().weight, before[f"{pair.name}.weight"])


def test_on_a_device(device: str) -> None:
    model = net(8, 10, 6).to(device)
    X, Y = (t.to(device) for t in batch(8, 6))
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    assert all(G.device.type == "cpu" for G in gradients.values())
    wrapped = peft.get_peft_model(model, config())
    initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral"))
    for pair in lora_pairs(wrapped):
        assert pair.down.device.type == device
        dense = pair.scale * pair.factors.dense().double().cpu()
        assert close(dense, best(-gradients[pair.name].mT, 3))


@pytest.mark.parametrize("names", ["all-linear", r"\d", None])
def test_targets_are_those_of_peft(names: str | None) -> None:
    if names is None:  # the architecture's default
        hf = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=4)
        model: nn.Module = transformers.GPT2LMHeadModel(hf)
        ids = torch.zeros(1, 4, dtype=torch.long)

        def train_step() -> None:
            model(input_ids=ids, labels=ids).loss.backward()
    else:
        model = net(8, 10, 6)
        train_step = step_on(model, batch(8, 6))
    left_out = ["1", "2"] if names == r"\d" else None
    fan = names is None
    lora = peft.LoraConfig(r=2, target_modules=names, exclude_modules=left_out, fan_in_fan_out=fan)
    given = copy.deepcopy(lora.target_modules)
    gradients = get_lora_one_gradients(model, lora, train_step)
    assert lora.target_modules == given
    assert list(gradients) == [pair.name for pair in lora_pairs(peft.get_peft_model(model, lora))]
