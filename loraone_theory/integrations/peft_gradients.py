"""The gradient of a model's loss with respect to the weights that LoRA will be put on."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from loraone_theory import storage
from loraone_theory.core import validate
from loraone_theory.integrations import distributed
from loraone_theory.integrations.peft_layers import (
    LoraConfig,
    refuse,
    targets,
    unwrapped,
    weight_shape,
)

Gradients = dict[str, Tensor]


def get_lora_one_gradients(
    model: nn.Module,
    lora_config: LoraConfig,
    train_step: Callable[[], object],
    *,
    num_batches: int | None = None,
    cache_file: str | Path | None = None,
) -> Gradients:
    """∇_W L of every targeted weight, averaged over batches, in float32 on the CPU.

    Every target gets a leaf of its own on the same storage while `train_step` runs, and everything
    else is frozen: weights are neither copied nor changed, tied ones get the gradient of each use,
    and no more than one gradient stays on the device. Afterwards, also after an error or an
    interruption, requires_grad, gradients and training modes are what they were. With
    torch.distributed the mean over processes is returned on each.

    Args:
        model: the base model, before `get_peft_model`; it may be in DistributedDataParallel.
        lora_config: says which modules are targeted; plain LoRA.
        train_step: runs forward and backward on a batch or on several, and leaves gradients alone.
            The mode of the model (dropout or not) is the caller's.
        num_batches: call `train_step` until so many backward passes have run; None: call it once.
            The gradients are divided by the number of passes either way.
        cache_file: a safetensors file; read where it exists, written otherwise.

    Returns:
        Module name -> gradient, of the shape of the module's weight: (k, d) for nn.Linear, (d, k)
        for Conv1D.

    Raises:
        ValueError: targets that have no gradient (another kind of layer, a quantised weight, DoRA);
            a `train_step` that gives a target none, a zero one or a non-finite one; a cache of
            other modules.
    """
    if num_batches is not None:
        num_batches = validate.integer("num_batches", num_batches, least=1)
    found = targets(unwrapped(model), lora_config)
    cache = None if cache_file is None else Path(cache_file)
    if cache is not None and distributed.everyone(cache.is_file()):
        return _cached(cache, found)
    if cache is not None and not cache.parent.is_dir():
        raise FileNotFoundError(f"the folder of cache_file {cache} must exist; create it first")
    with distributed.together():
        sums, passes = _accumulate(model, found, train_step, num_batches or 1)
        if not sums:
            raise ValueError(_NO_GRADIENT)
        check(sums, {name: weight_shape(m) for name, m in found.items()})
    gradients = {name: distributed.mean_(sums[name] / passes) for name in found}
    if cache is not None and distributed.leads():
        with storage.whole_file(cache) as temporary:
            save_file(gradients, temporary, metadata={"passes": str(passes)})
    return gradients


_NO_GRADIENT = (
    "train_step must run forward and backward through the targeted modules; it produced no "
    "gradient; call loss.backward() in it, outside torch.no_grad(), on the model that was passed"
)


def _accumulate(
    model: nn.Module,
    found: dict[str, nn.Module],
    train_step: Callable[[], object],
    num_batches: int,
) -> tuple[Gradients, int]:
    """Sums of gradients, and how many backward passes they are over."""
    sums: Gradients = {}
    passes = dict.fromkeys(found, 0)

    def collect(name: str) -> Callable[[Tensor], None]:
        def hook(leaf: Tensor) -> None:
            gradient = leaf.grad
            assert gradient is not None
            leaf.grad = None
            fresh = gradient.detach().to("cpu", torch.float32).contiguous()
            sums[name] = sums[name].add_(fresh) if name in sums else fresh
            passes[name] += 1

        return hook

    with _leaves(unwrapped(model), found) as leaves, _unsynchronised(model), torch.enable_grad():
        for name, leaf in leaves.items():
            leaf.register_post_accumulate_grad_hook(collect(name))
        while max(passes.values()) < num_batches:
            before = max(passes.values())
            train_step()
            if max(passes.values()) == before:
                break
    return sums, max(passes.values())


def _unsynchronised(model: nn.Module) -> contextlib.AbstractContextManager:
    """Without DistributedDataParallel's own averaging, which does not know the leaves."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def _leaves(model: nn.Module, found: dict[str, nn.Module]) -> Iterator[dict[str, nn.Parameter]]:
    """A leaf for the weight of every target, nothing else trainable; undone at the end."""
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    weights = {name: module._parameters["weight"] for name, module in found.items()}
    places = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
    shared = {name for name, module in found.items() if places[id(module)] > 1}
    leaves = {}
    try:
        for p, _, _ in parameters:
            p.grad = None
            p.requires_grad_(False)
        for name, module in found.items():
            weight = weights[name]
            assert weight is not None
            leaves[name] = nn.Parameter(weight.detach())
            if name in shared:  # PEFT adapts the first use of a shared module only
                module = copy.copy(module)
                module._parameters = dict(module._parameters)
                _put(model, name, module)
            module._parameters["weight"] = leaves[name]
        yield leaves
    finally:
        for name, module in found.items():
            module._parameters["weight"] = weights[name]
            if name in shared:
                _put(model, name, module)
        for p, trainable, gradient in parameters:
            p.requires_grad_(trainable)
            p.grad = gradient
        for module, training in modes:
            module.training = training


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def check(gradients: Gradients, shapes: dict[str, tuple[int, ...]]) -> None:
    """Every module has a finite, non-zero gradient of the shape of its weight.

    Raises:
        ValueError: names the modules that do not, and the remedy.
    """
    refuse(
        "every module of the adapter needs a gradient",
        [f"none for {name}" for name in shapes if name not in gradients],
        "estimate them with get_lora_one_gradients and the same target_modules, or leave modules "
        "that the loss does not reach out of target_modules",
    )
    refuse(
        "a gradient must have the shape of its module's weight",
        [
            f"{tuple(gradients[name].shape)} for {name} of shape {shape}"
            for name, shape in shapes.items()
            if tuple(gradients[name].shape) != shape
        ],
        "pass the gradients of this model's weights",
    )
    refuse(
        "gradients must be finite",
        [
            f"NaN or infinite entries for {name}"
            for name in shapes
            if not bool(torch.isfinite(gradients[name]).all())
        ],
        "lower the loss scale, or run the forward pass in bfloat16 or float32",
    )
    refuse(
        "gradients must not be zero, since they have to point somewhere",
        [f"zero for {name}" for name in shapes if not bool(gradients[name].any())],
        "check that the labels enter the loss and that the module is reached",
    )


def _cached(path: Path, found: dict[str, nn.Module]) -> Gradients:
    with safe_open(path, framework="pt") as file:
        gradients = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        check(gradients, {name: weight_shape(m) for name, m in found.items()})
    except ValueError as error:
        raise ValueError(f"cache_file {path} is not of this model and config: {error}") from error
    return {name: gradients[name] for name in found}
