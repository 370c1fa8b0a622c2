"""What several processes have to agree on; with one process everything here does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def active() -> bool:
    """True where torch.distributed runs with more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def leads() -> bool:
    """True on the process that computes and writes for all of them."""
    return not active() or dist.get_rank() == 0


def everyone(holds: bool) -> bool:
    """True where `holds` is true on every process."""
    return all(_gather(holds))


def anyone(holds: bool) -> bool:
    """True where `holds` is true on some process."""
    return any(_gather(holds))


@contextmanager
def together() -> Iterator[None]:
    """A block that fails on every process as soon as it fails on one, so that none waits.

    Raises:
        ValueError: some process's error, with its number; with one process, whatever it was.
    """
    complaint = ""
    try:
        yield
    except Exception as error:
        if not active():
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        complaint = f"{kind}{error}"
    for rank, found in enumerate(_gather(complaint)):
        if found:
            raise ValueError(f"process {rank}: {found}")


def mean_(tensor: Tensor) -> Tensor:
    """The mean over processes of a CPU tensor, in place."""
    if active():
        moved = tensor.to(_device())
        dist.all_reduce(moved)
        tensor.copy_(moved.div_(dist.get_world_size()))
    return tensor


def broadcast_(tensor: Tensor) -> Tensor:
    """The leading process's values of a tensor, in place."""
    if active():
        moved = tensor.detach().to(_device())
        dist.broadcast(moved, src=0)
        with torch.no_grad():
            tensor.copy_(moved)
    return tensor


def broadcast_object(value: Any) -> Any:
    """The leading process's object."""
    if not active():
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def _gather(value: Any) -> list[Any]:
    if not active():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def _device() -> torch.device:
    """Where collectives of the backend take place."""
    if "nccl" in dist.get_backend():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
