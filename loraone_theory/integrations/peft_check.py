"""Does the step do what its gradients say: two forward passes after the initialisation."""

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


def checked(
    model: nn.Module,
    pairs: Sequence[Pair],
    adapter_name: str,
    reports: Reports,
    config: LoRAOneConfig,
    train_step: Callable[[], Any],
) -> Check:
    """Run `train_step` at W + sA₀B₀ and at W, with the same random numbers.

    Warns where the loss rose, with the γ to take, and of adapters without effect.

    Raises:
        TypeError: `train_step` returns no loss.
        ValueError: it runs no backward pass.
    """
    parameters = {pair.name: weights(pair.layer, adapter_name) for pair in pairs}
    with _undisturbed(model, [p for both in parameters.values() for p in both]):
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
    ups = [(up, up.detach().clone()) for _, up in parameters.values()]
    with _undisturbed(model, []), torch.no_grad():
        try:
            for up, _ in ups:
                up.zero_()
            with torch.enable_grad():
                before = _loss(train_step)
        finally:
            for up, value in ups:
                up.copy_(value)
    predicted = -sum(r.step_norm**2 / r.learning_rate for r in reports.values())
    inert = tuple(name for name, yes in zip(parameters, reached, strict=True) if not yes)
    found = Check(before, after, predicted, inert, _better(before, after, predicted, config))
    _warn(found, config)
    return found


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
    value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(loss)
    mean = distributed.mean_(value.reshape(1).to("cpu", torch.float64))
    return validate.real("the loss", float(mean))


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
