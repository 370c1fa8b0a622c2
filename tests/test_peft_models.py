"""The PEFT route inside other things: experts, wrappers, compiled parts, and the forward check."""

import copy
import warnings

import pytest
import torch
from peft_nets import QUIET, batch, best, close, config, net, peft, squared, step_on, transformers
from tolerance import near, rounding
from torch import Tensor, nn

from loraone_theory.integrations.alignment import AlignmentTracker
from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    PairOptimizer,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

# PEFT's own words about its own conversion of the targets.
CONVERTED = pytest.mark.filterwarnings("ignore:.*_pattern keys:RuntimeWarning")
pytestmark = [QUIET, CONVERTED]


# --- experts


def mixtral() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    hf = transformers.MixtralConfig(vocab_size=19, num_local_experts=3, **sizes, **heads)
    hf._experts_implementation = "eager"  # the fused kernel knows no float64
    return transformers.MixtralForCausalLM(hf)


def ids(n: int = 12) -> Tensor:
    return torch.randint(0, 19, (n, 8), generator=torch.Generator().manual_seed(0))


def language_step(model: nn.Module, words: Tensor):
    def train_step() -> Tensor:
        loss = model(input_ids=words, labels=words).loss
        loss.backward()
        return loss

    return train_step


def all_linear(**more: object) -> peft.LoraConfig:
    return peft.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", **more)


def test_experts_get_a_step_each() -> None:
    """Against autograd in float64, slice by slice, through PEFT's own product of the factors."""
    model, words = mixtral(), ids()
    wide = copy.deepcopy(model).double()
    language_step(wide, words)()
    exact = {n: p.grad for n, p in wide.named_parameters()}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    gradients = get_lora_one_gradients(model, all_linear(), language_step(model, words))
    wrapped = peft.get_peft_model(model, all_linear())
    reports = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral", 0.5))
    names = [n for n in reports if "experts" in n]
    assert names[:2] == [f"model.layers.0.mlp.experts.down_proj[{e}]" for e in (0, 1)]
    assert len(names) == 2 * 2 * 3
    merged = wrapped.merge_and_unload()
    for name in ("gate_up_proj", "down_proj"):
        for i in range(2):
            full = f"model.layers.{i}.mlp.experts.{name}"
            moved = (merged.get_parameter(full) - before[full]).double()
            rank = 4 if name == "gate_up_proj" else 2  # PEFT doubles it for the fused pair
            for e in range(3):
                assert reports[f"{full}[{e}]"].kept_rank == rank
                # Float32 gradients, and a difference of float32 weights of size 0.1.
                assert close(moved[e], -0.5 * best(exact[full][e], rank), 1e-4)


def test_experts_without_tokens_keep_their_start() -> None:
    model, words = mixtral(), ids(1)[:, :2]  # one token decides, of three experts
    with pytest.raises(ValueError, match=r"must not be zero.*zero for .*experts\.\w+\[\d\]"):
        get_lora_one_gradients(model, all_linear(), language_step(model, words))
    gradients = get_lora_one_gradients(
        model, all_linear(), language_step(model, words), missing="lora"
    )
    wrapped = peft.get_peft_model(model, all_linear())
    plain = {pair.name: pair.down.clone() for pair in lora_pairs(wrapped)}
    reports = initialize_lora_one_weights(wrapped, gradients, missing="lora")
    idle = [n for n, why in reports.skipped.items() if why == "its gradient is zero"]
    assert idle
    assert all("experts" in name for name in idle)
    for pair in lora_pairs(wrapped):
        assert bool(pair.up.any()) == (pair.name not in reports.skipped)
        assert torch.equal(pair.down, plain[pair.name]) == (pair.name in reports.skipped)


