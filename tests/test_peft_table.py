"""Architectures × configurations × dtypes × forms: the right value, or one refusal.

The gradient is compared with autograd's in float64, the step with the best part of the gradient.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_nets import QUIET, peft, right_step
from peft_zoo import KINDS, Kind, loss_of, made
from processes import on_two_processes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
    lora_pairs,
)

pytestmark = [
    QUIET,
    # PEFT's and transformers' own words about themselves.
    pytest.mark.filterwarnings("ignore:.*_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*has no bias"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # met by the compiler
]

GAMMA = 0.5
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": 3, "alpha_pattern": 5},
    "bias": {"bias": "lora_only"},
    "lora bias": {"lora_bias": True},
    "two adapters": {},
    "modules to save": {"modules_to_save": True},
}
DTYPES = [torch.float32, torch.bfloat16]
# Some fifty operations lie between a weight and its gradient, each good to a rounding.
OPERATIONS = 50


def lora(kind: Kind, variant: str) -> peft.LoraConfig:
    more = dict(VARIANTS[variant])
    for name in ("rank_pattern", "alpha_pattern"):
        if name in more:
            more[name] = {kind.pattern: more[name]}
    if "modules_to_save" in more:
        more["modules_to_save"] = kind.save
    fan = {"fan_in_fan_out": True} if "c_attn" in kind.targets else {}
    return peft.LoraConfig(r=2, lora_alpha=4, target_modules=kind.targets, **fan, **more)


def exact_gradients(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    wide = copy.deepcopy(model).double()
    loss_of(wide, inputs).backward()
    # Shared parameters have one name here, and the sum of their uses; the tables target none.
    return {n: p.grad for n, p in wide.named_parameters() if p.grad is not None}


def nearly(found: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Relative to each gradient, or to the largest where one is small against it."""
    tolerance = OPERATIONS * torch.finfo(dtype).eps
    of_weight = {n: exact[n if n in exact else f"{n}.weight"] for n in found}
    largest = max(float(G.norm()) for G in of_weight.values())
    for name, G in found.items():
        error = float((G.double() - of_weight[name]).norm())
        assert error <= tolerance * (float(of_weight[name].norm()) + 0.1 * largest), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", KINDS)
def test_every_configuration(name: str, variant: str, dtype: torch.dtype) -> None:
    kind = KINDS[name]
    model, inputs = made(kind, dtype), kind.inputs(4)
    config = lora(kind, variant)
    if variant == "lora bias" and kind.experts:  # PEFT has no bias for experts
        with pytest.raises(ValueError, match="lora_bias=True"):
            peft.get_peft_model(copy.deepcopy(model), config)
        return
    exact = exact_gradients(model, inputs)
    gradients = get_lora_one_gradients(model, config, lambda: loss_of(model, inputs).backward())
    nearly(gradients, exact, dtype)
    with torch.no_grad():
        before = {n: p.clone() for n, p in model.named_parameters()}
    adapter = "second" if variant == "two adapters" else "default"
    wrapped = peft.get_peft_model(model, config)
    if adapter == "second":
        wrapped.add_adapter("second", lora(kind, "plain"))
        first = {n: p.detach().clone() for n, p in wrapped.named_parameters() if ".default" in n}
    options = LoRAOneConfig("spectral", GAMMA)
    initialize_lora_one_weights(wrapped, gradients, options, adapter)
    right_step(wrapped, gradients, adapter, GAMMA)
    if adapter == "second":
        after = dict(wrapped.named_parameters())
        assert all(torch.equal(after[n], p) for n, p in first.items())
    bare = wrapped.unload()
    for n, p in bare.named_parameters():
        if n in before:
            assert torch.equal(p, before[n]), n


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_every_architecture_with_checkpointing(name: str, reentrant: bool) -> None:
    kind = KINDS[name]
    model, inputs = made(kind), kind.inputs(4)
    exact = exact_gradients(model, inputs)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant and name not in ("vit", "whisper"):
        model.enable_input_require_grads()
    if reentrant and name in ("vit", "whisper"):
        for value in inputs.values():  # no embedding of words to take gradients from
            if value.is_floating_point():
                value.requires_grad_(True)

    def train_step() -> None:
        loss_of(model, inputs).backward()

    gradients = get_lora_one_gradients(model, lora(kind, "plain"), train_step, num_batches=3)
    nearly(gradients, exact, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_architecture_compiled(name: str) -> None:
    kind = KINDS[name]
    model, inputs = made(kind), kind.inputs(4)
    exact = exact_gradients(model, inputs)
    model.compile(backend="aot_eager")
    config = lora(kind, "plain")
    gradients = get_lora_one_gradients(model, config, lambda: loss_of(model, inputs).backward())
    nearly(gradients, exact, torch.float32)


def on_a_process(rank: int, folder: str) -> Any:
    """One of two: gradients under DDP, the start and a step under FSDP2."""
    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for name, kind in KINDS.items():
        model, inputs = made(kind), kind.inputs(4)
        mine = {key: value[2 * rank : 2 * rank + 2] for key, value in inputs.items()}
        parallel = nn.parallel.DistributedDataParallel(model)
        config = lora(kind, "plain")
        gradients = get_lora_one_gradients(
            parallel,
            config,
            lambda: parallel(**mine).loss.backward(),  # noqa: B023
        )
        wrapped = peft.get_peft_model(model, config)
        options = LoRAOneConfig("spectral", GAMMA)
        if kind.experts:
            initialize_lora_one_weights(wrapped, gradients, options)
            fully_shard(wrapped, mesh=mesh)
            with pytest.raises(ValueError, match=r"factors of experts must be whole.*before fully"):
                initialize_lora_one_weights(wrapped, gradients, options, overwrite=True)
        else:
            fully_shard(wrapped, mesh=mesh)
            initialize_lora_one_weights(wrapped, gradients, options)
        factors = {pair.name: pair.factors for pair in lora_pairs(wrapped)}
        found[name] = (gradients, {n: tuple(M.clone() for M in f) for n, f in factors.items()})
    return found


@pytest.mark.slow
def test_every_architecture_on_two_processes(tmp_path: Path) -> None:
    first, second = on_two_processes(on_a_process, tmp_path)
    for name, kind in KINDS.items():
        model, inputs = made(kind), kind.inputs(4)
        gradients, factors = first[name]
        nearly(gradients, exact_gradients(model, inputs), torch.float32)
        assert all(torch.equal(G, second[name][0][n]) for n, G in gradients.items())
        wrapped = peft.get_peft_model(model, lora(kind, "plain"))
        initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral", GAMMA))
        for pair in lora_pairs(wrapped):
            for mine, other, whole in zip(
                factors[pair.name], second[name][1][pair.name], pair.factors, strict=True
            ):
                assert torch.equal(mine, other)
                assert torch.equal(mine, whole)
