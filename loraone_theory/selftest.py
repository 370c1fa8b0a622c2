"""Does this installation compute what the library's makers got? A few small runs, one second.

The numbers are in selftest.json beside this file; `python -m loraone_theory.selftest` writes them
anew, for changes that are meant to change them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from loraone_theory import storage
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.sampling import sample_linear
from loraone_theory.problems.relu.sampling import sample_relu
from loraone_theory.problems.sensing.sampling import sample_sensing

STORED = Path(__file__).with_suffix(".json")
STEPS = 20
WIDTH = 12
# Also the adapters' rank: a direction beyond it has rounding for its singular value, and rules with
# inverses would amplify that.
RANK = 2
# Rounding of one step is a few `WIDTH` units in the last place, and the steps, which contract, add
# theirs up; an angle's is amplified by σ₁ over the gap that defines its subspace, at most 10³ here.
TOLERANCE = 4 * WIDTH * STEPS * 1e3 * float(np.finfo(np.float64).eps)

_RECORDS = ("loss", "risk", "left_alignment")
_METHODS = ("full", "lora", "lora-one", "lora-ga", "pissa", "lora-pro", "lora+", "rslora")


def measure() -> dict[str, list[float]]:
    """Records at the last step, by what was run; float64 on the CPU, seed 0."""
    problems: dict[str, Problem] = {
        "linear": sample_linear(d=WIDTH, k=10, true_rank=RANK, samples=120),
        "relu": sample_relu(d=WIDTH, k=10, true_rank=RANK, samples=400, relative_shift=0.1),
        "completion": sample_sensing(
            ensemble="completion", d=WIDTH, k=10, true_rank=RANK, measurements=90
        ),
    }
    found = {}
    for kind, problem in problems.items():
        for name in _METHODS if kind == "linear" else ("lora-one",):
            run = simulate(
                problem,
                name,
                rank=RANK,
                learning_rate=0.1,
                steps=STEPS,
                init_std=None if name != "lora" else 0.1,
                record=_RECORDS if name != "full" else _RECORDS[:2],
                every=STEPS,
            )
            found[f"{kind} {name}"] = [float(values[-1, 0]) for values in run.records.values()]
    return found


def difference() -> float:
    """The largest relative difference between `measure` and what is stored, NaN where one is.

    Raises:
        storage.DamagedFile: the stored numbers are not those of these runs.
    """
    stored = storage.load_json(STORED)
    found = measure()
    with storage.reading(STORED, "numbers of the runs of this version"):
        pairs = [(found[name], stored[name]) for name in found]
    gaps = [np.abs(np.divide(a, b) - 1).max() for a, b in pairs]
    return float(np.max(gaps))


if __name__ == "__main__":
    torch.set_num_threads(1)
    storage.save_json(STORED, measure())
