"""The gradient of a model's loss with respect to the weights that LoRA will be put on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from loraone_theory import storage
from loraone_theory.core import validate
from loraone_theory.integrations import distributed, peft_cache
from loraone_theory.integrations.given import Given, check, usable
from loraone_theory.integrations.peft_backward import Passes, watched
from loraone_theory.integrations.peft_find import LoraConfig, refuse, unwrapped
from loraone_theory.integrations.peft_layers import AROUND, HOOKED, OTHER, REMEDIES
from loraone_theory.integrations.peft_leaves import calls, substituted, unsynchronised
from loraone_theory.integrations.peft_reduce import Leading, Reducer, Sketch, Whole, triplets
from loraone_theory.integrations.peft_targets import Target, targets

Reduce = Literal["none", "svd", "sketch"]
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
    reduce: Reduce = "none",
    keep: int | None = None,
    groups: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
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
            model's weights, the targets, train or eval mode, num_batches and `data`.
        data: a name for the data that `train_step` reads, for the cache.
        missing: "lora" leaves out modules of unsupported type and those that get no gradient or a
            zero one, such as an expert without tokens; "error" refuses them.

        reduce: "none" keeps whole gradients, four bytes for each entry of the targeted weights.
            "svd" turns each into its leading `Triplets` as soon as it is complete, exact for one
            backward pass. "sketch" keeps two linear sketches of each, for any number of passes,
            with the error bound of `Sketch`.
        keep: how many triplets; by default twice the adapter's rank.
        groups: with reduce="svd", makes it exact for any number of passes: the modules are taken in
            so many groups, and `train_step` is run on all its batches for each of them. It has to
            give the same batches each time.
        seed: of the sketches.

    Returns:
        Module name -> gradient, or its `Triplets`, of the shape of the module's weight:
        (k, d) for nn.Linear, (d, k) for Conv1D, one more axis for experts.

    Raises:
        ValueError: targets that have no gradient (another kind of layer, a quantised weight, DoRA);
            a `train_step` that gives a target none, a zero one or a non-finite one, that scales
            its loss, or that runs out of batches; a cache of something else.
    """
    if num_batches is not None:
        num_batches = validate.integer("num_batches", num_batches, least=1)
    validate.choice("missing", missing, ("error", "lora"))
    validate.instance("lora_config", lora_config, LoraConfig)
    validate.function("train_step", train_step)
    validate.instance("data", data, str, "name the data that train_step reads")
    seed = validate.integer("seed", seed, least=0)
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "gradients need autograd; got a call inside torch.inference_mode, which has none; call "
            "it outside"
        )
    found, _ = targets(unwrapped(model), lora_config, lenient=missing == "lora")
    plan = _plan(lora_config, reduce, keep, groups, seed)
    cache = None if cache_file is None else storage.as_path(cache_file)
    made_from = {}
    if cache is not None:
        storage.target(cache)
        weights = peft_cache.fingerprint(unwrapped(model))
        made_from = {
            "weights": weights,
            "num_batches": str(num_batches),
            "data": data,
            "reduce": plan.stated,
            "mode": "train" if any(module.training for module in model.modules()) else "eval",
        }
        if distributed.everyone(cache.is_file()):
            return _cached(cache, found, made_from, missing)
    gradients: dict[str, Given] = {}
    for part in _parts(list(found), groups or 1):
        gradients |= _estimated(model, found, part, train_step, num_batches or 1, plan, missing)
    if not gradients:
        raise ValueError(_NO_GRADIENT)
    if cache is not None and distributed.leads():
        peft_cache.save(cache, gradients, made_from | {"targets": json.dumps(sorted(found))})
    return gradients


_NO_GRADIENT = (
    "train_step must run forward and backward through the targeted modules; it produced no "
    "gradient; call loss.backward() in it, outside torch.no_grad(), on the model that was passed"
)


class _Plan(NamedTuple):
    """What is to become of the gradients."""

    reducer: Callable[[], Reducer]
    after: Callable[[Tensor], Given] | None
    stated: str