@pytest.mark.parametrize("rule", ["scaled-adamw", "preconditioned"])
def test_experts_are_trained_as_if_each_were_a_layer(rule: str) -> None:
    model, words = mixtral().double(), ids()
    wrapped = peft.get_peft_model(model, all_linear(), autocast_adapter_dtype=False)
    with torch.no_grad():
        for pair in lora_pairs(wrapped):
            pair.up.normal_(generator=torch.Generator().manual_seed(len(pair.name)))
    optimizer = PairOptimizer(wrapped, rule, lr=1e-3, damping=1e-3)
    language_step(wrapped, words)()
    alone = []
    for pair in lora_pairs(wrapped):
        down, up = nn.Parameter(pair.down.clone()), nn.Parameter(pair.up.clone())
        layer = pair.layer
        both = [layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad]
        if pair.expert is not None:
            n = pair.experts
            both[0] = both[0].view(n, -1, both[0].shape[-1])[pair.expert]
            both[1] = both[1].view(len(both[1]), -1, n)[:, :, pair.expert]
        down.grad, up.grad = (g.clone() for g in both)
        group = {"params": [down, up], "scales": [pair.scale]}
        PairOptimizer([group], rule, lr=1e-3, damping=1e-3).step()
        alone.append((down, up))
    optimizer.step()
    for pair, (down, up) in zip(lora_pairs(wrapped), alone, strict=True):
        # Batched products and eigendecompositions round in another order.
        # One step of at most 32 wide products and of Gram matrices that damping holds to 1e3.
        once = near(32, operations=4, condition=1e3, scale=1.0, dtype=down.dtype)
        torch.testing.assert_close(pair.down, down.detach(), **once)
        torch.testing.assert_close(pair.up, up.detach(), **once)


def test_experts_that_peft_makes_of_modules_are_found_before_estimation() -> None:
    half = peft.LoraConfig(r=2, target_modules=["w1"])  # fused with w3: PEFT cannot do one

    def never() -> None:
        raise AssertionError("the targets should have been refused")

    with pytest.raises(ValueError, match="without also targeting w3"):
        get_lora_one_gradients(mixtral(), half, never)


# --- wrappers and names


class Holder(nn.Module):
    """A model that is part of another."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.net = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("form", ["compiled base", "compiled", "holder", "part", "mixed", "both"])
def test_pairs_are_found_inside_wrappers(form: str) -> None:
    X, Y = batch(8, 6)
    plain = net(8, 10, 6)
    expected = get_lora_one_gradients(plain, config(), step_on(plain, (X, Y)))
    base = net(8, 10, 6)
    estimated: nn.Module = base
    if form == "compiled base":
        estimated = base = torch.compile(base, backend="aot_eager")
    if form in ("part", "both"):
        estimated = Holder(base)
    gradients = get_lora_one_gradients(estimated, config(), step_on(estimated, (X, Y)))
    prefix = "net." if form in ("part", "both") else ""
    assert {n.removeprefix(prefix) for n in gradients} == {"0", "2"}
    for name, G in expected.items():
        assert close(gradients[prefix + name], G)
    adapted = peft.get_peft_model(base, config(), mixed=form == "mixed")
    if form == "compiled":
        adapted = torch.compile(adapted, backend="aot_eager")
    elif form in ("holder", "both"):
        adapted = Holder(adapted)
    reports = initialize_lora_one_weights(adapted, gradients, LoRAOneConfig("spectral"))
    assert list(reports) == ["0", "2"]
    for pair in lora_pairs(adapted):
        assert close(pair.scale * pair.factors.dense().double(), best(-expected[pair.name].mT, 3))
    tracker = AlignmentTracker(adapted, gradients)
    tracker.step()
    # Gradient and factors are kept in float32, and singular values are 0.01 of the first apart.
    assert max(r["left"] for r in tracker.records) < rounding(8, condition=100, dtype=torch.float32)
    optimizer = PairOptimizer(adapted, "scaled-adamw", lr=1e-3)
    squared(adapted, X, Y).backward()
    optimizer.step()


def test_parts_that_are_compiled_in_place() -> None:
    X, Y = batch(8, 6)
    model = net(8, 10, 6)
    expected = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    model[0].compile(backend="aot_eager")
    found = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    assert all(close(found[name], G) for name, G in expected.items())


def test_names_that_do_not_belong_together_are_refused() -> None:
    model = net(8, 10, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    wrapped = peft.get_peft_model(model, config())
    other = {"a.0": gradients["0"], "b.2": gradients["2"]}  # two prefixes
    with pytest.raises(ValueError, match="got none for 0, none for 2"):
        initialize_lora_one_weights(wrapped, other)
    with pytest.raises(ValueError, match="must hold one PeftModel; got 2"):
        lora_pairs(nn.ModuleList([wrapped, copy.deepcopy(wrapped)]))


# --- modules left out


class Routed(nn.Module):
    """Two layers, one of which no input reaches, and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.used, self.idle = nn.Embedding(5, 6), nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(self.words(x)) + 0 * self.idle(self.words(x)).sum()


