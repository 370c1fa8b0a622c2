"""Benchmarks: each against a baseline in the same run, with the spread of the ratio."""

# Importing the files fills BENCHMARKS.
from loraone_theory.bench import gpu, large, linear, peers, peft, relu, sensing, startup, sweep
from loraone_theory.bench.base import BENCHMARKS, Row, Setting, run, stored

__all__ = [
    "BENCHMARKS",
    "Row",
    "Setting",
    "gpu",
    "large",
    "linear",
    "peers",
    "peft",
    "relu",
    "run",
    "sensing",
    "startup",
    "stored",
    "sweep",
]
