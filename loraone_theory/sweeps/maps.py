"""A sweep carried out for a figure, and its variables as arrays over named axes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from loraone_theory.sweeps.sweep import Sweep


def maps(
    make: Callable[[str], Sweep],
    folder: str,
    names: Sequence[str],
    *,
    axes: Sequence[str],
    shape: Sequence[int],
    workers: int = 1,
    progress: Callable[[float], object] = lambda share: None,
) -> dict[str, np.ndarray]:
    """Compute every run of a sweep, and read variables with their axes in an order.

    Args:
        make: a folder -> the sweep in it.
        folder: where it is kept, so that an interrupted one goes on; "" for nowhere.
        names: of the variables.
        axes: all axes of the sweep, in the order of the dimensions.
        shape: the dimensions that the first of them stands for.
        workers: processes.
        progress: told the share of the cells that are done.

    Raises:
        RuntimeError: some cells have no numbers.
    """
    with contextlib.ExitStack() as stack:
        sweep = make(folder or stack.enter_context(tempfile.TemporaryDirectory()))
        done = sweep.run(workers=workers, report=lambda n, total: progress(n / total))
        if done.failed or done.lost:
            raise RuntimeError(f"{done.failed} cells failed, {len(done.lost)} were lost: {done}")
        order = [list(sweep.spec.sizes).index(axis) for axis in axes]
        found = {name: sweep.array(name).transpose(order) for name in names}
        return {name: x.reshape(*shape, *x.shape[1:]) for name, x in found.items()}
