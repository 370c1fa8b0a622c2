"""LoRA-One for PEFT models: gradients, initialisation, files, several processes."""

import copy
import datetime
import itertools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import loraone_theory as lt

peft = pytest.importorskip("peft", reason="needs the extra peft")
transformers = pytest.importorskip("transformers", reason="needs the extra peft")

from loraone_theory.integrations.peft import (  # noqa: E402
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

# PEFT asks transformers for an attribute under its former name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

# The gradient is kept in float32: products of factors made from it carry a few of its roundings.
FLOAT32 = 1e-6


def net(*widths: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for d, k in itertools.pairwise(widths):
        layers += [nn.Linear(d, k), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def batch(d: int, k: int, seed: int = 1, n: int = 64) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng), torch.randn(n, k, generator=rng)


def squared(model: nn.Module, X: Tensor, Y: Tensor) -> Tensor:
    return (model(X) - Y).square().sum() / (2 * len(X))


def step_on(model: nn.Module, *batches: tuple[Tensor, Tensor]) -> Callable[[], None]:
    def train_step() -> None:
        for X, Y in batches:
            squared(model, X, Y).backward()

    return train_step


def config(*names: str, r: int = 3, **more: object) -> "peft.LoraConfig":
    return peft.LoraConfig(r=r, lora_alpha=12, target_modules=list(names) or ["0", "2"], **more)


def close(found: Tensor, expected: Tensor, tolerance: float = FLOAT32) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm())


def best(G: Tensor, rank: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


# --- one layer against the tensor library


@pytest.mark.parametrize("init", ["released", "spectral"])
def test_one_linear_layer_starts_as_the_tensor_library_does(init: str) -> None:
    d, k, rank, alpha = 12, 9, 3, 6.0
    problem = lt.sample_linear(d=d, k=k, true_rank=5, samples=200, seeds=0, dtype="float64")
    W = torch.randn(d, k, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    # Any X with XᵀX/N = Σ̂ gives the same loss; a square one is √d times a root of Σ̂.
    covariance = problem.covariance.apply(torch.eye(d, dtype=torch.float64))[0]
    X = d**0.5 * torch.linalg.cholesky(covariance).mT
    Y = X @ (W + problem.shift.dense()[0])
    model = nn.Sequential(nn.Linear(d, k, bias=False, dtype=torch.float64))
    with torch.no_grad():
        model[0].weight.copy_(W.mT)
    lora = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"])
    gradients = get_lora_one_gradients(model, lora, step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, lora)
    report = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig(init))["0"]
    factory = lt.METHODS["lora-one-released" if init == "released" else "lora-one"]
    start = factory(scale=alpha / rank).init(problem, rank, (0,)).trainable
    (pair,) = lora_pairs(wrapped)
    assert close(pair.factors.dense().double(), (start[0] @ start[1])[0])
    # W_eff is W and one rank-r gradient step of the reported learning rate.
    delta = wrapped.base_model.model[0].get_delta_weight("default").mT.detach()
    G = problem.one_step_gradient().dense()[0]
    assert close(delta.double(), report.learning_rate * best(G, rank))
    assert report.sigma_1 == pytest.approx(float(torch.linalg.svdvals(G)[0]), rel=FLOAT32)
    assert report.kept_rank == rank
    assert report.step_norm == pytest.approx(float(delta.norm()), rel=FLOAT32)
    S = torch.linalg.svdvals(G) ** 2
    assert report.energy == pytest.approx(float(S[:rank].sum() / S.sum()), rel=FLOAT32)


def test_released_moves_by_a_step_of_rate_s_over_gamma_sigma() -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, config())
    reports = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig(gamma=16.0))
    for pair in lora_pairs(wrapped):
        assert pair.scale == 4.0
        G = -gradients[pair.name].mT
        rate = 4.0 / (16.0 * float(torch.linalg.svdvals(G)[0]))
        assert reports[pair.name].learning_rate == pytest.approx(rate, rel=FLOAT32)
        assert close(pair.scale * pair.factors.dense().double(), rate * best(G, 3))


