"""Kinds of layer × configurations × dtypes × forms of the model: the right value, or one refusal.

The gradient is compared with autograd's in float64 on a copy in which nothing is tied or shared,
the step with the best part of that gradient.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft_nets import QUIET, close, peft, right_step, transformers
from processes import on_two_processes
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
)

pytestmark = [
    QUIET,
    pytest.mark.filterwarnings("ignore:.*_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*has no bias"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]

WIDTH, EXPERTS, GAMMA = 8, 2, 0.5
# Some twenty operations lie between a weight and its gradient, each good to a rounding.
OPERATIONS = 20


class Experts(nn.Module):
    """The mean of what each expert makes of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH) / WIDTH**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).tanh().mean(0)


class Attention(nn.Module):
    """torch's own, whose projection is used without being called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x)[0]


class Words(nn.Module):
    """A soft embedding of the inputs' signs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table((x.sum(-1) > 0).long())


class Net(nn.Module):
    """Two layers, recomputed in the backward pass where that is asked for, and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        make = LAYERS[kind].make
        self.first, self.second = make(), make()
        if kind == "tied":
            self.second.weight = self.first.weight
        if kind == "shared":
            self.second = self.first
        self.head = nn.Linear(WIDTH, 3)
        self.reentrant: bool | None = None

    def inside(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh()).tanh()

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.head(self.inside(x))
        return self.head(checkpoint(self.inside, x, use_reentrant=self.reentrant))


class Layer(NamedTuple):
    """A kind of layer: how it is made, PEFT's words for it, and why it is refused, if it is."""

    make: Any
    target: dict[str, Any]
    refusal: str = ""


BOTH = {"target_modules": ["first", "second"]}
LAYERS = {
    "linear": Layer(lambda: nn.Linear(WIDTH, WIDTH), BOTH),
    "conv1d": Layer(
        lambda: transformers.pytorch_utils.Conv1D(WIDTH, WIDTH), BOTH | {"fan_in_fan_out": True}
    ),
    "tied": Layer(lambda: nn.Linear(WIDTH, WIDTH), BOTH),
    "shared": Layer(lambda: nn.Linear(WIDTH, WIDTH), {"target_modules": ["first"]}),
    "experts": Layer(
        Experts, {"target_modules": [], "target_parameters": ["first.weight", "second.weight"]}
    ),
    "attention": Layer(Attention, {"target_modules": ["out_proj"]}, "the forward pass calls"),
    "embedding": Layer(Words, {"target_modules": ["table"]}, "applies to linear layers and Conv1D"),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"second": 3}, "alpha_pattern": {"second": 5}},
    "bias": {"bias": "lora_only"},
    "two adapters": {},
    "modules to save": {"modules_to_save": ["head"]},
}
DTYPES = [torch.float32, torch.bfloat16]
FORMS = ["whole", "checkpointed", "re-entrant", pytest.param("compiled", marks=pytest.mark.slow)]


def lora(kind: str, variant: str) -> peft.LoraConfig:
    return peft.LoraConfig(r=2, lora_alpha=4, **LAYERS[kind].target, **VARIANTS[variant])


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    X, Y = torch.randn(6, WIDTH, generator=rng), torch.randn(6, 3, generator=rng)
    return X.to(dtype), Y.to(dtype)


def loss_of(model: nn.Module, X: Tensor, Y: Tensor) -> Tensor:
    return (model(X) - Y).square().mean()


def exact_gradients(model: Net, X: Tensor, Y: Tensor) -> dict[str, Tensor]:
    """Of each use alone: the second layer is a copy of its own."""
    wide = copy.deepcopy(model).double()
    wide.second, wide.reentrant = copy.deepcopy(wide.second), None
    wide.requires_grad_(True)
    loss_of(wide, X.detach().double(), Y.double()).backward()
    return {name: p.grad for name, p in wide.named_parameters() if p.grad is not None}


def nearly(found: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, G in found.items():
        right = exact[name if name in exact else f"{name}.weight"]
        assert close(G.double(), right, OPERATIONS * torch.finfo(dtype).eps), name


def adapted(model: nn.Module, kind: str, variant: str) -> tuple[nn.Module, str]:
    """With the adapter that is to be initialised, and its name."""
    wrapped = peft.get_peft_model(model, lora(kind, variant))
    if variant != "two adapters" or kind == "experts":  # PEFT has one adapter for experts
        return wrapped, "default"
    wrapped.add_adapter("other", lora(kind, "plain"))
    return wrapped, "other"


def refused(model: nn.Module, kind: str, variant: str) -> None:
    """By both calls, with everything as before."""
    config = lora(kind, variant)
    before = {n: p.detach().clone() for n, p in model.state_dict(keep_vars=True).items()}
    with pytest.raises(ValueError, match=LAYERS[kind].refusal):
        get_lora_one_gradients(model, config, lambda: pytest.fail("it should not have come here"))
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    wrapped, adapter = adapted(model, kind, variant)
    held = {n: p.detach().clone() for n, p in wrapped.state_dict().items()}
    with pytest.raises(ValueError, match=LAYERS[kind].refusal):
        initialize_lora_one_weights(wrapped, {}, adapter_name=adapter)
    assert all(torch.equal(p, held[n]) for n, p in wrapped.state_dict().items())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAYERS)
