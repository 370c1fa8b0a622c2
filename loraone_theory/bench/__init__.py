"""Benchmarks: each against a baseline in the same run, with the spread of the ratio."""

from loraone_theory.bench.base import BENCHMARKS, Row, Setting, run

# Importing the files fills BENCHMARKS.
from loraone_theory.bench import large, linear, relu  # isort: skip

__all__ = ["BENCHMARKS", "Row", "Setting", "large", "linear", "relu", "run"]
