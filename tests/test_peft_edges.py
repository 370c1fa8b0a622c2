"""The PEFT route at its edges: right values there, or one refusal before anything is changed."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft_nets import (
    FLOAT32,
    QUIET,
    batch,
    best,
    close,
    config,
    net,
    peft,
    squared,
    step_on,
    transformers,
)
from peft_zoo import KINDS, loss_of, made
from tolerance import rounding
from torch import Tensor, nn

from loraone_theory.core import linalg
from loraone_theory.core.linalg import SVDOptions
from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = [QUIET, pytest.mark.filterwarnings("ignore:.*tie:UserWarning")]

SPECTRAL = LoRAOneConfig("spectral", 0.5)


def never() -> None:
    pytest.fail("it should have been refused before a training step")


def llama(**more: object) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 19}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, **more))


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def values(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def refused(model: nn.Module, gradients: dict[str, Tensor], message: str, **more: object) -> None:
    before = values(model)
    with pytest.raises(ValueError, match=message):
        initialize_lora_one_weights(model, gradients, SPECTRAL, **more)
    assert unchanged(model, before)


def of_net() -> tuple[nn.Module, dict[str, Tensor]]:
    """A network of three layers, and gradients of the first two."""
    model = net(6, 8, 8, 3)
    gradients = get_lora_one_gradients(model, config(r=2), step_on(model, batch(6, 3)))
    return model, gradients


# --- adapters


def test_an_adapter_beside_one_that_changed_the_base_is_refused() -> None:
    model, gradients = of_net()
    wrapped = peft.get_peft_model(model, config(r=2, init_lora_weights="pissa"), "first")
    wrapped.add_adapter("second", config(r=2))
    wrapped.set_adapter("second")
    refused(wrapped, gradients, "got init_lora_weights='pissa' for 'first'", adapter_name="second")


def test_frozen_active_adapters_are_refused() -> None:
    model, gradients = of_net()
    wrapped = peft.get_peft_model(model, config(r=2, inference_mode=True))
    refused(wrapped, gradients, "must be trainable.*frozen factors for 0.*overwrite=True")
    reports = initialize_lora_one_weights(wrapped, gradients, SPECTRAL, overwrite=True)
    assert all(report.step_norm > 0 for report in reports.values())


@pytest.mark.parametrize("alpha", [0, -3])
@pytest.mark.parametrize("init", ["released", "spectral"])
def test_scales_that_are_not_positive_are_refused(alpha: int, init: str) -> None:
    model, gradients = of_net()
    lora = peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["0", "2"])
    wrapped = peft.get_peft_model(model, lora)
    before = values(wrapped)
    with pytest.raises(ValueError, match=r"scale must be positive and finite; got .* for 0"):
        initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig(init))  # type: ignore[arg-type]
    assert unchanged(wrapped, before)


def test_tied_adapters_are_refused() -> None:
    """PEFT gives the head the memory of the embedding's adapter, which a step would change."""
    model, words = llama(tie_word_embeddings=True), torch.arange(18).reshape(3, 6)
    lora = peft.LoraConfig(
        r=2, target_modules=["lm_head", "embed_tokens"], ensure_weight_tying=True
    )
    step = lambda: model(input_ids=words, labels=words).loss.backward()  # noqa: E731
    gradients = get_lora_one_gradients(model, lora, step, missing="lora")
    wrapped = peft.get_peft_model(model, lora)
    refused(wrapped, gradients, "factors of an adapter must be its own", missing="lora")


# --- configurations that make another model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_replication": [(0, 2), (1, 2)]}, "must be those of the model that is trained"),
        ({"alora_invocation_tokens": [1]}, "plain LoRA.*alora_invocation_tokens set"),
        ({"use_dora": True}, "plain LoRA.*use_dora=True"),
    ],
)
@pytest.mark.parametrize("missing", ["error", "lora"])
def test_other_methods_are_refused_before_estimation(
    settings: dict[str, object], message: str, missing: str
) -> None:
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings)
    with pytest.raises(ValueError, match=message):
        get_lora_one_gradients(llama(), lora, never, missing=missing)  # type: ignore[arg-type]


def test_adalora_is_refused_before_estimation() -> None:
    lora = peft.AdaLoraConfig(init_r=2, target_modules=["0"], total_step=10)
    with pytest.raises(ValueError, match=r"applies to plain LoRA.*got AdaLoraConfig; configure"):
        get_lora_one_gradients(net(6, 3), lora, never)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reduce", ["none", "svd", "sketch"])