def _plan(
    config: LoraConfig, reduce: Reduce, keep: int | None, groups: int | None, seed: int
) -> _Plan:
    validate.choice("reduce", reduce, ("none", "svd", "sketch"))
    if groups is not None:
        groups = validate.integer("groups", groups, least=1)
        if reduce != "svd":
            raise ValueError(
                f"groups goes with reduce='svd', which it makes exact; got reduce={reduce!r}; "
                "leave groups out"
            )
    ranks = [config.r, *(config.rank_pattern or {}).values()]
    least = max(ranks)
    # PEFT doubles the rank of parameters that it fuses from two modules.
    kept = 2 * least if keep is None else validate.integer("keep", keep, least=least)
    if reduce == "none":
        return _Plan(Whole, None, "none")
    if reduce == "sketch":
        seed = validate.integer("seed", seed, least=0)
        return _Plan(partial(Sketch, kept, seed), None, f"sketch of {kept}, seed {seed}")
    if groups is not None:
        return _Plan(Whole, partial(triplets, keep=kept), f"svd of {kept}")
    if distributed.active():
        raise ValueError(
            "triplets of several processes do not average; take groups= (exact) or reduce='sketch'"
        )
    return _Plan(partial(Leading, kept), None, f"svd of {kept}")


def _parts(names: list[str], groups: int) -> list[list[str]]:
    size = -(-len(names) // groups)
    return [names[i : i + size] for i in range(0, len(names), size)]


def _estimated(
    model: nn.Module,
    found: Mapping[str, Target],
    part: list[str],
    train_step: Callable[[], object],
    num_batches: int,
    plan: _Plan,
    missing: Missing,
) -> dict[str, Given]:
    """The means of those in `part` over passes and processes, checked and reduced."""
    reducer = plan.reducer()
    with distributed.together():
        passes = _accumulate(model, found, part, train_step, num_batches, reducer)
        if passes == 0:
            raise ValueError(_NO_GRADIENT)
        shapes = {name: found[name].shape for name in part}
        here = reducer.names()
        if missing == "error":
            check({}, {name: shapes[name] for name in part if name not in here})
    # Another process may have seen what this one has not.
    names = [name for name in part if distributed.anyone(name in here)]
    means = reducer.finish(names, shapes, passes)
    if missing == "lora":
        means = {name: mean for name, mean in means.items() if any(usable(mean))}
    with distributed.together():
        check(means, {name: shapes[name] for name in means}, lenient=missing == "lora")
    if plan.after is None:
        return means
    for name in means:
        means[name] = plan.after(cast(Tensor, means[name]))
    return means


def _accumulate(
    model: nn.Module,
    found: Mapping[str, Target],
    part: list[str],
    train_step: Callable[[], object],
    num_batches: int,
    reducer: Reducer,
) -> int:
    """Feed the reducer with those in `part`; how many backward passes reached any target."""

    def collect(name: str, passes: Passes) -> Callable[[Tensor], None]:
        def hook(leaf: Tensor) -> None:
            gradient = leaf.grad
            assert gradient is not None
            leaf.grad = None
            passes.reached()
            if name in wanted:
                reducer.add(name, gradient.detach())

        return hook

    base, wanted = unwrapped(model), set(part)
    with (
        substituted(base, found) as leaves,
        calls(base, found) as seen,
        unsynchronised(model),
        torch.enable_grad(),
        watched() as passes,
    ):
        for name, leaf in leaves.items():
            leaf.register_post_accumulate_grad_hook(collect(name, passes))
        _run(train_step, num_batches, passes)
    if seen is not None:
        refuse(AROUND, sorted(reducer.names() - seen.called), REMEDIES[AROUND])
        refuse(HOOKED, sorted(seen.hooked), REMEDIES[HOOKED])
        refuse(OTHER, sorted(seen.other), REMEDIES[OTHER])
    return passes.done


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
) -> dict[str, Given]:
    gradients = peft_cache.load(path, made_from)
    wanted = [name for name in found if missing == "error" or name in gradients]
    try:
        refuse(
            "every target must have been one when it was made",
            [f"none for {name}" for name in found if name not in gradients.looked_for],
            "delete it to estimate anew, or name another file",
        )
        check(gradients, {name: found[name].shape for name in wanted}, lenient=missing == "lora")
    except ValueError as error:
        raise ValueError(f"cache_file {path} is not of this model and config: {error}") from error
    return {name: gradients[name] for name in wanted}
