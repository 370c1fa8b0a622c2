"""Methods that start where LoRA does, A random and B zero, and full fine-tuning."""

from __future__ import annotations

from typing import Any, Literal

from loraone_theory.core import validate
from loraone_theory.core.factors import Scalar
from loraone_theory.methods.base import Alpha, Method, Scale, around_part, init_part
from loraone_theory.methods.parametrisations import full as whole
from loraone_theory.methods.parametrisations import pair, triplets
from loraone_theory.methods.rules.base import Betas
from loraone_theory.methods.rules.scaled_adamw import Order

# The standard deviation of A₀, or uniform entries as libraries draw them.
Std = Scalar | Literal["kaiming"]


def full() -> Method:
    """Full fine-tuning: gradient descent on all of W."""
    return Method("full", init_part("zero"), whole)


def full_flow(*, rtol: float = 1e-10) -> Method:
    """Full fine-tuning by gradient flow; time is the learning rate times the step."""
    return full().trained_by("flow", rtol=rtol)


def full_adamw(
    *, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
) -> Method:
    """Full fine-tuning by AdamW."""
    return full().trained_by("adamw", betas=betas, eps=eps, weight_decay=weight_decay)


def lora(*, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """LoRA: A Gaussian (or "kaiming", uniform), B zero, gradient descent (Eq. 4)."""
    if isinstance(init_std, str):
        validate.choice("init_std", init_std, ("kaiming",))
        return Method("lora", init_part("kaiming"), pair, scaling=scale)
    std = validate.standard_deviation("init_std", init_std)
    return Method("lora", init_part("gaussian"), pair, scaling=scale, init_std=std)


def rslora(*, alpha: float = 1.0, init_std: Std = 1e-2) -> Method:
    """rsLoRA: LoRA with s = alpha/√r, so that the size of sAB does not shrink with the rank."""
    return lora(init_std=init_std, scale=Alpha(alpha, stabilised=True)).trained_by(
        "gd", name="rslora"
    )


def flow(*, rtol: float = 1e-10, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """LoRA by gradient flow on the pair; time is the learning rate times the step."""
    return lora(init_std=init_std, scale=scale).trained_by("flow", name="flow", rtol=rtol)


def lora_momentum(*, beta: float = 0.9, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """LoRA by gradient descent with heavy-ball momentum."""
    return lora(init_std=init_std, scale=scale).trained_by("momentum", beta=beta)


def lora_adamw(
    *,
    init_std: Std = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    scale: Scale = 1.0,
) -> Method:
    """LoRA by AdamW."""
    return lora(init_std=init_std, scale=scale).trained_by(
        "adamw", betas=betas, eps=eps, weight_decay=weight_decay
    )


def lora_plus(*, ratio: float = 16.0, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """LoRA+: LoRA with a step for B that is `ratio` times as large."""
    return lora(init_std=init_std, scale=scale).trained_by("lora-plus", name="lora+", ratio=ratio)


def lora_plus_adamw(
    *,
    ratio: float = 16.0,
    init_std: Std = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    scale: Scale = 1.0,
) -> Method:
    """LoRA+ by AdamW, the form in which it was proposed."""
    hyper: dict[str, Any] = {
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "ratio": ratio,
    }
    return lora(init_std=init_std, scale=scale).trained_by("adamw", name="lora+-adamw", **hyper)


def p_lora(*, adaptive: float = 0.0, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """P-LoRA: LoRA-init, preconditioned gradient descent (Eq. 9); `adaptive` damps with ‖∇‖."""
    return lora(init_std=init_std, scale=scale).trained_by(
        "preconditioned", name="p-lora", adaptive=adaptive
    )


def p_lora_adamw(
    *,
    order: Order = "released",
    init_std: Std = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    bias_correction: bool | None = None,
    scale: Scale = 1.0,
) -> Method:
    """P-LoRA by scaled AdamW, in the order of the released code or of PEFT."""
    hyper: dict[str, Any] = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
    return lora(init_std=init_std, scale=scale).trained_by(
        "scaled-adamw", name="p-lora-adamw", order=order, bias_correction=bias_correction, **hyper
    )


def p_lora_alternating(*, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """P-LoRA with alternating steps (AltLoRA without momentum): B steps from where A has gone."""
    return lora(init_std=init_std, scale=scale).trained_by("alternating", name="p-lora-alternating")


def lora_spectral_scaled(*, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """LoRA by descent whose steps are divided by the squared spectral norm of the other factor."""
    return lora(init_std=init_std, scale=scale).trained_by(
        "spectral-scaled", name="lora-spectral-scaled"
    )


def nystrom(*, adaptive: float = 0.0, scale: Scale = 1.0) -> Method:
    """Nystrom initialisation (NoRA): A a sketch of the gradient, B zero, preconditioned descent."""
    return Method("nystrom", init_part("nystrom"), pair, scaling=scale).trained_by(
        "preconditioned", name="nystrom", adaptive=adaptive
    )


def muon(
    *,
    beta: float = 0.0,
    weight_decay: float = 0.0,
    init_std: Std = 1e-2,
    scale: Scale = 1.0,
) -> Method:
    """LoRA by Muon: each factor steps along the orthogonal part of its averaged gradient."""
    return lora(init_std=init_std, scale=scale).trained_by(
        "muon", name="muon", beta=beta, weight_decay=weight_decay
    )


def lora_muon(*, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """LoRA-Muon: orthogonal steps of each factor in the metric of the other one."""
    return lora(init_std=init_std, scale=scale).trained_by("lora-muon", name="lora-muon")


def lora_rite(
    *,
    betas: Betas = (0.9, 0.999),
    escaped_mass: bool = False,
    init_std: Std = 1e-2,
    scale: Scale = 1.0,
) -> Method:
    """LoRA-RITE: adaptive steps with moments that do not depend on the gauge."""
    return lora(init_std=init_std, scale=scale).trained_by(
        "lora-rite", name="lora-rite", betas=betas, escaped_mass=escaped_mass
    )


def lora_pro(*, ridge: float = 1e-8, init_std: Std = 1e-2, scale: Scale = 1.0) -> Method:
    """LoRA-Pro: LoRA-init, the low-rank step nearest to the full gradient's."""
    return lora(init_std=init_std, scale=scale).trained_by("lora-pro", name="lora-pro", ridge=ridge)


def lora_pro_adamw(
    *,
    ridge: float = 1e-8,
    init_std: Std = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    scale: Scale = 1.0,
) -> Method:
    """LoRA-Pro by AdamW on the equivalent full gradient, projected back."""
    hyper: dict[str, Any] = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
    return lora(init_std=init_std, scale=scale).trained_by(
        "lora-pro", name="lora-pro-adamw", ridge=ridge, **hyper
    )


def adalora(
    *,
    target_rank: int | None = None,
    total_steps: int = 1000,
    initial_steps: int = 0,
    final_steps: int = 0,
    interval: int = 1,
    penalty: float = 0.5,
    squared: bool = False,
    betas: Betas = (0.85, 0.85),
    init_std: float = 0.02,
    scale: Scale = 1.0,
) -> Method:
    """AdaLoRA: P diag(λ) Q whose rank shrinks to `target_rank` (two thirds of r) on a schedule."""
    std = validate.number("init_std", init_std, positive=True)
    around = around_part(
        "adalora",
        target_rank=target_rank,
        total_steps=total_steps,
        initial_steps=initial_steps,
        final_steps=final_steps,
        interval=interval,
        penalty=penalty,
        squared=squared,
        betas=betas,
    )
    init = init_part("adalora", init_std=std)
    return Method("adalora", init, triplets, scaling=scale, around=around)
