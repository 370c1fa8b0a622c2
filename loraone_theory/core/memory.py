"""What does not fit into this machine's memory is refused before anything is drawn."""

from __future__ import annotations

import os


def machine_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refuse_beyond_memory(what: str, needed: int, remedy: str) -> None:
    """Raise unless `needed` bytes are at most the machine's memory.

    >>> refuse_beyond_memory("a number", 8, "draw none")
    """
    if needed > machine_memory():
        raise ValueError(
            f"{what} take {needed / 2**30:.3g} GiB, and this machine has "
            f"{machine_memory() / 2**30:.3g} GiB; {remedy}"
        )
