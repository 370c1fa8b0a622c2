"""An estimate of the memory that a request takes, held against what the machine has."""

from __future__ import annotations

import functools
import os
from pathlib import Path

# Where the kernel keeps the limit of the control group that a container runs in.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# A dense d×k matrix of more entries than this is refused: there are ways that need none.
DENSE_LIMIT = 1 << 31
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


@functools.cache
def machine_bytes() -> int | None:
    """Memory of this machine or of the container, None where that is not known."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):  # not a Unix
        return None
    for name in LIMITS:
        path = Path(name)
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdigit():
            found.append(int(text))
    return min(found)


def in_words(size: int) -> str:
    """A size with a unit.

    >>> in_words(8 * 10**12)
    '8 TB'
    """
    value, unit = float(size), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {UNITS[unit]}"


def fits(size: int) -> bool:
    """Whether `size` bytes are no more than the machine has, as far as that is known.

    >>> fits(1), fits(8 * 10**18)
    (True, False)
    """
    there = machine_bytes()
    return there is None or size <= there


def refuse_beyond_memory(what: str, size: int, remedy: str) -> None:
    """ValueError where `size` bytes are more than the machine has, before they are asked for.

    >>> refuse_beyond_memory("10¹⁶ numbers", 8 * 10**16, "lower d")
    Traceback (most recent call last):
    ValueError: 10¹⁶ numbers take 80 PB of memory, and this machine has ...; lower d
    """
    if not fits(size):
        there = in_words(machine_bytes() or 0)
        raise ValueError(
            f"{what} take {in_words(size)} of memory, and this machine has {there}; {remedy}"
        )


def refuse_beyond_dense(what: str, d: int, k: int, remedy: str) -> None:
    """Refuse a d×k matrix of more than DENSE_LIMIT entries.

    Raises:
        ValueError: `what` is too large, with the remedy.
    """
    if d * k > DENSE_LIMIT:
        raise ValueError(f"{what} of d x k = {d} x {k} entries is too large to hold; {remedy}")
