"""On CUDA, record one step as a graph and replay it: launching small kernels is what costs there.

The replayed step runs the same kernels on the same values as the eager one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from loraone_theory.core.factors import Params

WARM_UP = 3  # calls before recording, so that libraries have set themselves up


def recorded(work: Callable[[], None], mutated: Params) -> torch.cuda.CUDAGraph | None:
    """`work` as a graph to replay; None on the CPU, or where it cannot be recorded.

    Args:
        work: reads and writes tensors that stay where they are, and keeps no other state.
        mutated: those whose values the next call depends on; they are as before on return.
    """
    if not mutated[0].is_cuda:
        return None
    before = [tensor.clone() for tensor in mutated]
    try:
        return _record(work)
    except RuntimeError:  # for example a kernel that synchronises, as eigendecompositions do
        return None
    finally:
        for tensor, value in zip(mutated, before, strict=True):
            tensor.copy_(value)


def _record(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph
