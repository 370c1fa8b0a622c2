"""The gradient of a model's loss with respect to the weights that LoRA will be put on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from loraone_theory import storage
from loraone_theory.core import validate
from loraone_theory.integrations import distributed, peft_cache
from loraone_theory.integrations.given import check, usable
from loraone_theory.integrations.peft_backward import Passes, watched
from loraone_theory.integrations.peft_find import LoraConfig, refuse, unwrapped
from loraone_theory.integrations.peft_layers import AROUND, REMEDIES
from loraone_theory.integrations.peft_leaves import calls, substituted, unsynchronised
from loraone_theory.integrations.peft_targets import Target, targets

Gradients = dict[str, Tensor]
Missing = Literal["error", "lora"]


def get_lora_one_gradients(
    model: nn.Module,
    lora_config: LoraConfig,
    train_step: Callable[[], object],
    *,
    num_batches: int | None = None,
    cache_file: str | Path | None = None,
    data: str = "",
    missing: Missing = "error",
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
            The mode of the model (dropout or not) is the caller's, and so is the loss, unscaled.
        num_batches: call `train_step` until so many backward passes have run; None: call it once.
            The gradients are divided by the number of passes either way.
        cache_file: a safetensors file; read where it exists, written otherwise. It is bound to the
            model's weights, to num_batches and to `data`.
        data: a name for the data that `train_step` reads, for the cache.
        missing: "lora" leaves out modules of unsupported type and those that get no gradient or a
            zero one, such as an expert without tokens; "error" refuses them.

    Returns:
        Module name -> gradient, of the shape of the module's weight: (k, d) for nn.Linear, (d, k)
        for Conv1D.

    Raises:
        ValueError: targets that have no gradient (another kind of layer, a quantised weight, DoRA);
            a `train_step` that gives a target none, a zero one or a non-finite one, that scales
            its loss, or that runs out of batches; a cache of something else.
    """
    if num_batches is not None:
        num_batches = validate.integer("num_batches", num_batches, least=1)
    validate.choice("missing", missing, ("error", "lora"))
    found, _ = targets(unwrapped(model), lora_config, lenient=missing == "lora")
    cache = None if cache_file is None else Path(cache_file)
    made_from = {}
    if cache is not None:
        storage.target(cache)
        weights = peft_cache.fingerprint(unwrapped(model))
        made_from = {"weights": weights, "num_batches": str(num_batches), "data": data}
        if distributed.everyone(cache.is_file()):
            return _cached(cache, found, made_from, missing)
    with distributed.together():
        sums, passes = _accumulate(model, found, train_step, num_batches or 1)
        if not sums:
            raise ValueError(_NO_GRADIENT)
    for total in sums.values():
        total.div_(passes)
    gradients = _averaged(sums, found, missing)
    if cache is not None and distributed.leads():
        peft_cache.save(cache, gradients, made_from)
    return gradients


_NO_GRADIENT = (
    "train_step must run forward and backward through the targeted modules; it produced no "
    "gradient; call loss.backward() in it, outside torch.no_grad(), on the model that was passed"
)


def _averaged(sums: Gradients, found: Mapping[str, Target], missing: Missing) -> Gradients:
    """The mean over processes, checked."""
    shapes = {name: target.shape for name, target in found.items()}
    if missing == "error":
        with distributed.together():
            check(sums, shapes)
        return {name: distributed.mean_(sums[name]) for name in found}
    for name in found:  # another process may have seen what this one has not
        if not distributed.everyone(name not in sums):
            held = sums[name] if name in sums else torch.zeros(shapes[name])
            sums[name] = distributed.mean_(held)
    kept = {name: sums[name] for name in found if name in sums and any(usable(sums[name]))}
    if not kept:
        raise ValueError(_NO_GRADIENT)
    check(kept, {name: shapes[name] for name in kept}, lenient=True)
    return kept


def _accumulate(
    model: nn.Module,
    found: Mapping[str, Target],
    train_step: Callable[[], object],
    num_batches: int,
) -> tuple[Gradients, int]:
    """Sums of gradients, and how many backward passes they are over."""
    sums: Gradients = {}

    def collect(name: str, passes: Passes) -> Callable[[Tensor], None]:
        def hook(leaf: Tensor) -> None:
            gradient = leaf.grad
            assert gradient is not None
            leaf.grad = None
            passes.reached()
            fresh = gradient.detach().to("cpu", torch.float32).contiguous()
            sums[name] = sums[name].add_(fresh) if name in sums else fresh

        return hook

    base = unwrapped(model)
    with (
        substituted(base, found) as leaves,
        calls(base, found) as called,
        unsynchronised(model),
        torch.enable_grad(),
        watched() as passes,
    ):
        for name, leaf in leaves.items():
            leaf.register_post_accumulate_grad_hook(collect(name, passes))
        _run(train_step, num_batches, passes)
    around = [] if called is None else [name for name in sums if name not in called]
    refuse(AROUND, around, REMEDIES[AROUND])
    return sums, passes.done


def _run(train_step: Callable[[], object], num_batches: int, passes: Passes) -> None:
    while passes.done < num_batches:
        before = passes.done
        try:
            train_step()
        except StopIteration as error:
            raise ValueError(
                f"train_step must have a batch for each of {num_batches} backward passes; its "
                f"iterator was exhausted after {passes.done}; give it more data, cycle through "
                "it, or lower num_batches"
            ) from error
        if passes.scaled:
            raise ValueError(
                f"the loss must not be scaled; got {'; '.join(sorted(passes.scaled))}; call "
                "loss.backward() in train_step, in bfloat16 or float32, and without accumulation"
            )
        if passes.done == before:
            break


def _cached(
    path: Path, found: Mapping[str, Target], made_from: Mapping[str, str], missing: Missing
) -> Gradients:
    gradients = peft_cache.load(path, made_from)
    wanted = [name for name in found if missing == "error" or name in gradients]
    try:
        check(gradients, {name: found[name].shape for name in wanted})
    except ValueError as error:
        raise ValueError(f"cache_file {path} is not of this model and config: {error}") from error
    return {name: gradients[name] for name in wanted}
