"""Tensors that several processes hold parts of: read whole, written in parts.

The factors of an adapter are thin, so that every process can hold them whole for a moment.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def whole(tensor: Tensor) -> Tensor:
    """The full tensor; every process has to ask for it."""
    held = tensor.detach()
    return held.full_tensor() if isinstance(held, DTensor) else held


def is_sharded(tensor: Tensor) -> bool:
    """True where this process may hold a part only."""
    return isinstance(tensor, DTensor)


@torch.no_grad()
def write_(tensors: list[Tensor], values: list[Tensor]) -> None:
    """Every tensor takes its value, which all processes have whole, and keeps its own part."""
    plain = [i for i, tensor in enumerate(tensors) if not isinstance(tensor, DTensor)]
    if plain:
        torch._foreach_copy_([tensors[i] for i in plain], [values[i] for i in plain])
    for tensor, value in zip(tensors, values, strict=True):
        if isinstance(tensor, DTensor):
            mesh = tensor.device_mesh
            value = value.to(tensor.dtype).contiguous()
            full = DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)
            tensor.copy_(full.redistribute(placements=tensor.placements))
