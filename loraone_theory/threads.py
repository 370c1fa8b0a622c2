"""How many CPU threads a batch of small matrices deserves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Below this many entries in a step's largest tensor, handing work to a second thread costs more
# than the work (torch itself splits elementwise work only above 32768 entries).
ENTRIES_PER_THREAD = 1 << 15


@contextmanager
def threads_for(entries: int, device: torch.device) -> Iterator[None]:
    """Run the block on one thread if its tensors are small, on torch's own count otherwise."""
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1 or entries > ENTRIES_PER_THREAD:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
