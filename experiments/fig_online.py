"""Online descent at widths from 10² to 10⁹: one curve in units of d/b steps."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass

import numpy as np

import loraone_theory as lt
from loraone_theory import agreement, experiment, plotting
from loraone_theory.experiment import Data, Progress, part


# Expect: at η = c·b/d the risk has one law in units of d/b steps whatever the width, which in the
# limit of wide d and b is a small recursion (dashed). Two steps down, one for each singular value,
# the second 1/κ times as fast. When they come is random in the limit too: what b rows mix of the
# inputs off U into the first gradients is as large as the signal there, α√(d/b), for any width.
# Runs of one seed share most of their draws at all widths, so their curves nearly coincide.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Gradient descent from a small LoRA-init on b fresh rows a step."""

    trials: int = 16
    """Number of trials; trial i has seed i."""
    widths: tuple[int, ...] = (10**2, 10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
    """d = k."""
    ratio: int = 20
    """d/b."""
    strength: float = 0.5
    """c = ηd/b."""
    true_rank: int = 2
    """r*."""
    rank: int = 3
    """r."""
    condition_number: float = 2.0
    """κ; the singular values are geometric from 1 to 1/κ."""
    init_std: float = 1e-6
    """α; α√d has to stay small at the largest width."""
    horizon: float = 90.0
    """Length of the runs in units of d/b steps."""
    records: int = 180
    """How many points of each curve to store."""
    levels: tuple[float, ...] = (0.5, 0.01)
    """Relative risks whose times are drawn against the width."""
    limit_draws: int = 400
    """Runs of the limit."""

    @property
    def steps(self) -> int:
        """T."""
        return round(self.horizon * self.ratio)

    @property
    def every(self) -> int:
        """Steps from one record to the next."""
        return max(1, self.steps // self.records)

    @property
    def rate(self) -> float:
        """η."""
        return self.strength / self.ratio

    @property
    def spectrum(self) -> np.ndarray:
        """λ*."""
        return np.geomspace(1, 1 / self.condition_number, self.true_rank)


# Roundings add up over some 2e3 steps; a change of A₀ by a factor moves the risk by its power 2κ,
# and sums in Gram matrices have few terms.
TOLERANCE = agreement.tolerance(size=2000, growth=10.0)

SMOKE = Config(
    trials=2,
    widths=(10**2, 10**4, 10**9),
    condition_number=1.0,
    horizon=45.0,
    ratio=10,
    records=40,
    limit_draws=40,
)


def run(config: Config, progress: Progress) -> Data:
    """Relative risks (time, width, seed) and those of the limit (time, draw)."""
    curves = []
    for i, d in enumerate(config.widths):
        made = lt.simulate_online(
            d=d,
            k=d,
            rank=config.rank,
            true_rank=config.true_rank,
            batch=d // config.ratio,
            learning_rate=config.rate,
            steps=config.steps,
            init_std=config.init_std,
            condition_number=config.condition_number,
            every=config.every,
            seeds=range(config.trials),
        )
        curves.append(made.risk / made.risk[0])
        part(progress, i, len(config.widths))(1)
    return {
        "time": made.steps / config.ratio,
        "risk": np.stack(curves, 1),
        "limit": limit(config),
    }


def limit(config: Config) -> np.ndarray:
    """Relative risks as d, b → ∞ at fixed d/b and α√d → 0, (time, draw).

    With E₁ = A₁B − S Vᵀ, M the Gram matrix of the rest of A, EᵀE = E₁ᵀE₁ + BᵀMB and Gaussian g,
    A₁ ← A₁ − ηE₁Bᵀ, M ← (I − ηBBᵀ)M(I − ηBBᵀ) + η²(d/b)·B EᵀE Bᵀ, and
    B ← B − η(A₁ᵀE₁ + MB) − ηα√(d/b)·gE₁: the rows' mixture of A₀ off U into U.
    """
    S, eta, count = np.diag(config.spectrum), config.rate, config.limit_draws
    source = np.random.default_rng(0)
    A = config.init_std * source.standard_normal((count, config.true_rank, config.rank))
    M = np.zeros((count, config.rank, config.rank))
    B = np.zeros((count, config.rank, config.true_rank))
    found, one = [], np.eye(config.rank)
    mixed = config.init_std * config.ratio**0.5
    for t in range(config.steps + 1):
        A_t, B_t, miss = A.swapaxes(1, 2), B.swapaxes(1, 2), A @ B - S
        square = miss.swapaxes(1, 2) @ miss + B_t @ M @ B
        if t % config.every == 0:
            found.append(np.trace(square, axis1=1, axis2=2))
        keep = one - eta * B @ B_t
        noise = mixed * source.standard_normal((count, config.rank, config.true_rank))
        A, M, B = (
            A - eta * miss @ B_t,
            keep @ M @ keep + eta**2 * config.ratio * B @ square @ B_t,
            B - eta * ((A_t + noise) @ miss + M @ B),
        )
    return np.array(found) / found[0]


def arrival(time: np.ndarray, risk: np.ndarray, level: float) -> np.ndarray:
    """When `risk` (T, ...) first falls to `level`, interpolated in its logarithm; NaN if never."""
    reached = (risk <= level).any(0)
    after = np.maximum((risk <= level).argmax(0), 1)
    before, at = (np.log(np.take_along_axis(risk, (after - i)[None], 0)[0]) for i in (1, 0))
    share = (before - np.log(level)) / np.where(reached, before - at, 1.0)
    return np.where(reached, time[after - 1] + share * (time[after] - time[after - 1]), np.nan)


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """The curves, and when they come to two levels."""
    figure, axes = plotting.figure(1, 2, height=3.3, gridspec_kw={"width_ratios": (1.35, 1)})
    left, right = axes[0]
    shades, time = plotting.sequence(len(config.widths)), data["time"]
    dashes = {"color": "black", "linestyle": (0, (3, 2)), "linewidth": 1.1}
    band = {"color": plotting.THEORY, "alpha": 0.15, "linewidth": 0}
    for i in range(len(config.widths)):
        left.plot(time, np.median(data["risk"][:, i], axis=-1), color=shades[i], linewidth=1.6)
    left.plot(time, np.median(data["limit"], axis=-1), **dashes)
    left.fill_between(time, *np.quantile(data["limit"], [0.1, 0.9], axis=-1), **band)
    left.set(
        yscale="log",
        ylim=(1e-6, 2),
        xlim=(0, time[-1]),
        xlabel=r"rows seen per input, $t\,b/d$",
        ylabel=r"risk$\,/\,$risk at $t=0$",
    )
    widths = np.array(config.widths, dtype=float)
    for level, marker in zip(config.levels, plotting.MARKERS, strict=False):
        times = arrival(time, data["risk"], level)
        for i, d in enumerate(widths):
            look = {"color": shades[i], "marker": marker, "linestyle": "none"}
            plotting.spread(right, np.array([d]), times[i : i + 1], **look)
        limit_times = np.nan_to_num(arrival(time, data["limit"], level), nan=np.inf)
        low, middle, high = np.quantile(limit_times, [0.1, 0.5, 0.9], method="nearest")
        right.axhline(middle, **dashes)
        right.axhspan(low, high, **band)
    right.set(
        xscale="log",
        ylim=(0, time[-1]),
        xlabel="width $d=k$",
        ylabel=r"time to the level, $t\,b/d$",
    )
    plotting.label_panels(axes[0], (rf"risk, $b=d/{config.ratio}$", "time to a level"))
    handles = [
        plotting.key(rf"$d={plotting.power_of_ten(d)}$", color=shades[i], linewidth=1.6)
        for i, d in enumerate(widths)
    ]
    handles.append(plotting.key(r"limit $d\to\infty$", **dashes))
    handles += [
        plotting.key(rf"risk ${100 * level:g}\,\%$", marker=marker, color=plotting.THEORY, ls="")
        for level, marker in zip(config.levels, plotting.MARKERS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_online": figure}
