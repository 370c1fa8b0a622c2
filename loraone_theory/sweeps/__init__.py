"""Sweeps: runs over axes of problems, methods and their settings, resumable and labelled."""

from loraone_theory.sweeps.measures import Measure
from loraone_theory.sweeps.sweep import Forecast, Sweep, open_sweep, sweep

__all__ = ["Forecast", "Measure", "Sweep", "open_sweep", "sweep"]
