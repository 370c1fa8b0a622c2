"""The controls of the page and the settings that their values stand for."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from loraone_theory.core.extras import extra
from loraone_theory.explore.settings import ENSEMBLES, MOST_SEEDS, Settings
from loraone_theory.methods import METHODS

with extra("explore"):
    import marimo as mo

OWN_SIZE = 1e-2  # α of the methods themselves
# Of labels: that of the longest.
WIDTH = "display: inline-block; min-width: 8.7em"
OF_BEST, ABSOLUTE = "of the predicted best", "absolute"

# Model -> what it starts with.
STARTS: dict[str, Settings] = {
    "linear": Settings(),
    "relu": Settings(
        model="relu", methods=("lora-one-preconditioned", "lora"), d=24, k=20, true_rank=2, rank=2
    ),
    "sensing": Settings(
        model="sensing", ensemble="dense", d=14, k=14, true_rank=2, rank=2, ratio=5.0, steps=200
    ),
}
RATIO_LABELS = {"sensing": "m / r*(d + k − r*)"}
KAPPAS = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0]
RATIOS = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0]
NOISES = [0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
SHIFTS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0]


def _logarithmic(low: int, high: int) -> list[float]:
    """1, 2 and 5 times the powers of ten from 10^low to 10^high."""
    found = [float(f"{m}e{p}") for p in range(low, high) for m in (1, 2, 5)]
    return [*found, float(f"1e{high}")]


def model() -> Any:
    """The choice that the others depend on."""
    return mo.ui.dropdown(list(ENSEMBLES), value="linear", label=_kept("model"))


class Controls(NamedTuple):
    """The controls below the model, in the order of the page.

    Each is a variable of the page: marimo loses changes of a dictionary of controls that come
    while it computes.
    """

    ensemble: Any
    methods: Any
    rank: Any
    true_rank: Any
    condition_number: Any
    ratio: Any
    infinite: Any
    noise_std: Any
    relative_shift: Any
    step: Any
    fraction: Any
    learning_rate: Any
    init_std: Any
    d: Any
    k: Any
    steps: Any
    trials: Any
    first: Any


# Controls that have no meaning in a model, and are not shown there.
HIDDEN = {"linear": {"relative_shift"}, "relu": set(), "sensing": {"relative_shift", "infinite"}}


def controls(model: str) -> Controls:
    """The controls of a model, at its start."""
    start, ui = STARTS[model], mo.ui
    return Controls(
        ensemble=ui.dropdown(list(ENSEMBLES[model]), value=start.ensemble, label=_kept("ensemble")),
        methods=ui.multiselect(list(METHODS), value=list(start.methods), label=_kept("methods")),
        rank=_whole("rank r", 1, 16, start.rank),
        true_rank=_whole("true rank r*", 1, 16, start.true_rank),
        condition_number=_steps("condition number κ", KAPPAS, start.condition_number),
        ratio=_steps(RATIO_LABELS.get(model, "samples N / d"), RATIOS, start.ratio),
        infinite=ui.checkbox(label="N = ∞"),
        noise_std=_steps("label noise σ", NOISES, start.noise_std),
        relative_shift=_steps("relative shift c", SHIFTS, start.relative_shift),
        step=ui.dropdown([OF_BEST, ABSOLUTE], value=OF_BEST, label=_kept("step size")),
        fraction=_steps("η / best η", [round(0.05 * i, 2) for i in range(1, 41)], 0.5),
        learning_rate=_steps("absolute η", _logarithmic(-3, 1), start.learning_rate),
        init_std=_steps("initial size α", _logarithmic(-6, 0), OWN_SIZE),
        d=_whole("d", 2, 100, start.d),
        k=_whole("k", 2, 100, start.k),
        steps=_whole("steps", 20, 1000, start.steps, by=20),
        trials=_whole("seeds", 1, MOST_SEEDS, len(start.seeds)),
        first=ui.number(0, 10**6, value=start.seeds[0], step=1, label=_kept("first seed")),
    )


def _whole(label: str, low: int, high: int, value: int, *, by: int = 1) -> Any:
    return mo.ui.slider(low, high, value=value, step=by, label=_kept(label), show_value=True)


def _steps(label: str, values: list[float], value: float) -> Any:
    return mo.ui.slider(steps=values, value=value, label=_kept(label), show_value=True)


def _kept(label: str) -> str:
    """The label on one line, all as wide as the longest, so that what follows is aligned.

    It is read as Markdown, in which a star would open emphasis.
    """
    words = label.replace(" ", "\u00a0").replace("*", "&#42;")
    return f'<span style="{WIDTH}">{words}</span>'


def laid_out(model: Any, chosen: Controls) -> Any:
    """The controls of the model in one column."""
    hidden = HIDDEN[model.value]
    shown = [each for name, each in chosen._asdict().items() if name not in hidden]
    return mo.vstack([model, *shown], gap=0.4)


def settings(model: str, chosen: Controls) -> Settings:
    """What the values of the controls stand for."""
    values = Controls(*(each.value for each in chosen))
    first, count = int(values.first), int(values.trials)
    size = float(values.init_std)
    return Settings(
        model=model,
        ensemble=values.ensemble,
        methods=tuple(values.methods),
        d=int(values.d),
        k=int(values.k),
        rank=int(values.rank),
        true_rank=int(values.true_rank),
        condition_number=float(values.condition_number),
        ratio=math.inf if values.infinite else float(values.ratio),
        noise_std=float(values.noise_std),
        relative_shift=float(values.relative_shift),
        fraction=float(values.fraction) if values.step == OF_BEST else None,
        learning_rate=float(values.learning_rate),
        init_std=None if size == OWN_SIZE else size,
        steps=int(values.steps),
        seeds=tuple(range(first, first + count)),
    )
