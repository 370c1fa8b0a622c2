"""What would be wrong without a word: the right value, or one refusal with nothing changed."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_nets import QUIET, batch, best, close, config, net, peft, squared, step_on
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    PairOptimizer,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)
from loraone_theory.methods.rules import RULES

pytestmark = QUIET


def float64_gradients(model: nn.Module, names: tuple[str, ...], *batches: Any) -> dict[str, Tensor]:
    """Autograd's mean gradient of copies in float64, the dumb way."""
    wide = copy.deepcopy(model).double()
    for p in wide.parameters():
        p.requires_grad_(True)
    for X, Y in batches:
        (squared(wide, X.double(), Y.double()) / len(batches)).backward()
    return {name: wide.get_submodule(name).weight.grad for name in names}


# --- initialisations of PEFT that change the base weights


@pytest.mark.parametrize("setting", ["pissa", "pissa_niter_2", "olora", "lora_ga"])
def test_adapters_that_changed_the_base_are_refused(setting: str) -> None:
    model = net(8, 10, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    more = {"lora_ga_config": peft.LoraGAConfig()} if setting == "lora_ga" else {}
    wrapped = peft.get_peft_model(model, config(init_lora_weights=setting, **more))
    before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=f"without changing the base.*'{setting}'.*load the"):
            initialize_lora_one_weights(wrapped, gradients, overwrite=overwrite)
    assert all(torch.equal(p, before[n]) for n, p in wrapped.named_parameters())


@pytest.mark.parametrize("setting", [True, False, "gaussian", "eva", "orthogonal"])
def test_adapters_that_left_the_base_alone_make_the_step(setting: bool | str) -> None:
    model = net(8, 10, 6)
    before = copy.deepcopy(model)
    X, Y = batch(8, 6)
    gradients = get_lora_one_gradients(model, config(r=4), step_on(model, (X, Y)))
    more = {"eva_config": peft.EvaConfig()} if setting == "eva" else {}
    wrapped = peft.get_peft_model(
        model, config(r=4, init_lora_weights=setting, **more), low_cpu_mem_usage=setting == "eva"
    )
    random = setting in (False, "orthogonal")  # AB ≠ 0, as in an adapter that was trained
    if random:
        with pytest.raises(ValueError, match="must be fresh, with AB = 0; got 0, 2"):
            initialize_lora_one_weights(wrapped, gradients)
    initialize_lora_one_weights(
        wrapped, gradients, LoRAOneConfig("spectral", 0.3), overwrite=random
    )
    merged = wrapped.merge_and_unload()
    exact = float64_gradients(before, ("0", "2"), (X, Y))
    for name, G in exact.items():
        moved = merged.get_submodule(name).weight - before.get_submodule(name).weight
        assert close(moved.double(), -0.3 * best(G, 4), 1e-5)  # a difference of float32 weights


def test_trained_adapters_are_not_overwritten_silently() -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, config())
    squared(wrapped, X, Y).backward()
    PairOptimizer(wrapped, "gd", lr=0.1).step()
    for p in wrapped.parameters():
        p.requires_grad_(False)
    before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
    with pytest.raises(ValueError, match="has been trained or initialised before; pass overwrite"):
        initialize_lora_one_weights(wrapped, gradients)
    assert all(torch.equal(p, before[n]) for n, p in wrapped.named_parameters())
    initialize_lora_one_weights(wrapped, gradients, overwrite=True)
    assert not any(p.requires_grad for p in wrapped.parameters())


# --- adapters without values


def test_adapters_on_the_meta_device_are_materialised() -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    plain = peft.get_peft_model(copy.deepcopy(model), config(lora_bias=True))
    empty = peft.get_peft_model(model, config(lora_bias=True), low_cpu_mem_usage=True)
    assert all(pair.down.is_meta for pair in lora_pairs(empty))
    for wrapped in (plain, empty):
        initialize_lora_one_weights(wrapped, gradients)
    assert torch.equal(plain(X), empty(X))
    assert all(p.requires_grad for pair in lora_pairs(empty) for p in (pair.down, pair.up))
    squared(empty, X, Y).backward()
    assert all(bool(pair.up.grad.any()) for pair in lora_pairs(empty))


