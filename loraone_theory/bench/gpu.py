"""Benchmarks on a CUDA card, each against torch on the same card; no rows where there is none.

At tiny size they run on the CPU too, to see that they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from loraone_theory.bench.base import Row, Setting, benchmark, in_pairs
from loraone_theory.bench.gpu_case import Case
from loraone_theory.bench.gpu_linear import batches, notebook, single, widest
from loraone_theory.bench.gpu_loops import Peaks, prepared, recordings, tf32
from loraone_theory.bench.gpu_products import estimation, relu, sensing

# Whether they are made of products that are large enough for TF32 to matter.
CASES = {
    notebook: False,
    single: False,
    batches: False,
    widest: False,
    relu: True,
    sensing: True,
    estimation: True,
}


def _device(setting: Setting) -> torch.device | None:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu") if setting.tiny else None


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "none, on the CPU"


@benchmark("gpu")
def gpu(setting: Setting) -> Iterator[Row]:
    """Every model on a CUDA card, against torch on the same card and against what the card can."""
    device = _device(setting)
    if device is None:
        return
    peaks = Peaks(device, tiny=setting.tiny)
    for cases, products in CASES.items():
        for on in (False, True) if products else (False,):
            with tf32(on):  # made anew with it: what is compiled or recorded keeps what it met
                for case in cases(setting, device):
                    yield from _rows(case, setting, peaks, device, on)


def _rows(
    case: Case, setting: Setting, peaks: Peaks, device: torch.device, on: bool
) -> Iterator[Row]:
    """One for each form of the baseline and of ours."""
    first, *others = case.ours.items()
    for form, theirs in prepared(case.baselines):
        # What else ours can be is looked at beside the simplest baseline alone.
        for words, ours in (first, *others) if form == next(iter(case.baselines)) else (first,):
            with recordings(device) as recorded:
                row = in_pairs(
                    f"gpu/{case.name}{words}, {form}{', TF32' if on else ''}",
                    case.said[form],
                    theirs,
                    ours,
                    pairs=setting.pairs,
                    scale=(case.their_scale, 1 / case.steps),
                    card=_card(device),
                    steps=case.steps,
                    **case.notes,
                )
            # The work is that of the first.
            work = case.work if ours is first[1] else {}
            shares = peaks.shares(row.ours_s, case.like, on, work)
            yield replace(row, notes=row.notes | shares | recorded)
