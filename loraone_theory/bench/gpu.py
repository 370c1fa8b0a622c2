"""Benchmarks on a CUDA card, each against torch on the same card; at tiny size on the CPU too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from loraone_theory.bench.base import Row, Setting, benchmark, in_pairs
from loraone_theory.bench.gpu_case import Case
from loraone_theory.bench.gpu_linear import batches, notebook, single, widest
from loraone_theory.bench.gpu_loops import Peaks, prepared, recordings, tf32
from loraone_theory.bench.gpu_products import estimation, relu, sensing
from loraone_theory.core.extras import Unavailable

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


def _device(setting: Setting) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if not setting.tiny:
        raise Unavailable(
            "benchmark 'gpu' is timed on a CUDA card, and torch sees none; run it where there is "
            "one, or at tiny size to see that it runs"
        )
    return torch.device("cpu")


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "none, on the CPU"


@benchmark("gpu")
def gpu(setting: Setting) -> Iterator[Row]:
    """Every model on a CUDA card, against torch on the same card and against what the card can."""
    device = _device(setting)
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
    forms, absent = prepared(case.baselines)
    left_out = {"left_out": absent} if absent else {}
    for form, theirs in forms.items():
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
            yield replace(row, notes=row.notes | shares | recorded | left_out)