def test_the_default_dtype_does_not_matter(dtype: torch.dtype, reduce: str) -> None:
    """As while a model is loaded in half precision."""
    data, found = batch(6, 3), []
    for default in (torch.float32, dtype):
        model = net(6, 8, 3)
        step = step_on(model, data)
        torch.set_default_dtype(default)
        try:
            gradients = get_lora_one_gradients(model, config("0", r=2), step, reduce=reduce)  # type: ignore[arg-type]
            wrapped = peft.get_peft_model(model, config("0", r=2), autocast_adapter_dtype=False)
            wrapped.to(torch.float32)
            initialize_lora_one_weights(wrapped, gradients, SPECTRAL)
        finally:
            torch.set_default_dtype(torch.float32)
        found += [pair.factors for pair in lora_pairs(wrapped)]
    assert all(torch.equal(M, N) for M, N in zip(*found, strict=True))


def test_experts_that_peft_does_not_convert_are_named_as_parameters() -> None:
    """Qwen2-MoE, through what PEFT merges: every expert's weight moves by its own step."""
    kind = KINDS["qwen2-moe"]
    model, inputs = made(kind), kind.inputs(4)
    wide = copy.deepcopy(model).double()
    loss_of(wide, inputs).backward()
    names = ["experts.gate_up_proj", "experts.down_proj"]
    lora = peft.LoraConfig(r=2, target_modules=[], target_parameters=names)
    step = lambda: loss_of(model, inputs).backward()  # noqa: E731
    gradients = get_lora_one_gradients(model, lora, step)
    before = values(model)
    wrapped = peft.get_peft_model(model, lora)
    initialize_lora_one_weights(wrapped, gradients, SPECTRAL)
    merged = dict(wrapped.merge_and_unload().named_parameters())
    moved = {n: p.double() - before[n] for n, p in merged.items() if not torch.equal(p, before[n])}
    assert set(moved) == {n for n in before if n.endswith(tuple(names))}
    for name, D in moved.items():
        G = wide.get_parameter(name).grad
        # Fifty operations lie between a weight and its gradient; the sum is rounded like W.
        allowed = 50 * torch.finfo(torch.float32).eps * float(before[name].norm() / D.norm())
        for one, own in zip(D, G, strict=True):
            assert close(one, -0.5 * best(own, 2), max(allowed, FLOAT32)), name


class Doubled(nn.Linear):
    """The weight's gradient is twice that of what an adapter adds."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, 2 * self.weight, self.bias)


class Spelled(nn.Linear):
    """nn.Linear in other words."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.bias


def test_modules_that_compute_something_else_are_refused() -> None:
    X, Y = batch(6, 3)
    for kind in (Spelled, Doubled):
        torch.manual_seed(0)
        model = nn.Sequential(kind(6, 8), nn.Tanh(), nn.Linear(8, 3))
        added = torch.zeros(8, 6, requires_grad=True)
        ((model[2]((model[0](X) + X @ added.mT).tanh()) - Y).square().sum() / (2 * 64)).backward()
        step = step_on(model, (X, Y))
        if kind is Doubled:
            with pytest.raises(ValueError, match=r"added to Wx \+ b.*got 0; leave"):
                get_lora_one_gradients(model, config("0"), step)
        else:
            assert close(get_lora_one_gradients(model, config("0"), step)["0"], added.grad)


# --- numbers


@pytest.mark.parametrize("reduce", ["none", "svd", "sketch"])
@pytest.mark.parametrize("factor", [0.0, np.inf, np.nan])
def test_gradients_that_are_no_use_are_named_however_reduced(reduce: str, factor: float) -> None:
    model = net(300, 280, 3)
    X, Y = batch(300, 3, n=8)
    before = values(model)
    step = lambda: (factor * squared(model, X, Y)).backward()  # noqa: E731
    message = "must not be zero.*zero for 0" if factor == 0 else "finite; got .* for 0"
    with pytest.raises(ValueError, match=message):
        get_lora_one_gradients(model, config("0", r=2), step, reduce=reduce)  # type: ignore[arg-type]
    assert unchanged(model, before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-10, 1.0, 1e15])
@pytest.mark.parametrize("width", [8, 280])  # decomposed exactly, and by probes
def test_the_size_of_a_gradient_does_not_matter(width: int, size: float) -> None:
    """Also where its squares under- or overflow in float32."""
    rng = torch.Generator().manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(width, width, generator=rng)).Q for _ in range(2))
    G = (U * 0.5 ** torch.arange(width)) @ V.mT
    wrapped = peft.get_peft_model(net(width, width), config("0", r=2))
    reports = initialize_lora_one_weights(wrapped, {"0": size * G}, SPECTRAL)
    report = reports["0"]
    (pair,) = lora_pairs(wrapped)
    step = (pair.scale * pair.factors.A.double() @ pair.factors.B.double()).mT
    # Of a dozen products with inner dimensions up to the width; σ₃ is half of σ₂.
    allowed = rounding(width, operations=12, condition=2, dtype=torch.float32)
    assert close(step, -0.5 * best(size * G, 2), allowed)
    assert report.energy == pytest.approx((1 + 1 / 4) / (4 / 3), rel=allowed)
    assert report.step_norm == pytest.approx(float(step.norm()), rel=FLOAT32)