def test_a_small_step_lowers_the_loss_by_its_energy() -> None:
    """To first order −γ Σ σ_i² over kept directions: descent, so the sign is that of −∇."""
    model = net(8, 10, 6, dtype=torch.float64)
    X, Y = (t.double() for t in batch(8, 6))
    before = squared(model, X, Y).item()
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, config(), autocast_adapter_dtype=False)
    gamma = 1e-5
    reports = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral", gamma))
    energy = {name: reports[name].energy * float(g.square().sum()) for name, g in gradients.items()}
    change = squared(wrapped, X, Y).item() - before
    # The second-order term is γ times a curvature of order one below the first.
    assert change == pytest.approx(-gamma * sum(energy.values()), rel=1e-3)


# --- gradients


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
    assert pairs["transformer.h.0.attn.c_attn"].scale == pytest.approx(8 / 6**0.5)
    assert pairs["transformer.h.1.attn.c_attn"].scale == pytest.approx(32 / 2)
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


# --- initialisation


def test_random_state_is_left_alone_and_seeds_repeat() -> None:
    model = net(30, 40, 20)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(30, 20)))
    wrapped = peft.get_peft_model(model, config())
    found = []
    for seed in (0, 0, 1):
        state = torch.random.get_rng_state()
        options = LoRAOneConfig(svd="lowrank", q=5, niter=1, seed=seed)
        initialize_lora_one_weights(wrapped, gradients, options)
        assert torch.equal(torch.random.get_rng_state(), state)
        found.append([pair.factors.dense().clone() for pair in lora_pairs(wrapped)])
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))


def test_too_many_probes_are_clamped_with_a_warning() -> None:
    model = net(8, 10, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    wrapped = peft.get_peft_model(model, config())
    with pytest.warns(UserWarning, match=r"q must satisfy q <= min\(d, k\); got q=512"):
        initialize_lora_one_weights(
            wrapped, gradients, LoRAOneConfig("spectral", svd="lowrank", niter=4)
        )
    for pair in lora_pairs(wrapped):  # with every direction probed the result is exact
        assert close(
            pair.scale * pair.factors.dense().double(), best(-gradients[pair.name].mT, 3), 1e-5
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig(svd="lowrank", q=6))


def test_directions_that_the_gradient_lacks_start_as_in_lora() -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6, n=2)  # two samples: every gradient has rank 2 at most
    gradients = get_lora_one_gradients(model, config(r=4), step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, config(r=4))
    reports = initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral"))
    for pair in lora_pairs(wrapped):
        A, B = pair.factors
        assert reports[pair.name].kept_rank == 2
        assert reports[pair.name].energy == pytest.approx(1.0, rel=FLOAT32)
        assert not B[2:].any()
        assert bool((A[:, 2:].abs() <= A.shape[0] ** -0.5).all())
        assert torch.linalg.matrix_rank(A) == 4
        assert close(pair.scale * (A @ B).double(), best(-gradients[pair.name].mT, 2))
    coarse = LoRAOneConfig("spectral", rel_tol=0.999)
    assert {
        r.kept_rank for r in initialize_lora_one_weights(wrapped, gradients, coarse).values()
    } == {1}


def test_only_the_named_adapter_is_written() -> None:
    model = net(8, 10, 6)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    wrapped = peft.get_peft_model(model, config())
    wrapped.add_adapter("second", config(r=2))
    before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
    initialize_lora_one_weights(wrapped, gradients, adapter_name="second")
    for n, p in wrapped.named_parameters():
        assert torch.equal(p, before[n]) == (".second." not in n)


def test_files_round_trip_and_merge(tmp_path: Path) -> None:
    model = net(8, 10, 6)
    X, Y = batch(8, 6)
    fresh = copy.deepcopy(model)
    gradients = get_lora_one_gradients(model, config(), step_on(model, (X, Y)))
    wrapped = peft.get_peft_model(model, config())
    initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral", 0.3))
    expected = wrapped(X)
    assert not torch.equal(expected, fresh(X))  # the function changes at t = 0
    wrapped.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(copy.deepcopy(fresh), tmp_path)
    assert torch.equal(again(X), expected)
    merged = wrapped.merge_and_unload()
    assert close(merged(X), expected)
    for name in ("0", "2"):
        moved = merged.get_submodule(name).weight - fresh.get_submodule(name).weight
        assert close(moved.mT.double(), 0.3 * best(-gradients[name].mT, 3), 1e-5)


