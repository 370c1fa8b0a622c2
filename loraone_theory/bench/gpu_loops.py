"""How a careful user steps on a card: eagerly, compiled, or compiled and recorded as a graph."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from loraone_theory.bench.base import seconds
from loraone_theory.bench.peer_forms import has_compiler
from loraone_theory.dynamics.capture import CALLS, RECORDERS, Graph, by_cuda

# (state) -> (next state, what is logged), tensors all of them.
Step = Callable[..., tuple[Tensor, ...]]
Run = Callable[[], object]
# What the baselines are called in the rows, and what is said of them there.
FORMS = {
    "eager": "eager",
    "compiled": "torch.compile of a step",
    "recorded": "torch.compile of a step, recorded as a CUDA graph",
}


def runs(step: Step, start: tuple[Tensor, ...], steps: int, *, compiles: bool) -> dict[str, Run]:
    """So many steps from the start in each form, the log read back at the end.

    The recorded form launches nothing but the step itself: it is what a scan that JAX compiles
    comes to on a card. Without a card its steps are called.
    """
    forms: dict[str, Run] = {"eager": lambda: _called(step, start, steps)}
    if compiles and can_compile(start[0].device):
        compiled = torch.compile(step, dynamic=False)
        forms["compiled"] = lambda: _called(compiled, start, steps)
        record = functools.cache(functools.partial(_recorded, compiled, start, steps))
        forms["recorded"] = lambda: record()()
    return forms


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: Triton on a card, a C++ compiler elsewhere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 0)
    return has_compiler()


def _called(step: Step, start: tuple[Tensor, ...], steps: int) -> Tensor:
    state, log = start, []
    for _ in range(steps):
        *state, seen = step(*state)  # type: ignore[assignment]
        log.append(seen)
    return torch.stack(log).cpu()


def _recorded(step: Step, start: tuple[Tensor, ...], steps: int) -> Run:
    """A step over buffers, which are given the next state, and a log with a counter of its own."""
    held = tuple(tensor.clone() for tensor in start)
    *_, seen = step(*held)
    # The calls before the recording write too.
    log = seen.new_zeros(steps + CALLS, *seen.shape)
    at = torch.zeros(1, dtype=torch.long, device=seen.device)

    def once() -> None:
        *after, seen = step(*held)
        log.index_copy_(0, at, seen[None])
        at.add_(1)
        for old, new in zip(held, after, strict=True):
            old.copy_(new)

    replay = _graph(once, at)

    def run() -> Tensor:
        at.zero_()
        for old, new in zip(held, start, strict=True):
            old.copy_(new)
        for _ in range(steps):
            replay()
        return log[:steps].cpu()

    return run


def _graph(once: Callable[[], None], at: Tensor) -> Callable[[], None]:
    """`once` as a graph, where there is a card."""
    return by_cuda(once, at).replay if at.is_cuda else once


def prepared(forms: dict[str, Run]) -> tuple[dict[str, Run], list[str]]:
    """The forms, each run once, so that it is compiled, and the names of those that do not compile.

    What is left out is warned of too.
    """
    found: dict[str, Run] = {}
    left_out: list[str] = []
    for form, run in forms.items():
        try:
            run()
        except RuntimeError as error:  # whatever this machine's compiler lacks
            if form not in ("compiled", "recorded"):
                raise
            said = str(error).strip().splitlines() or [type(error).__name__]
            warnings.warn(f"{FORMS[form]} is left out: {said[0]}", stacklevel=2)
            left_out.append(form)
            continue
        found[form] = run
    return found, left_out


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Products of float32 with TF32 inside, or without."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def recordings(device: torch.device) -> Iterator[dict[str, int]]:
    """How many steps of the library are recorded inside, and how many the device refuses.

    A refused one runs on without a graph, which its time alone would not tell.
    """
    record = RECORDERS.get(device.type)
    if record is None:
        yield {}
        return
    found = {"graphs": 0, "refused_graphs": 0}

    def counted(work: Callable[[], None], like: Tensor) -> Graph:
        found["refused_graphs"] += 1
        graph = record(work, like)
        found["refused_graphs"] -= 1
        found["graphs"] += 1
        return graph

    RECORDERS[device.type] = counted
    try:
        yield found
    finally:
        RECORDERS[device.type] = record


class Peaks:
    """What the card reaches: bytes a second of a copy, operations a second of a large product."""

    def __init__(self, device: torch.device, *, tiny: bool) -> None:
        self._device, self._side = device, 64 if tiny else 8192
        self.bytes_per_s = _copied_per_s((1 << 12) if tiny else (1 << 30), device)
        self._operations: dict[tuple[torch.dtype, bool], float] = {}

    def operations_per_s(self, dtype: torch.dtype, on: bool) -> float:
        """Of a product of square matrices, with TF32 or without."""
        key = dtype, on and dtype is torch.float32
        if key not in self._operations:
            g = torch.Generator(self._device).manual_seed(0)
            size = self._side, self._side
            M = torch.randn(size, generator=g, dtype=dtype, device=self._device)
            with tf32(on):
                self._operations[key] = 2 * self._side**3 / _least(lambda: M @ M)
        return self._operations[key]

    def shares(self, took: float, like: Tensor, on: bool, work: dict[str, float]) -> dict[str, Any]:
        """The share of both peaks of work of so many "bytes" and "operations" in `took` seconds."""
        found = {}
        if "bytes" in work:
            found["share_of_bandwidth"] = work["bytes"] / took / self.bytes_per_s
        if "operations" in work:
            peak = self.operations_per_s(like.dtype, on)
            found["share_of_arithmetic"] = work["operations"] / took / peak
        return found


def _copied_per_s(size: int, device: torch.device) -> float:
    """Bytes a second, read and written, of a copy of so many."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    sink = torch.empty_like(source)
    return 2 * size / _least(lambda: sink.copy_(source))


def _least(work: Callable[[], object], times: int = 4) -> float:
    """The least seconds of one of so many in a row, of several, once warm."""
    work()
    return min(seconds(work, times=times) for _ in range(5))
