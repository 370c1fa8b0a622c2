"""Benchmarks of set-up and of the widest runs, each in a process of its own for its peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from loraone_theory.bench.base import Row, Setting, benchmark

_PRELUDE = """
import json, resource, sys, time
import loraone_theory as lt
lt.sample_linear_matrix_free, lt.reduce, lt.simulate  # loaded when they are first named
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{body}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({{"seconds": seconds, "peak_bytes": peak * unit, "import_bytes": before * unit}}))
"""


def in_process(body: str) -> dict[str, Any]:
    """Run statements in a fresh interpreter: seconds, and the peak memory of the process."""
    code = _PRELUDE.format(body=body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@benchmark("setup")
def set_up(setting: Setting) -> Iterator[Row]:
    """Drawing an instance and its covariance's extremes: X and its eigenbasis, or exact in law."""
    for d in (60,) if setting.tiny else (1000, 3000):
        sizes = f"d={d}, k={d}, true_rank=4, samples={16 * d}"
        direct = f"lt.reduce(lt.sample_linear({sizes})).problem.covariance_spectrum()"
        free = f"lt.reduce(lt.sample_linear_matrix_free({sizes})).problem.covariance_spectrum()"
        times = []
        for _ in range(1 if setting.tiny else 3):
            times.append((in_process(direct), in_process(free)))
        ratios = sorted(a["seconds"] / b["seconds"] for a, b in times)
        middle = len(times) // 2
        yield Row(
            f"setup/d = {d}",
            "X, its covariance and an eigendecomposition",
            sorted(a["seconds"] for a, _ in times)[middle],
            sorted(b["seconds"] for _, b in times)[middle],
            ratios[middle],
            (ratios[0], ratios[-1]),
            {
                "N": 16 * d,
                "baseline_peak_bytes": times[0][0]["peak_bytes"],
                "ours_peak_bytes": times[0][1]["peak_bytes"],
                "import_bytes": times[0][1]["import_bytes"],
                "pairs": len(times),
            },
        )


@benchmark("million")
def million(setting: Setting) -> Iterator[Row]:
    """Whole runs at d up to 1,000,000: sampling, 1000 steps, loss, risk and both alignments."""
    cases = ((1000, 100, 1),) if setting.tiny else ((100_000, 1000, 1), (1_000_000, 1000, 10))
    for d, steps, every in cases:
        body = (
            f"p = lt.sample_linear_matrix_free(d={d}, k={d}, true_rank=4, samples={16 * d})\n"
            "p.covariance_spectrum()\n"
            f"lt.simulate(p, 'lora', rank=8, learning_rate=1 / 64, steps={steps}, every={every}, "
            "record=('loss', 'risk', 'left_alignment', 'right_alignment'))"
        )
        found = in_process(body)
        yield Row(
            f"million/d = {d}",
            "none",
            None,
            found["seconds"],
            notes={
                "N": 16 * d,
                "r": 8,
                "true_rank": 4,
                "steps": steps,
                "recorded_every": every,
                "peak_bytes": found["peak_bytes"],
            },
        )
