"""App. C.2: gradient descent from Spectral-init converges linearly, the slower the larger κ."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from loraone_theory import predict
from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.sampling import sample_linear

D, K, SAMPLES, TRUE_RANK, ETA = 30, 20, 960, 3, 0.5
# ‖E‖_F within which the tail is measured.
LOW, HIGH = 1e-11, 1e-6
CONDITION_NUMBERS, FEWER = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), (1.0, 4.0, 16.0)
MORE = 1.15


class Rates(NamedTuple):
    """Rates of the tail of ‖E_t‖_F, measured and predicted, shape (κ, n)."""

    kappas: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray


@functools.lru_cache(maxsize=1)
def _rates(draws: Draws) -> Rates:
    kappas = np.array(FEWER if draws.smoke else CONDITION_NUMBERS)
    measured, predicted = [], []
    for kappa in kappas.tolist():
        problem = sample_linear(
            d=D, k=K, true_rank=TRUE_RANK, samples=SAMPLES, condition_number=kappa,
            seeds=draws.seeds(),
        )  # fmt: skip
        run = simulate(
            problem, "lora-one", rank=TRUE_RANK, learning_rate=ETA, record=("error",),
            steps=int(80 * kappa) + 60,
        )  # fmt: skip
        measured.append(stats.decay_rate(run["error"].numpy(), low=LOW, high=HIGH))
        predicted.append(predict.local_rate(problem, "gd", learning_rate=ETA).numpy())
    return Rates(kappas, np.stack(measured), np.stack(predicted))


def _slope(draws: Draws, *, promised: float) -> Evidence:
    """Slope of ln(1 − rate) against ln κ, one per instance."""
    rates = _rates(draws)
    slopes = stats.slopes(np.log(rates.kappas), np.log(1 - rates.measured))
    numbers = {
        f"mean of (1 − rate)κ at κ = {kappa:g}": float((1 - row).mean() * kappa)
        for kappa, row in zip(rates.kappas, rates.measured, strict=True)
    }
    numbers["slope"] = float(slopes.mean())
    # The predicted (1 − rate)κ is constant up to R₁. The spectrum of Σ̂ ends like a square root, so
    # the slope of ln‖E_t‖ is off by 3/(4t), relatively by R₂ over the window, whatever the rate.
    # Where points of a regression over a span L move within R, its slope moves by 3R/(2L) at most.
    scaled = np.log((1 - rates.predicted) * rates.kappas[:, None])
    first, last = -math.log(HIGH), -math.log(LOW)
    window = 0.75 * math.log(last / first) / (last - first)
    bend = 1.5 * (float(np.ptp(scaled, axis=0).mean()) + window) / math.log(rates.kappas[-1])
    numbers["allowance for the window"] = bend
    return Evidence(slopes, promised, tolerance=bend, numbers=numbers)


def _ratio(draws: Draws, *, factor: float) -> Evidence:
    """(1 − measured)/(1 − predicted), with `factor` times the predicted contraction."""
    rates = _rates(draws)
    # The κ share their instances, so a draw is the mean over them.
    ratio = ((1 - rates.measured) / (1 - rates.predicted)).mean(0) / factor
    numbers = {"mean ratio": float(ratio.mean()), "least": float(ratio.min())}
    # A finite window still sees modes that decay faster than the slowest one.
    return Evidence(ratio, 1.0, tolerance=0.05, numbers=numbers)


_HYPOTHESES = ("linear model", "Spectral-init, r = r*, GD", "η below the stability limit")
_SIZES = (
    f"d = {D}, k = {K}, N = {SAMPLES}, r* = {TRUE_RANK}, η = {ETA}, κ = {listed(CONDITION_NUMBERS)}"
)

CLAIMS = (
    Claim(
        id="lora-one/appendix-c.2",
        aliases=("App. C.2",),
        title="Linear convergence, with a rate that degrades with κ",
        reference="Appendix C.2",
        statement="‖E_t‖_F ∝ rateᵗ with 1 − rate ∝ 1/κ.",
        hypotheses=_HYPOTHESES,
        how=(
            f"{_SIZES}; tail rates of ‖E_t‖_F between {HIGH:g} and {LOW:g}, slope in log–log per "
            "instance."
        ),
        kind="value",
        measure=lambda draws: _slope(draws, promised=-1.0),
        mutant_statement="1 − rate ∝ κ^{−0.94}",
        mutant=lambda draws: _slope(draws, promised=-0.94),
        trials=48,
        smoke_trials=12,
        derivation="3.7",
        figure="fig_condition_number.png",
        uses=("lora-one/theorem-3.3/second", "lora-one/linear/local-rates/gd"),
    ),
    Claim(
        id="lora-one/appendix-c.2/local-rate",
        aliases=("App. C.2/local rate",),
        title="The rate is that of the tangent space",
        reference="Appendix C.2; derivations 3.7",
        statement=(
            "The tail of ‖E_t‖_F contracts by max |1 − ημ|, μ the eigenvalues of "
            "E ↦ Σ̂E BᵀB + AAᵀΣ̂E on {AX + YB} at the balanced solution."
        ),
        hypotheses=_HYPOTHESES,
        how=f"{_SIZES}; measured over predicted contraction, prediction from Σ̂ and Δ alone.",
        kind="value",
        measure=lambda draws: _ratio(draws, factor=1.0),
        mutant_statement=f"{MORE:g} times that contraction",
        mutant=lambda draws: _ratio(draws, factor=MORE),
        trials=48,
        smoke_trials=12,
        derivation="3.7",
        figure="fig_condition_number.png",
        uses=("lora-one/linear/local-rates/gd",),
    ),
)
