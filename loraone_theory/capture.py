"""On CUDA, record one step as a graph and replay it: launching small kernels is what costs there.

The replayed step runs the same kernels on the same values as the eager one. Rules that keep a
state, or whose kernels cannot be recorded (eigendecompositions synchronise), stay eager.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from loraone_theory.factors import Params

Step = Callable[[Params, Any], tuple[Params, Any]]


def captured(step: Step, params: Params, state: Any) -> Step:
    """`step` itself on the CPU or where it cannot be recorded, else its replay."""
    if not params[0].is_cuda or state is not None:
        return step
    try:
        return _Replay(step, params)
    except RuntimeError:
        return step


class _Replay:
    """A CUDA graph of one step over buffers of its own; its answers are fresh tensors."""

    def __init__(self, step: Step, params: Params) -> None:
        self.buffers = tuple(p.clone() for p in params)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm-up, as recording asks for
            for _ in range(3):
                step(self.buffers, None)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.answers, _ = step(self.buffers, None)

    def __call__(self, params: Params, state: Any) -> tuple[Params, Any]:
        for buffer, value in zip(self.buffers, params, strict=True):
            buffer.copy_(value)
        self.graph.replay()
        return tuple(answer.clone() for answer in self.answers), state