def test_small_directions_survive_the_power_iterations() -> None:
    """In float32, over six orders of magnitude, found as well as LAPACK's in float32 finds them."""
    n, rank = 300, 8
    rng = torch.Generator().manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(n, n, generator=rng).double()).Q for _ in range(2))
    S = torch.cat([torch.logspace(0, -6, rank).double(), torch.zeros(n - rank).double()])
    M = ((U * S) @ V.mT).float()
    found = linalg.truncated_svd(M, rank, SVDOptions("lowrank", 32, 4))
    # Rounding M and the products moves singular values by this at most (Weyl).
    allowed = rounding(n, operations=8, dtype=torch.float32)
    assert float((found.S.double() - S[:rank]).abs().max()) <= allowed
    held = (found.U * found.S) @ found.V.mT
    assert float((held - M).norm()) <= allowed * float(M.norm())


@pytest.mark.parametrize("reduce", ["none", "svd", "sketch"])
@pytest.mark.parametrize("rank", [1, 6, 20])
def test_weights_stored_by_columns_and_ranks_at_their_ends(rank: int, reduce: str) -> None:
    model, (X, Y) = net(6, 8, 3), batch(6, 3)
    model[0].weight = nn.Parameter(model[0].weight.detach().mT.contiguous().mT)
    exact = copy.deepcopy(model).double()
    squared(exact, X.double(), Y.double()).backward()
    lora = config("0", r=rank)
    gradients = get_lora_one_gradients(model, lora, step_on(model, (X, Y)), reduce=reduce)  # type: ignore[arg-type]
    wrapped = peft.get_peft_model(model, lora)
    initialize_lora_one_weights(wrapped, gradients, SPECTRAL)
    (pair,) = lora_pairs(wrapped)
    G = exact[0].weight.grad
    # The gradient is a sum over 64 samples behind two layers; the part kept hangs on the gap.
    gap = float(torch.linalg.svdvals(G)[min(rank, 5)] / torch.linalg.svdvals(G)[0])
    allowed = rounding(64, operations=4, condition=1 / gap, dtype=torch.float32)
    assert close(pair.layer.get_delta_weight("default").double(), -0.5 * best(G, rank), allowed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda G: G.long(), "torch.int64"),
        (lambda G: G.to(torch.complex64), "torch.complex64"),
        (lambda G: G.to_sparse(), "sparse_coo"),
        (lambda G: G.to("meta"), "on the meta device"),
        (lambda G: G.numpy(), "ndarray"),
    ],
    ids=["integers", "complex", "sparse", "meta", "numpy"],
)
@pytest.mark.parametrize("missing", ["error", "lora"])
def test_gradients_of_another_kind_are_refused(make, message: str, missing: str) -> None:
    model, gradients = of_net()
    wrapped = peft.get_peft_model(model, config(r=2))
    wrong = gradients | {"2": make(gradients["2"])}
    refused(
        wrapped, wrong, rf"dense tensor of real numbers; got .*{message}.*for 2", missing=missing
    )


@pytest.mark.parametrize(("size", "becomes"), [(1e12, "nan"), (1e-20, "0;")])
def test_steps_that_the_adapters_dtype_cannot_hold_are_refused(size: float, becomes: str) -> None:
    model, gradients = of_net()
    wrapped = peft.get_peft_model(model.half(), config(r=2), autocast_adapter_dtype=False)
    wrong = {name: size * G for name, G in gradients.items()}
    refused(
        wrapped, wrong, f"adapter's dtype must hold the factors.*float16 for .*becomes {becomes}"
    )


def test_inference_mode_is_refused() -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match="gradients need autograd"):
        get_lora_one_gradients(net(6, 3), config("0"), never)


# --- caches


def test_a_cache_of_other_targets_or_of_another_mode_is_refused(tmp_path: Path) -> None:
    """Also where modules without a gradient may be left out: these were never looked for."""
    model, data = net(6, 8, 8, 3).eval(), batch(6, 3)
    file = tmp_path / "gradients.safetensors"
    more = {"cache_file": file, "missing": "lora"}
    get_lora_one_gradients(model, config("0", r=2), step_on(model, data), **more)
    with pytest.raises(ValueError, match=r"is not of this model and config.*got none for 2"):
        get_lora_one_gradients(model, config("0", "2", r=2), never, **more)
    assert list(get_lora_one_gradients(model, config("0", r=2), never, **more)) == ["0"]
    with pytest.raises(ValueError, match="mode is 'eval' in it and 'train' now"):
        get_lora_one_gradients(model.train(), config("0", r=2), never, **more)
