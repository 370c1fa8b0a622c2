"""A double of a device's graph on the CPU: calls are recorded, and replayed on the same tensors.

As on a device, a replay repeats the recorded kernels with the recorded numbers on the memory they
had: tensors that Python would make afresh, numbers that it would count up and values that it would
look at are those of the recording. While recording, what makes the host wait is refused.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# What reads a value back on CUDA: by itself, for the size of its answer, or to see whether it
# converged (torch's check of LAPACK-like codes).
WAITS = {
    aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select,
    aten._unique2, aten.unique_dim, aten.repeat_interleave, aten.bincount,
    aten._linalg_eigh, aten._linalg_svd, aten._linalg_det, aten._linalg_slogdet,
    aten.linalg_eig, aten.linalg_lstsq, aten.linalg_cholesky, aten.linalg_ldl_factor,
}  # fmt: skip


class Waited(RuntimeError):
    """What a device says when a recording makes the host wait."""


class Call(NamedTuple):
    """One kernel and the memory it works on."""

    kernel: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[torch.Tensor]


def waits(kernel: Any, args: Any) -> bool:
    """Whether the host waits for this kernel."""
    by_mask = kernel.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
        isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
    )
    return by_mask or kernel.overloadpacket in WAITS


def is_view(kernel: Any) -> bool:
    """Whether the result looks into an argument that it leaves as it is."""
    returned = [r.alias_info for r in kernel._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


def overwrites(kernel: Any) -> bool:
    """Whether it writes into its arguments."""
    return any(a.alias_info is not None and a.alias_info.is_write for a in kernel._schema.arguments)


class Recording(TorchDispatchMode):
    """Notes every kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, kernel: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if waits(kernel, args):
            raise Waited(f"{kernel} is not permitted while a stream is recorded")
        found = kernel(*args, **kwargs)
        results = [x for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
        self.calls.append(Call(kernel, args, kwargs, results))
        return found


class GraphDouble:
    """The recorded kernels, to do again.

    Args:
        work: called once as it is, so that what is kept from call to call is there, then recorded.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        work()
        with Recording() as recording:
            work()
        self.calls = recording.calls
        self.replays = 0

    def replay(self) -> None:
        """Every kernel again, its results into the memory of the recorded ones."""
        self.replays += 1
        for kernel, args, kwargs, results in self.calls:
            if is_view(kernel):
                continue
            found = kernel(*args, **kwargs)
            if not overwrites(kernel):
                fresh = [x for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
                for old, new in zip(results, fresh, strict=True):
                    if new is not old and old.layout is torch.strided:
                        old.copy_(new)
