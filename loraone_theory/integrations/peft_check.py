"""Does the step do what its gradients say: two passes after the initialisation."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loraone_theory.core import validate
from loraone_theory.integrations import distributed
from loraone_theory.integrations.peft_config import Check, LoRAOneConfig, Reports
from loraone_theory.integrations.peft_layers import Pair, weights
from loraone_theory.integrations.peft_leaves import unsynchronised
from loraone_theory.integrations.peft_slopes import apart, through_weights
from loraone_theory.integrations.sharded import whole


def checked(
    model: nn.Module,
    pairs: Sequence[Pair],
    adapter_name: str,
    reports: Reports,
    config: LoRAOneConfig,
    train_step: Callable[[], Any],
) -> Check:
    """Run `train_step` at W + sA₀B₀ and at W, with the same random numbers.

    The adapters' own dropout is off in both. Warns where the loss rose, with the γ to take; of
    adapters without effect; and of those whose gradient is not that of their weight.

    Raises:
        TypeError: `train_step` returns no loss.
        ValueError: it runs no backward pass.
    """
    parameters = {pair.name: weights(pair.layer, adapter_name) for pair in pairs}
    ups = {id(pair.layer): parameters[pair.name][1] for pair in pairs}
    held = {key: up.detach().clone() for key, up in ups.items()}
    with _without_dropout(pairs, adapter_name):
        with _undisturbed(model, [p for both in parameters.values() for p in both]):
            with torch.enable_grad():
                after = _loss(train_step)
            reached = [
                distributed.anyone(any(p.grad is not None and bool(p.grad.any()) for p in both))
                for both in parameters.values()
            ]
        if not any(reached):
            raise ValueError(
                "check must run forward and backward through the adapters; none of them got a "
                "gradient: call loss.backward() in it, on the model that was passed, with adapter "
                f"{adapter_name!r} active"
            )
        inert = tuple(name for name, yes in zip(parameters, reached, strict=True) if not yes)
        with _undisturbed(model, list(ups.values())), unsynchronised(model):
            try:
                with torch.no_grad():
                    for up in ups.values():
                        up.zero_()
                with through_weights(model, pairs, held) as of_weights, torch.enable_grad():
                    before = _loss(train_step)
                slopes = {key: _slope(up, held[key]) for key, up in ups.items()}
            finally:
                with torch.no_grad():
                    for key, up in ups.items():
                        up.copy_(held[key])
    of_adapters = {pair.name: slopes[id(pair.layer)] for pair in pairs}
    predicted = -sum(r.step_norm**2 / r.learning_rate for r in reports.values())
    first_order = distributed.mean_(torch.tensor(sum(slopes.values()), dtype=torch.float64))
    found = Check(
        before,
        after,
        predicted,
        float(first_order),
        inert,
        tuple(n for n in apart(of_weights, of_adapters) if n not in inert),
        _better(before, after, predicted, config),
    )
    _warn(found, config)
    return found


def _slope(up: Tensor, value: Tensor) -> float:
    """⟨∂L/∂B, B₀⟩ at B = 0, which is ⟨∇L, sA₀B₀⟩ as the adapter sees it."""
    return 0.0 if up.grad is None else float((whole(up.grad) * whole(value)).sum())


def _better(before: float, after: float, predicted: float, config: LoRAOneConfig) -> float | None:
    """γ of the lowest point of L(t) = before + predicted·t + (after − before − predicted)t²."""
    if after <= before:
        return None
    best = -predicted / (2 * (after - before - predicted))
    return config.factor / best if config.init == "released" else config.factor * best


def _warn(found: Check, config: LoRAOneConfig) -> None:
    if found.inert:
        warnings.warn(
            f"adapters should change the loss; {len(found.inert)} have no effect on it: "
            f"{', '.join(found.inert[:3])}; leave them out of target_modules",
            stacklevel=4,
        )
    if found.other:
        warnings.warn(
            f"an adapter should see the gradient of its weight; {len(found.other)} see another: "
            f"{', '.join(found.other[:3])}; hooks change what the module is given or returns, or "
            "the loss takes the weight from elsewhere too; remove that, or leave them out of "
            "target_modules",
            stacklevel=4,
        )
    if found.gamma is not None:
        warnings.warn(
            f"the first step should lower the loss; it rose from {found.before:.4g} to "
            f"{found.after:.4g}, where the gradients promise {found.predicted:+.2g} to first "
            f"order; the step is too long: take gamma={found.gamma:.3g} "
            f"instead of {config.factor:g}",
            stacklevel=4,
        )


def _loss(train_step: Callable[[], Any]) -> float:
    loss = train_step()
    if not isinstance(loss, (int, float, Tensor)) or (
        isinstance(loss, Tensor) and loss.numel() != 1
    ):
        raise TypeError(
            f"check must return the loss as a number; got {type(loss).__name__}; end it with "
            "`return loss`"
        )
    value = (
        loss.detach()
        if isinstance(loss, Tensor)
        else torch.tensor(loss, dtype=torch.float64, device="cpu")
    )
    mean = distributed.mean_(value.reshape(1).to("cpu", torch.float64))
    return validate.real("the loss", float(mean))


@contextlib.contextmanager
def _without_dropout(pairs: Sequence[Pair], adapter_name: str) -> Iterator[None]:
    """The adapters' effective weights are W + sAB, in training mode too."""
    each = [pair.layer.lora_dropout for pair in pairs]
    held = [(dropouts, dropouts[adapter_name]) for dropouts in each if adapter_name in dropouts]
    try:
        for dropouts, _ in held:
            dropouts[adapter_name] = nn.Identity()
        yield
    finally:
        for dropouts, own in held:
            dropouts[adapter_name] = own


@contextlib.contextmanager
def _undisturbed(model: nn.Module, watched: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients, flags and random numbers afterwards as before; gradients for `watched`."""
    held = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        for p, _, _ in held:
            p.grad = None
        for p in watched:
            p.requires_grad_(True)
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for p, trainable, gradient in held:
            p.requires_grad_(trainable)
            p.grad = gradient
