"""How many CPU threads a batch of small matrices deserves, and how they share it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController

# Below this many entries in a step's largest tensor, handing work to a second thread costs more
# than the work (torch itself splits elementwise work only above 32768 entries).
ENTRIES_PER_THREAD = 1 << 15


@contextmanager
def threads_for(entries: int, device: torch.device, most: int | None = None) -> Iterator[None]:
    """Run the block on one thread if its tensors are small, else on `most` (torch's own count)."""
    before = torch.get_num_threads()
    wanted = 1 if entries <= ENTRIES_PER_THREAD else most or before
    if device.type != "cpu" or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(
    pool: ThreadPoolExecutor, work: Callable[[slice], None], count: int, threads: int
) -> None:
    """Call `work` on `threads` slices that make up range(count), all but one of them in the pool.

    For batches of small matrices: LAPACK goes through them one by one, so their number is what
    there is to share. Torch is single-threaded meanwhile.
    """
    cuts = [count * i // threads for i in range(threads + 1)]
    first, *rest = [slice(a, b) for a, b in itertools.pairwise(cuts) if a < b]

    def alone(rows: slice) -> None:
        torch.set_num_threads(1)
        with torch.no_grad():
            work(rows)

    before = torch.get_num_threads()
    others = [pool.submit(alone, rows) for rows in rest]
    try:
        alone(first)
        for other in others:
            other.result()
    finally:
        torch.set_num_threads(before)


@functools.cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one thread, of torch and of the linear algebra beneath NumPy and SciPy.

    So that what it computes does not depend on how many cores the machine has.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _pools().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
