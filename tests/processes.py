"""Two processes of a test that talk by gloo; what each found comes back."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def _on_a_process(rank: int, folder: str, work: Callable[[int, str], Any]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(minutes=3),
    )
    torch.save(work(rank, folder), f"{folder}/{rank}.pt")
    # Without destructors: that of a gloo group holds the GIL and waits for its threads, which may
    # still be about to release the tensors of the last collective, and need the GIL for it.
    os._exit(0)


def on_two_processes(work: Callable[[int, str], Any], folder: Path) -> list[Any]:
    """`work(rank, folder)` on each of two processes, what it returns as plain tensors and numbers.

    `work` is a function of a module, for it is sent to the processes by name.
    """
    torch.multiprocessing.spawn(_on_a_process, (str(folder), work), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
