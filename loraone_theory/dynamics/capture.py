"""On a device, record one step as a graph and replay it: launching small kernels is what costs.

What is recorded is a pure function over buffers that stay where they are: it takes their values to
the next ones and keeps nothing else. Numbers of a rule's state, such as a count of steps, are
buffers too. A recorded step gives what the step itself gives, up to the rounding of the small
eigendecompositions (`core.eigen`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from loraone_theory.core.eigen import recorded_work
from loraone_theory.core.factors import Params
from loraone_theory.dynamics.leaves import Leaf, filled, leaves_of

# Calls before recording, so that libraries have set themselves up, and the watched one after them.
WARM_UP = 3
CALLS = WARM_UP + 1

Tree = Any  # nested tuples of tensors and numbers


class Graph(Protocol):
    """Recorded work."""

    def replay(self) -> None:
        """Do it again, on the present values of the same tensors."""


class Recorded(NamedTuple):
    """A step that is replayed.

    Args:
        graph: the work.
        buffers: what it reads and overwrites, every leaf a tensor.
        kinds: the same with the numbers that came in, whose types come out again.
    """

    graph: Graph
    buffers: Tree
    kinds: Tree

    def saved(self) -> Tree:
        """Copies of the present values, and numbers where there were some."""
        pairs = zip(leaves_of(self.buffers), leaves_of(self.kinds), strict=True)
        return filled(self.kinds, iter([_copied(now, kind) for now, kind in pairs]))

    def load(self, tree: Tree) -> None:
        """Other values in place of the present ones."""
        for buffer, value in zip(leaves_of(self.buffers), leaves_of(tree), strict=True):
            _fill(buffer, value)


def _copied(buffer: Leaf, kind: Leaf) -> Leaf:
    assert isinstance(buffer, Tensor)  # all of them are
    return buffer.clone() if isinstance(kind, Tensor) else type(kind)(buffer.item())


def _fill(buffer: Leaf, value: Leaf) -> None:
    assert isinstance(buffer, Tensor)
    if isinstance(value, Tensor):
        buffer.copy_(value)
    else:
        buffer.fill_(value)


def records(like: Tensor) -> bool:
    """Whether the tensor's device records work."""
    return like.device.type in RECORDERS


def recorded(
    step: Callable[[Tree], Tree], start: Tree, mutated: Params = (), *, like: Tensor
) -> Recorded | None:
    """`step` as a graph, None on the CPU and where the device cannot record it.

    Args:
        step: from the leaves of a tree to those of the next one, of the same shapes and dtypes.
        start: the tree that it begins with.
        mutated: further tensors that `step` overwrites itself; they are as before on return.
        like: a tensor on the device.
    """
    record = RECORDERS.get(like.device.type)
    if record is None:
        return None
    buffers = filled(start, iter([_buffer(leaf, like) for leaf in leaves_of(start)]))

    def work() -> None:
        _overwrite(buffers, step(buffers))

    kept = [*mutated, *leaves_of(buffers)]
    before = [tensor.clone() for tensor in kept]  # type: ignore[union-attr]
    try:
        with recorded_work():
            graph = record(work, like)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # for example a kernel that synchronises, as an SVD does
        return None
    finally:
        for tensor, value in zip(kept, before, strict=True):
            _fill(tensor, value)
    return Recorded(graph, buffers, start)


def _buffer(leaf: Leaf, like: Tensor) -> Tensor:
    """A leaf of its own; numbers in float64, which holds counts up to 2^53 and powers in full."""
    if isinstance(leaf, Tensor):
        return leaf.clone(memory_format=torch.preserve_format)
    return torch.full((), leaf, dtype=torch.float64, device=like.device)


def _overwrite(buffers: Tree, values: Tree) -> None:
    """The values into the buffers; those that are, or look into, another buffer are copied first.

    Raises:
        RuntimeError: of another number, shape or dtype, so that a replay could not go on with them.
    """
    old, new = list(leaves_of(buffers)), list(leaves_of(values))
    if [_kind(a) for a in old] != [_kind(b) for b in new]:
        raise RuntimeError("the leaves of a recorded step must keep their shapes and dtypes")
    own = {id(buffer) for buffer in old}
    moved = [
        (a, b.clone() if id(b) in own or id(b._base) in own else b)  # type: ignore[union-attr]
        for a, b in zip(old, new, strict=True)
        if a is not b
    ]
    for buffer, value in moved:
        _fill(buffer, value)


def _kind(leaf: Leaf) -> object:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf)


def by_cuda(work: Callable[[], None], like: Tensor) -> Graph:
    """Work on the device of a tensor as a CUDA graph.

    Called a few times before, on the stream that it is recorded on: what makes the host wait is
    refused there, since a recording that fails leaves the process on its stream, and the device's
    allocator in its pool.
    """
    with torch.cuda.device(like.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work()
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode(before)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                work()
        torch.cuda.current_stream().wait_stream(stream)
    return graph


# What records work, by the type of the device.
RECORDERS: dict[str, Callable[[Callable[[], None], Tensor], Graph]] = {"cuda": by_cuda}
