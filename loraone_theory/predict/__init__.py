"""Closed forms of the linear model: floors, the plateau, linearised dynamics, local rates.

Nothing here looks at a run. `relu` holds the predictions for the ReLU model, `flow` gradient
flow, `stochastic` moments of minibatches.
"""

from loraone_theory.predict import flow, relu, stochastic
from loraone_theory.predict.ahead import outlook
from loraone_theory.predict.best_fit import best_fit, measured_floor
from loraone_theory.predict.contraction import contraction
from loraone_theory.predict.floors import floor, pair_floor, pair_solution
from loraone_theory.predict.linearised import (
    alignment_time,
    linearised,
    linearised_alignment,
    plateau,
)
from loraone_theory.predict.measured import measured_contraction
from loraone_theory.predict.noise import (
    mean_full_floor,
    mean_noise_floor,
    noise_floor,
    surplus,
)
from loraone_theory.predict.one_step import one_step_error
from loraone_theory.predict.rates import Contraction, rates
from loraone_theory.predict.relu_contraction import relu_contraction
from loraone_theory.predict.scaling import best_gamma
from loraone_theory.predict.summary import Summary, summary
from loraone_theory.predict.tangent import (
    best_step,
    largest_stable_step,
    local_rate,
    tangent_extremes,
)
from loraone_theory.predict.tangent_map import RuleName

__all__ = [
    "Contraction",
    "RuleName",
    "Summary",
    "alignment_time",
    "best_fit",
    "best_gamma",
    "best_step",
    "contraction",
    "floor",
    "flow",
    "largest_stable_step",
    "linearised",
    "linearised_alignment",
    "local_rate",
    "mean_full_floor",
    "mean_noise_floor",
    "measured_contraction",
    "measured_floor",
    "noise_floor",
    "one_step_error",
    "outlook",
    "pair_floor",
    "pair_solution",
    "plateau",
    "rates",
    "relu",
    "relu_contraction",
    "stochastic",
    "summary",
    "surplus",
    "tangent_extremes",
]