def test_offloaded_models_are_refused() -> None:
    model = net(8, 10, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    offloaded = peft.get_peft_model(copy.deepcopy(model).to("meta"), config())
    with pytest.raises(ValueError, match=r"needs real tensors.*0 on the meta device.*without offl"):
        initialize_lora_one_weights(offloaded, gradients)
    with pytest.raises(ValueError, match="unloaded base weight has no gradient; got 0, 2"):
        get_lora_one_gradients(copy.deepcopy(model).to("meta"), config(), lambda: None)


# --- adapters that the forward pass goes around


class Around(nn.Module):
    """Takes the weight of one of its modules without calling it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.up(x).tanh(), self.down.weight)


def test_modules_that_the_forward_pass_goes_around_are_refused() -> None:
    model = Around()
    forwards = {name: module.__dict__.get("forward") for name, module in model.named_modules()}
    with pytest.raises(ValueError, match=r"module that the forward pass calls.*got down; leave"):
        get_lora_one_gradients(model, config("up", "down"), step_on(model, batch(6, 6)))
    assert {n: m.__dict__.get("forward") for n, m in model.named_modules()} == forwards
    assert list(get_lora_one_gradients(model, config("up"), step_on(model, batch(6, 6)))) == ["up"]


def test_attentions_own_projection_is_refused_before_estimation() -> None:
    def encoder() -> nn.Module:
        torch.manual_seed(0)
        return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def never() -> None:
        raise AssertionError("the targets should have been refused")

    with pytest.raises(ValueError, match=r"the forward pass calls.*got self_attn\.out_proj"):
        get_lora_one_gradients(encoder(), config("out_proj", "linear1"), never)
    wrapped = peft.get_peft_model(encoder(), config("out_proj", "linear1"))
    with pytest.raises(ValueError, match=r"the forward pass calls.*got self_attn\.out_proj"):
        initialize_lora_one_weights(wrapped, {})
    model = encoder()
    X = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))
    step = lambda: model(X).square().sum().backward()  # noqa: E731
    found = get_lora_one_gradients(model, config("out_proj", "linear1"), step, missing="lora")
    assert list(found) == ["linear1"]
    reports = initialize_lora_one_weights(wrapped, found, missing="lora")
    assert list(reports) == ["linear1"]
    assert "forward pass calls" in reports.skipped["self_attn.out_proj"]


# --- backward passes are counted, not hook calls


class Reused(nn.Module):
    """One block three times, recomputed in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block, self.head = nn.Linear(6, 6), nn.Linear(6, 6)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = checkpoint(lambda y: self.block(y).tanh(), x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_shared_blocks_count_once_per_pass(reentrant: bool) -> None:
    batches = [batch(6, 6, seed) for seed in range(4)]
    for X, _ in batches:
        X.requires_grad_(True)  # re-entrant checkpointing passes no gradient without
    model = Reused(reentrant)
    feed = iter(batches)
    found = get_lora_one_gradients(
        model, config("block", "head"), lambda: step_on(model, next(feed))(), num_batches=4
    )
    assert next(feed, None) is None
    expected = float64_gradients(Reused(False), ("block", "head"), *batches)
    for name, G in expected.items():
        assert close(found[name].double(), G)


def test_gradients_from_elsewhere_are_refused() -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6)

    def through_the_engine() -> None:
        loss = squared(model, X, Y)
        one = (torch.ones_like(loss),)
        torch.autograd.Variable._execution_engine.run_backward(
            (loss,), one, False, False, (), allow_unreachable=True, accumulate_grad=True
        )

    with pytest.raises(RuntimeError, match=r"must go through loss\.backward"):
        get_lora_one_gradients(model, config(), through_the_engine)


# --- frozen tensors


STEPPED = sorted(name for name, factory in RULES.items() if factory(1.0).advance is None)


@pytest.mark.parametrize("rule", STEPPED)
@pytest.mark.parametrize("frozen", ["lora_A", "lora_B", "grad"])
def test_frozen_tensors_stay_under_every_rule(rule: str, frozen: str) -> None:
    X, Y = batch(8, 6)
    model = peft.get_peft_model(net(8, 10, 6), config(init_lora_weights=False))
    for pair in lora_pairs(model):
        if frozen != "grad":
            (pair.down if frozen == "lora_A" else pair.up).requires_grad_(False)
    more = {"weight_decay": 0.5} if rule in ("adamw", "scaled-adamw", "lora-pro") else {}
    optimizer = PairOptimizer(model, rule, lr=1e-2, **more)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        squared(model, X, Y).backward()
        for pair in lora_pairs(model):
            if frozen == "grad":  # trainable, but this loss does not reach it
                pair.down.grad = None
            else:  # left over from before it was frozen
                (pair.down if frozen == "lora_A" else pair.up).grad = torch.ones(1).expand(
                    (pair.down if frozen == "lora_A" else pair.up).shape
                )
        optimizer.step()
    stays = "lora_A" if frozen == "grad" else frozen
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n]) == (stays in n or "lora" not in n), n


