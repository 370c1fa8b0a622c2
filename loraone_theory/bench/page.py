"""From benchmark rows to docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loraone_theory.bench.base import Row

_INTRODUCTION = """\
# Performance

Written by `loraone bench --json {source} --page docs/performance.md` from the rows of that file.
Each ratio is the median, over pairs timed in alternation, of baseline seconds by ours; the spread
gives the smallest and the largest. Machine: {platform}, {cores} cores; torch {torch}.

"""

_HEADING = """\
| benchmark | baseline | baseline | ours | ratio | spread |
| --- | --- | ---: | ---: | ---: | ---: |
"""

_NO_CARD = """
No CUDA card has been timed: `benchmarks/gpu.sh` does it where there is one.
"""

_CARD = """
## On a CUDA card

By `benchmarks/gpu.sh` on one {card}, {cores} cores beside it; torch {torch}. The step loop is
recorded once as a CUDA graph and replayed where rule and problem allow it.

"""

_READING = """
## How to read the rows

- **notebook**: the reference experiment (d = k = 100, N = 1600, r = 8, r* = 4, five init sizes,
  1500 steps; loss, risk and alignment at every step) against the loop one would write over X, W
  and Y with a complete SVD for each alignment. Ours includes the covariance and the reduction.
- **wide**: seconds per step at d = k = 1000, N = 16,000; the one-off reduction is in the notes.
- **autograd**: one run of the reference experiment against torch autograd and torch.optim.SGD.
- **batch**: seconds per run as runs are added to one batch; the ratio is against a single run.
- **scaling-d**: seconds per step against the memory roofline: the bytes that a step must read and
  write (A twice, the target, the covariance) divided by the copy bandwidth measured in the same
  run. A ratio of 0.5 is twice the roofline; above 1 the data stay in cache between steps.
- **setup**: drawing an instance and the extremes of its covariance's spectrum, in a process of its
  own: X, Σ̂ and an eigendecomposition against exact-law sampling; peak memory is in the notes.
- **million**: whole runs in a process of their own, sampling and spectrum included.
- **relu**, **relu-population**: one step of the ReLU model on one thread, the start of the run
  spread over its steps, XW at hand on both sides; compiled: by engine="numba".
- **sensing**: seconds per step on one thread, our initialisation included, against the plain loop
  of each ensemble; dense sensing goes by K = 𝒜*𝒜/m, made anew in each run, and the row of autograd
  is of a run too short for that.
- **lazy**: whole runs whose measurements are drawn as they go; bytes held against those of the
  operator in the notes; online descent at d = k = 10⁹ beside a plain loop at a width that fits.
- **sweep**: a sweep by two processes, their start included, against the same sweep by one, and
  against loops that one would write; what a cell costs beyond its computation is in the notes.
- **sweep-memory**: the most memory of the process that hands out cells without work in them, after
  a tenth of them and at the end, in the notes.
- **startup**: a fresh process that imports the library, or runs `loraone --help` or `loraone list`,
  against one that imports what they need anyway; the seconds added are in the notes.
- **peers**: the reference experiment in float64 as one would write it with other tools, against
  each of our engines, all on one thread in a process of their own: JAX (jit of vmap over the init
  sizes of a scan over the steps) over X with singular value decompositions, with Σ̂ formed once,
  and with angles by Gram matrices; torch.compile of a step of the plain loop; and a numba loop over
  the reduced coordinates, near what the arithmetic costs. Everything from X and Δ on is included.
  The notes have the first run, which compiles (ours finds its compiled loops on disk), how many
  steps were timed where a form is too slow for all of them, and which peers were not installed. A
  ratio below 1 is a peer that is ahead.
- **gpu**: the same kinds of row on a card, each against torch on that card: an eager loop; a step
  by torch.compile; and that step recorded as a CUDA graph together with its log, which launches no
  more than a scan compiled by JAX would. The loss of every step is recorded on both sides, and both
  start from the same factors (the notebook's from some of the same sizes). What both keep from run
  to run is not timed: Σ̂ or X on the card, and XW; ours finds its reduction there in "batch of n"
  and "step at d" (a whole run has "included" in its name, and "unreduced" multiplies by Σ̂ as the
  baseline does), makes 𝒜*𝒜/m anew in every run, and its graph too, which the baseline has ready.
  PEFT's estimation hands gradients over on the host; a plain backward pass is beside it with and
  without that copy. "TF32": both sides with it. The notes have the shares of the card's measured
  copy bandwidth, where a step does not fit into its cache, and of what its large products reach;
  and how many of our steps were recorded as graphs meanwhile, and how many the card refused; a
  form of the baseline that does not compile there is named as left_out.
  Rows that name no form after the sizes are of a run before these were added; there "batch of n"
  compares a whole run with bare steps.

## Notes of the rows

"""


def seconds(value: float | None) -> str:
    """Three digits with a unit."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def ratio(value: float | None) -> str:
    """Three digits and ×, or nothing."""
    return "" if value is None else f"{value:.3g}×"


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    spread = "" if row.ratio_spread is None else " – ".join(ratio(v) for v in row.ratio_spread)
    times = (seconds(row.baseline_s), seconds(row.ours_s))
    return (row.name, row.baseline, *times, ratio(row.ratio), spread)


def render(stored: Mapping[str, Any], *, source: str, card: Mapping[str, Any] | None = None) -> str:
    """The whole page from what `bench.run` stored; `card`: what benchmarks/gpu.sh stored, if ever.

    On the page a card's rows stand apart, with the machine that they were made on; a file without
    rows is that of no card.
    """
    text = _INTRODUCTION.format(source=source, **_machine(stored)) + _HEADING
    rows = [Row(**row) for row in stored["rows"]]
    text += "".join(f"| {' | '.join(cells(row))} |\n" for row in rows)
    if card is None or not card["rows"]:
        text += _NO_CARD
    else:
        on_card = [Row(**row) for row in card["rows"]]
        text += _CARD.format(card=on_card[0].notes["card"], **_machine(card)) + _HEADING
        text += "".join(f"| {' | '.join(cells(row))} |\n" for row in on_card)
        rows += on_card
    text += _READING
    for row in rows:
        notes = ", ".join(f"{name} = {_plain(value)}" for name, value in row.notes.items())
        text += f"- {row.name}: {notes}\n"
    return text


def _machine(stored: Mapping[str, Any]) -> dict[str, Any]:
    made = stored["made_with"]
    return {
        "platform": made["platform"],
        "cores": made["cores"],
        "torch": made["versions"]["torch"],
    }


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