def test_every_combination(kind: str, form: str, dtype: torch.dtype) -> None:
    for variant in VARIANTS:
        model = Net(kind).to(dtype)
        X, Y = batch(dtype)
        X.requires_grad_(True)  # re-entrant checkpointing passes no gradient without
        model.reentrant = {"checkpointed": False, "re-entrant": True}.get(form)
        exact = {} if LAYERS[kind].refusal else exact_gradients(model, X, Y)
        if form == "compiled":
            torch._dynamo.reset()
            model.compile(backend="aot_eager")
        if LAYERS[kind].refusal:
            refused(model, kind, variant)
            continue
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        step = lambda: loss_of(model, X, Y).backward()  # noqa: B023, E731
        gradients = get_lora_one_gradients(model, lora(kind, variant), step, num_batches=2)
        nearly(gradients, exact, dtype)
        assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
        wrapped, adapter = adapted(model, kind, variant)
        held = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
        initialize_lora_one_weights(wrapped, gradients, LoRAOneConfig("spectral", GAMMA), adapter)
        right_step(wrapped, gradients, adapter, GAMMA)
        for n, p in wrapped.named_parameters():
            assert torch.equal(p, held[n]) or f".{adapter}." in n, n


def on_a_process(rank: int, folder: str) -> Any:
    """One of two: gradients of half a batch each under DDP, the start under FSDP2.

    The base has to be whole while gradients are estimated, and experts while they are written to.
    """
    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for kind, layer in LAYERS.items():
        for variant in VARIANTS:
            for dtype in DTYPES:
                model = Net(kind).to(dtype)
                parallel = nn.parallel.DistributedDataParallel(model)
                sharded = fully_shard(Net(kind).to(dtype), mesh=mesh)
                with pytest.raises(ValueError, match="whole on every process while gradients"):
                    get_lora_one_gradients(sharded, lora(kind, variant), lambda: None)
                if layer.refusal:
                    refused_on_a_process(parallel, kind, variant, mesh)
                    continue
                mine = [M[3 * rank : 3 * rank + 3] for M in batch(dtype)]
                step = lambda: loss_of(parallel, *mine).backward()  # noqa: B023, E731
                gradients = get_lora_one_gradients(parallel, lora(kind, variant), step)
                wrapped, adapter = adapted(model, kind, variant)
                options = LoRAOneConfig("spectral", GAMMA)
                if kind != "experts":
                    fully_shard(wrapped, mesh=mesh)
                initialize_lora_one_weights(wrapped, gradients, options, adapter)
                right_step(wrapped, gradients, adapter, GAMMA)
                if kind == "experts":
                    fully_shard(wrapped, mesh=mesh)
                    with pytest.raises(ValueError, match="factors of experts must be whole"):
                        initialize_lora_one_weights(
                            wrapped, gradients, options, adapter, overwrite=True
                        )
                found[f"{kind}, {variant}, {dtype}"] = gradients
    return found


def refused_on_a_process(parallel: Any, kind: str, variant: str, mesh: DeviceMesh) -> None:
    """By the estimation under DDP, and by the start under DDP and FSDP2."""
    with pytest.raises(ValueError, match=LAYERS[kind].refusal):
        get_lora_one_gradients(parallel, lora(kind, variant), lambda: None)
    wrapped, adapter = adapted(parallel.module, kind, variant)
    for model in (nn.parallel.DistributedDataParallel(wrapped), wrapped):
        if model is wrapped:
            fully_shard(wrapped, mesh=mesh)
        with pytest.raises(ValueError, match=LAYERS[kind].refusal):
            initialize_lora_one_weights(model, {}, adapter_name=adapter)


@pytest.mark.slow
def test_every_combination_on_two_processes(tmp_path: Path) -> None:
    first, second = on_two_processes(on_a_process, tmp_path)
    supported = [kind for kind, layer in LAYERS.items() if not layer.refusal]
    assert len(first) == len(supported) * len(VARIANTS) * len(DTYPES)
    for kind in supported:
        for dtype in DTYPES:
            exact = exact_gradients(Net(kind).to(dtype), *batch(dtype))
            for variant in VARIANTS:
                key = f"{kind}, {variant}, {dtype}"
                nearly(first[key], exact, dtype)
                assert all(torch.equal(G, second[key][n]) for n, G in first[key].items())