def test_weight_decay_of_the_trained_factor_is_as_without_the_frozen_one() -> None:
    X, Y = batch(8, 6)
    model = peft.get_peft_model(net(8, 10, 6), config(init_lora_weights=False))
    twin = copy.deepcopy(model)
    for each in (model, twin):
        for pair in lora_pairs(each):
            pair.down.requires_grad_(False)
    ours = PairOptimizer(model, "adamw", lr=1e-2, weight_decay=0.3)
    torchs = torch.optim.AdamW([p.up for p in lora_pairs(twin)], lr=1e-2, weight_decay=0.3)
    for _ in range(3):
        for each, optimizer in ((model, ours), (twin, torchs)):
            optimizer.zero_grad()
            squared(each, X, Y).backward()
            optimizer.step()
    for mine, other in zip(lora_pairs(model), lora_pairs(twin), strict=True):
        assert close(mine.up, other.up)
        assert torch.equal(mine.down, other.down)


# --- caches of something else


def spoilt(change: Callable[[Path], None]) -> Callable[[Path], dict[str, Any]]:
    def make(path: Path) -> dict[str, Any]:
        change(path)
        return {}

    return make


def as_half(path: Path) -> None:
    halves = {name: G.half() for name, G in load_file(path).items()}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(halves, path, metadata=metadata)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: {"num_batches": 2}, "num_batches is 'None' in it and '2' now; delete it"),
        (lambda _: {"data": "other"}, "data is '' in it and 'other' now"),
        (lambda _: {"other weights": True}, "weights is '[0-9a-f]{64}' in it and '[0-9a-f]{64}'"),
        (spoilt(lambda p: save_file(load_file(p), p)), "version is 'not stated' in it"),
        (spoilt(as_half), "must hold float32 gradients; got another dtype for 0, 2"),
        (spoilt(lambda p: p.write_bytes(p.read_bytes()[:100])), "it is damaged or was not"),
        (spoilt(lambda p: p.write_text("")), "it is damaged or was not"),
    ],
)
def test_caches_of_something_else_are_refused(
    tmp_path: Path, make: Callable[[Path], dict[str, Any]], message: str
) -> None:
    model = net(8, 10, 6)
    file = tmp_path / "gradients.safetensors"
    get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)), cache_file=file)
    asked = make(file)
    held = file.read_bytes()
    if asked.pop("other weights", False):
        with torch.no_grad():
            model[2].bias[3] += 1e-6
    with pytest.raises(ValueError, match=message):
        get_lora_one_gradients(model, config(), lambda: None, cache_file=file, **asked)
    assert file.read_bytes() == held


# --- scaled losses


def test_scaled_losses_are_refused() -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6)
    scaler = torch.amp.GradScaler("cpu")
    accelerate = pytest.importorskip("accelerate", reason="comes with the extra peft")

    def scaled() -> None:
        scaler.scale(squared(model, X, Y)).backward()

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=4)

    def accumulated() -> None:
        accelerator.backward(squared(model, X, Y))

    with pytest.raises(ValueError, match="must not be scaled; got GradScaler scaled it by 65536"):
        get_lora_one_gradients(model, config(), scaled)
    with pytest.raises(ValueError, match=r"must not be scaled; got Accelerator scaled it by 0\.25"):
        get_lora_one_gradients(model, config(), accumulated)
    accelerator.gradient_accumulation_steps = 1
    disabled = torch.amp.GradScaler("cpu", enabled=False)
    plain = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    for step in (
        lambda: accelerator.backward(squared(model, X, Y)),
        lambda: disabled.scale(squared(model, X, Y)).backward(),
    ):
        found = get_lora_one_gradients(model, config(), step)
        assert all(torch.equal(found[n], G) for n, G in plain.items())


def test_an_exhausted_iterator_is_named() -> None:
    model = net(8, 10, 6)
    feed = iter([batch(8, 6)])
    with pytest.raises(ValueError, match=r"a batch for each of 4.*exhausted after 1; give it more"):
        get_lora_one_gradients(model, config(), lambda: step_on(model, next(feed))(), num_batches=4)
