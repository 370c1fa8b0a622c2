"""LoRA-One for PEFT models: one layer against the tensor library, initialisation, files."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from peft_nets import FLOAT32, QUIET, batch, best, close, config, net, peft, squared, step_on
from torch import nn

import loraone_theory as lt
from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = QUIET


# --- one layer against the tensor library


@pytest.mark.parametrize("init", ["released", "spectral"])
def test_one_linear_layer_starts_as_the_tensor_library_does(init: str) -> None:
    d, k, rank, alpha = 12, 9, 3, 6.0
    problem = lt.sample_linear(d=d, k=k, true_rank=5, samples=200, seeds=[0], dtype="float64")
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
    # The second-order term is γ times the curvature, below 100, less than the first.
    assert change == pytest.approx(-gamma * sum(energy.values()), rel=100 * gamma)


# --- initialisation


def test_random_state_is_left_alone_and_seeds_repeat() -> None:
    model = net(30, 40, 20)
    gradients = get_lora_one_gradients(model, config(), step_on(model, batch(30, 20)))
    wrapped = peft.get_peft_model(model, config())
    found = []
    for seed in (0, 0, 1):
        state = torch.random.get_rng_state()
        options = LoRAOneConfig(svd="lowrank", q=5, niter=1, seed=seed)
        initialize_lora_one_weights(wrapped, gradients, options, overwrite=True)
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
            wrapped, gradients, LoRAOneConfig("spectral", svd="released", niter=4)
        )
    for pair in lora_pairs(wrapped):  # with every direction probed the result is exact
        assert close(
            pair.scale * pair.factors.dense().double(), best(-gradients[pair.name].mT, 3), 1e-5
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = LoRAOneConfig(svd="lowrank", q=6)
        initialize_lora_one_weights(wrapped, gradients, options, overwrite=True)


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
    again = initialize_lora_one_weights(wrapped, gradients, coarse, overwrite=True)
    assert {r.kept_rank for r in again.values()} == {1}


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
    other = tmp_path / "other.safetensors"
    get_lora_one_gradients(model, config("0"), step_on(model, batch(8, 6)), cache_file=other)
    with pytest.raises(ValueError, match=r"is not of this model and config.*none for 2"):
        get_lora_one_gradients(model, config(), never, cache_file=other)
