"""Fig. 2: smaller α aligns better, larger d aligns later and worse."""

from __future__ import annotations

import functools

import numpy as np

from loraone_theory.claims import stats
from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.dynamics.loop import simulate
from loraone_theory.problems.linear.sampling import sample_linear_matrix_free

# The reference notebook's: r*, r, N/d, η, d, steps and α².
TRUE_RANK, RANK, RATIO, RATE, WIDTH, STEPS = 4, 8, 16, 1 / 64, 100, 1500
VARIANCES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
# Of the widths: α² and the steps within which it aligns best, draws a group, and every so many
# steps a record.
WIDTHS, VARIANCE, ENOUGH, GROUP, EVERY, OUTPUTS = (50, 100, 200), 1e-4, 440, 8, 5, 8


def _curves(d: int, variances: tuple[float, ...], seeds: tuple[int, ...], steps: int) -> np.ndarray:
    """Alignment (t, α, seeds), 1 where it is not defined."""
    problem = sample_linear_matrix_free(
        d=d, k=OUTPUTS, true_rank=TRUE_RANK, samples=RATIO * d, seeds=seeds
    )
    run = simulate(
        problem, "lora", rank=RANK, learning_rate=RATE, steps=steps, every=EVERY, seeds=seeds,
        init_std=np.sqrt(variances).tolist(), record=("left_alignment",),
    )  # fmt: skip
    sines = run["left_alignment"].numpy()
    return np.where(np.isnan(sines), 1.0, sines)


def _smaller(draws: Draws, *, swapped: bool) -> Evidence:
    """The median over draws of the best alignment at each α, over that at the next larger one."""
    best = _curves(WIDTH, VARIANCES, draws.seeds(), STEPS).min(0)
    ratio = best[1:] / best[:-1]
    numbers = {
        f"median best alignment at α² = {v:g}": float(np.median(b))
        for v, b in zip(VARIANCES, best, strict=True)
    }
    numbers |= {
        f"share better than the next larger, α² = {v:g}": float((r < 1).mean())
        for v, r in zip(VARIANCES[1:], ratio, strict=True)
    }
    if swapped:
        ratio = np.concatenate([ratio[:-1], 1 / ratio[-1:]])
    return Evidence(ratio.max(0), 1.0, probability=0.5, numbers=numbers)


@functools.lru_cache(maxsize=1)
def _by_width(draws: Draws) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Slopes in ln d of the logarithms of the best alignment and of its time, one a group."""
    depth, time, numbers = [], [], {}
    for d in WIDTHS:
        seeds = draws.seeds(GROUP * draws.trials, block=d)
        sines = _curves(d, (VARIANCE,), seeds, ENOUGH)[:, 0]
        best, when = np.log(sines.min(0)), np.log(EVERY * sines.argmin(0))
        depth.append(best.reshape(draws.trials, GROUP).mean(1))
        time.append(when.reshape(draws.trials, GROUP).mean(1))
        numbers[f"best alignment at d = {d}"] = float(np.exp(best.mean()))
        numbers[f"step of the best alignment at d = {d}"] = float(np.exp(when.mean()))
    slopes = [stats.slopes(np.log(WIDTHS), np.stack(values)) for values in (depth, time)]
    numbers["exponent of the best alignment in d"] = float(slopes[0].mean())
    numbers["exponent of its time in d"] = float(slopes[1].mean())
    return slopes[0], slopes[1], numbers


def _wider(draws: Draws, *, least: float) -> Evidence:
    depth, time, numbers = _by_width(draws)
    return Evidence(least - np.concatenate([depth, time]), 0.0, numbers=numbers)


_HYPOTHESES = ("linear model", "LoRA-init, GD", "r = 2r*")
_SETTING = f"Exact-law instances, N = {RATIO}d, r* = {TRUE_RANK}, r = {RANK}, η = {RATE:g}"

CLAIMS = (
    Claim(
        id="lora-one/figure-2/smaller-alpha",
        title="Smaller α aligns better, at the figure's settings",
        reference="Figure 2, first reading",
        statement=(
            "min_t ‖U_{r*,⊥}(G)ᵀU_{r*}(A_t)‖_op decreases with α over the figure's range; judged "
            "of the median run: with probability at least 1/2 it does from each α to the next."
        ),
        hypotheses=_HYPOTHESES,
        how=f"{_SETTING}, d = {WIDTH}, α² = {listed(VARIANCES)}, {STEPS} steps.",
        kind="probability",
        measure=lambda draws: _smaller(draws, swapped=False),
        mutant_statement="the two smallest α exchanged",
        mutant=lambda draws: _smaller(draws, swapped=True),
        trials=64,
        smoke_trials=24,
        derivation="3.6",
        figure="fig_alignment_scaling.png",
        uses=("lora-one/theorem-3.2/alpha",),
    ),
    Claim(
        id="lora-one/figure-2/larger-d",
        title="Larger d aligns later and worse, at the figure's settings",
        reference="Figure 2, second reading",
        statement=(
            "The best alignment and the step at which it is reached both increase with d: their "
            "exponents in d are at least 0."
        ),
        hypotheses=(*_HYPOTHESES, f"α² = {VARIANCE:g}"),
        how=(
            f"{_SETTING}, d = {listed(WIDTHS)}, {ENOUGH} steps; means of logarithms over groups of "
            f"{GROUP} draws, a slope in log–log for each group."
        ),
        kind="bound",
        measure=lambda draws: _wider(draws, least=0.0),
        mutant_statement="both exponents are at least 1/3, that of α → 0",
        mutant=lambda draws: _wider(draws, least=1 / 3),
        trials=6,
        smoke_trials=2,
        derivation="3.6",
        figure="fig_alignment_scaling.png",
        uses=("lora-one/theorem-3.2/alignment-in-d", "lora-one/theorem-3.2/time-in-d"),
    ),
)
