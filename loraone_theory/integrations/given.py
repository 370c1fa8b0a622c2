"""Gradients as they are given: whole, or as their leading singular triplets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.core.linalg import SVD, SVDOptions
from loraone_theory.integrations.peft_find import is_meta, refuse


class Triplets(NamedTuple):
    """The leading part U diag(S) Vᵀ of a gradient, of the shape of the weight as it is stored.

    Args:
        U: (..., rows, q).
        S: (..., q), descending.
        V: (..., columns, q).
        norm: ‖G‖_F (...) of the whole gradient.
    """

    U: Tensor
    S: Tensor
    V: Tensor
    norm: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the gradient."""
        return (*self.U.shape[:-1], self.V.shape[-2])

    def expert(self, index: int) -> Triplets:
        """Those of one expert."""
        return Triplets(*(part[index] for part in self))


Given = Tensor | Triplets
# From this norm on no square that counts underflows, in any floating point dtype of a gradient.
SAFE = 1e-12


def usable(gradient: Given) -> list[bool]:
    """For each expert, or for the one weight: is there a direction in it?"""
    return _positive(_size(gradient))


def _positive(size: Tensor) -> list[bool]:
    return [bool(entry > 0) for entry in torch.atleast_1d(size)]


def _size(gradient: Given) -> Tensor:
    """σ₁ of triplets, else the Frobenius norm, of each expert where there are several.

    NaN or ∞ where an entry is.
    """
    if not isinstance(gradient, Triplets):
        return norm(gradient)
    bad = [~torch.isfinite(part).all() for part in gradient]
    size = gradient.S[..., 0]
    return torch.full_like(size, torch.nan) if any(bad) else size


def norm(gradient: Tensor) -> Tensor:
    """‖G‖_F over the last two dimensions, where squares over- or underflow too.

    >>> norm(torch.full((2, 2), 1e-30))
    tensor(2.0000e-30)
    """
    wide = torch.promote_types(gradient.dtype, torch.float32)
    size = torch.linalg.vector_norm(gradient, dim=(-2, -1), dtype=wide)
    odd = ~(torch.isfinite(size) & (size > SAFE))
    if not bool(odd.any()):
        return size
    if size.ndim == 0:
        return norm(gradient[None])[0]
    few = gradient[odd].to(wide)
    largest = torch.linalg.vector_norm(few, torch.inf, dim=(-2, -1))
    by = torch.where(torch.isfinite(largest) & (largest > 0), largest, 1.0)
    size[odd] = by * torch.linalg.vector_norm(few / by[:, None, None], dim=(-2, -1))
    return size


def unfit(gradient: object) -> str:
    """What a gradient is, where it is no dense tensor of real numbers and no triplets of such."""
    for part in gradient if isinstance(gradient, Triplets) else (gradient,):
        if not isinstance(part, Tensor):
            return type(part).__name__
        if is_meta(part):
            return "a tensor on the meta device"
        if not part.is_floating_point() or part.layout != torch.strided:
            return f"a tensor of {part.dtype}, {part.layout}"
    return ""


def check(
    gradients: Mapping[str, Given],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    lenient: bool = False,
) -> None:
    """Every weight has a finite, non-zero gradient of its shape; each is looked at once.

    `lenient` lets zero ones pass.

    Raises:
        ValueError: names those that do not, and the remedy.
    """
    missing, wrong, misshapen, infinite, zero = [], [], [], [], []
    for name, shape in shapes.items():
        if name not in gradients:
            missing.append(f"none for {name}")
            continue
        gradient = gradients[name]
        kind = unfit(gradient)
        if kind:
            wrong.append(f"{kind} for {name}")
        elif tuple(gradient.shape) != shape:
            misshapen.append(f"{tuple(gradient.shape)} for {name} of shape {shape}")
        elif not bool(torch.isfinite(size := _size(gradient)).all()):
            infinite.append(f"NaN or infinite entries for {name}")
        elif not lenient:
            has = _positive(size)
            ends = [f"[{e}]" for e in range(len(has))] if len(shape) == 3 else [""]
            zero += [f"zero for {name}{end}" for end, yes in zip(ends, has, strict=True) if not yes]
    refuse(
        "every module of the adapter needs a gradient",
        missing,
        "estimate them with get_lora_one_gradients and the same target_modules, or leave modules "
        "that the loss does not reach out of target_modules, or pass missing='lora'",
    )
    refuse(
        "a gradient must be a dense tensor of real numbers",
        wrong,
        "pass what get_lora_one_gradients returns",
    )
    refuse(
        "a gradient must have the shape of its module's weight",
        misshapen,
        "pass the gradients of this model's weights",
    )
    refuse(
        "gradients must be finite",
        infinite,
        "lower the loss scale, or run the forward pass in bfloat16 or float32",
    )
    refuse(
        "gradients must not be zero, since they have to point somewhere",
        zero,
        "check that the labels enter the loss and that the module is reached, or pass "
        "missing='lora' to leave such modules as they are",
    )


def leading(
    gradient: Given,
    rank: int,
    options: SVDOptions,
    *,
    transposed: bool,
    expert: int | None,
    device: torch.device,
) -> tuple[SVD, float]:
    """The leading triplets of a gradient as (d, k), and its norm.

    Args:
        gradient: of one weight, or of several experts'.
        rank: how many.
        options: how they are found, where it is whole.
        transposed: the weight is stored as (d, k) and not as (k, d).
        expert: which expert.
        device: where.
    """
    if isinstance(gradient, Triplets):
        own = gradient if expert is None else gradient.expert(expert)
        U, V = (own.U, own.V) if transposed else (own.V, own.U)
        parts = (U[:, :rank], own.S[:rank], V[:, :rank])
        return SVD(*(part.to(device, exact_dtype(device)) for part in parts)), float(own.norm)
    G = gradient if expert is None else gradient[expert]
    dtype = exact_dtype(device) if options.method == "exact" else torch.float32
    G = (G if transposed else G.mT).to(device, dtype)
    found = linalg.truncated_svd(G, rank, options)
    return found, float(norm(G))


# Graphics processors whose float64 is half as fast as their float32, and not 1/32 or 1/64.
FLOAT64_CAPABILITIES = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64 where the device is good at it."""
    if device.type == "cpu":
        return torch.float64
    if device.type == "cuda" and torch.cuda.get_device_capability(device) in FLOAT64_CAPABILITIES:
        return torch.float64
    return torch.float32