def test_missing_gradients_leave_the_default_start() -> None:
    model, lora = Routed(), config("words", "used", "idle")

    def step() -> None:
        model(torch.arange(5)).square().sum().backward()

    with pytest.raises(ValueError, match="linear layers and Conv1D; got words"):
        get_lora_one_gradients(model, lora, step)
    gradients = get_lora_one_gradients(model, lora, step, missing="lora")
    assert list(gradients) == ["used"]
    wrapped = peft.get_peft_model(model, lora)
    before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
    with pytest.raises(ValueError, match="linear layers and Conv1D; got words"):
        initialize_lora_one_weights(wrapped, gradients)
    reports = initialize_lora_one_weights(wrapped, gradients, missing="lora")
    assert list(reports) == ["used"]
    assert reports.skipped["idle"] == "no gradient"
    assert "linear layers" in reports.skipped["words"]
    for n, p in wrapped.named_parameters():
        assert torch.equal(p, before[n]) == (".used.lora" not in n)
    with pytest.raises(ValueError, match="some module must have a gradient; got none for the 2"):
        initialize_lora_one_weights(wrapped, {}, missing="lora")


# --- the forward check


def returning(model: nn.Module, X: Tensor, Y: Tensor):
    def train_step() -> Tensor:
        loss = squared(model, X, Y)
        loss.backward()
        return loss

    return train_step


@pytest.mark.parametrize("init", ["spectral", "released"])
def test_the_check_compares_with_the_predicted_change(init: str) -> None:
    model = net(8, 10, 6, dtype=torch.float64)
    X, Y = (t.double() for t in batch(8, 6))
    W = squared(model, X, Y).item()
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, config(), autocast_adapter_dtype=False)
    small = 1e-5 if init == "spectral" else 1e6
    run = returning(wrapped, X, Y)
    reports = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig(init, small), check=run)
    found = reports.check
    once = rounding(len(X) + 8, operations=4)  # products over the widths and a mean over the batch
    assert found.before == pytest.approx(W, rel=once)
    assert found.after == pytest.approx(squared(wrapped, X, Y).item(), rel=once)
    # The second-order term is the size of the step times curvatures below 100 less than the first:
    # γ = 1e-5, or 1/√γ = 1e-3 where the factors are scaled by γ^(-1/2) each.
    step = small if init == "spectral" else small**-0.5 / 10
    assert found.after - found.before == pytest.approx(found.predicted, rel=100 * step)
    assert found.inert == ()
    assert found.gamma is None
    assert all(p.grad is None for p in wrapped.parameters())
    long = 3.5 if init == "spectral" else 2.5
    with pytest.warns(UserWarning, match="the step is too long: take gamma="):
        rose = initialize_lora_one_weights(
            wrapped, gradients, LoRAOneConfig(init, long), overwrite=True, check=run
        ).check
    assert rose.after > rose.before == pytest.approx(W, rel=once)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = initialize_lora_one_weights(
            wrapped, gradients, LoRAOneConfig(init, rose.gamma), overwrite=True, check=run
        ).check
    assert again.after < again.before


class Aside(nn.Module):
    """The third layer's output is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + nn.functional.linear(x, self.two.weight)


def test_the_check_names_adapters_without_effect() -> None:
    model, (X, Y) = Aside(), batch(8, 6)
    wrapped = peft.get_peft_model(model, config("one", "two"))
    gradients = {"one": torch.ones(6, 8), "two": torch.ones(6, 8)}
    with pytest.warns(UserWarning, match="1 have no effect on it: two; leave them out"):
        reports = initialize_lora_one_weights(
            wrapped, gradients, LoRAOneConfig("spectral", 1e-4), check=returning(wrapped, X, Y)
        )
    assert reports.check.inert == ("two",)


def test_checks_that_show_nothing_are_refused() -> None:
    model, (X, Y) = net(8, 10, 6), batch(8, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, config())
    with pytest.raises(TypeError, match="check must return the loss as a number; got NoneType"):
        initialize_lora_one_weights(wrapped, gradients, check=step_on(wrapped, (X, Y)))
    with pytest.raises(ValueError, match=r"none of them got a gradient: call loss\.backward"):
        initialize_lora_one_weights(
            wrapped, gradients, overwrite=True, check=lambda: squared(wrapped, X, Y)
        )