def test_cache_is_read_instead_of_training(tmp_path: Path) -> None:
    model = net(8, 10, 6)
    file = tmp_path / "gradients.safetensors"

    def never() -> None:
        raise AssertionError("the cache should have been read")

    first = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)), cache_file=file)
    second = get_lora_one_gradients(model, config(), never, cache_file=file)
    assert all(torch.equal(first[n], second[n]) for n in ("0", "2"))
    assert list(get_lora_one_gradients(model, config("0"), never, cache_file=file)) == ["0"]
    with pytest.raises(ValueError, match=r"is not of this model and config.*shape"):
        get_lora_one_gradients(net(9, 10, 6), config(), never, cache_file=file)


# --- errors, before anything is modified


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
        (lambda: net(8, 10, 6), config("1"), nothing, "nn.Linear and Conv1D; got 1"),
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
    with pytest.raises(FileNotFoundError, match=r"the folder of cache_file .* must exist"):
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
        ({"svd": "fast"}, "svd must be one of exact, lowrank"),
        ({"gamma": 0.0}, "gamma must be finite and > 0"),
        ({"q": 0}, "q must be >= 1"),
        ({"rel_tol": 1.0}, "0 <= rel_tol < 1"),
    ],
)
def test_bad_configs_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRAOneConfig(**options)


# --- several processes


def on_a_process(rank: int, folder: str) -> None:
    """One of two processes; what it found goes into a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(minutes=3),
    )
    model = nn.parallel.DistributedDataParallel(net(8, 10, 6))
    X, Y = batch(8, 6)
    mine = slice(rank * 32, (rank + 1) * 32)
    gradients = get_lora_one_gradients(
        model,
        config(),
        step_on(model, (X[mine], Y[mine])),
        cache_file=f"{folder}/cache.safetensors",
    )
    torch.manual_seed(rank)  # the adapters differ before they are initialised
    wrapped = peft.get_peft_model(model.module, config())
    reports = initialize_lora_one_weights(
        nn.parallel.DistributedDataParallel(wrapped), gradients, LoRAOneConfig("spectral")
    )
    pairs = {pair.name: tuple(pair.factors) for pair in lora_pairs(wrapped)}
    complaints = []
    try:
        initialize_lora_one_weights(wrapped, gradients if rank == 0 else {})
    except ValueError as error:
        complaints.append(str(error))
    other = net(8, 10, 6)
    try:
        get_lora_one_gradients(other, config(), [step_on(other, (X, Y)), lambda: 1 // 0][rank])
    except ValueError as error:
        complaints.append(str(error))
    found = (gradients, pairs, {n: tuple(r) for n, r in reports.items()}, complaints)
    torch.save(found, f"{folder}/{rank}.pt")
    # Without destructors: that of a gloo group holds the GIL and waits for its threads, which may
    # still be about to release the tensors of the last collective, and need the GIL for it.
    os._exit(0)


def test_two_processes_average_and_agree(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(on_a_process, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    model = net(8, 10, 6)
    whole = get_lora_one_gradients(model, config(), step_on(model, batch(8, 6)))
    for name, G in whole.items():
        assert close(first[0][name], G)
        assert torch.equal(first[0][name], second[0][name])
        assert all(torch.equal(a, b) for a, b in zip(first[1][name], second[1][name], strict=True))
        A, B = first[1][name]
        assert close(4.0 * (A @ B).double(), best(-G.mT, 3))
    assert first[2] == second[2]
    assert first[3][0].startswith("process 1: every module of the adapter needs a gradient")
    assert first[3][1].startswith("process 1: ZeroDivisionError")
    assert first[3] == second[3]
    assert (tmp_path / "cache.safetensors").is_file()
