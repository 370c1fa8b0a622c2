"""Handwritten digits: where full fine-tuning, LoRA and LoRA-One take a two-layer ReLU network."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loraone_theory import METHODS, agreement, experiment, plotting
from loraone_theory.core import validate
from loraone_theory.experiment import Data, Progress
from loraone_theory.methods import Method
from loraone_theory.nets import digits, networks
from loraone_theory.nets.networks import Training, Weights

NAMES = ("full", "lora", "lora-one")
LAYERS = (0, 1)


# Expect: with the best learning rate of each, LoRA-One's loss falls at once and stays below LoRA's,
# which first has to grow out of B = 0 and passes an unstable phase; full fine-tuning ends lowest.
# At these rates the three end at different minima: in the plane LoRA and LoRA-One leave in other
# directions than full fine-tuning, LoRA-One from one step ahead.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """A network pre-trained on odd digits, fine-tuned on even ones by full-batch descent."""

    trials: int = 8
    """Number of networks; network i has seed i."""
    dtype: str = "float32"
    """Precision of the networks."""
    mnist: str = ""
    """A folder with MNIST's IDX files, in place of scikit-learn's digits."""
    hidden: int = 64
    """Width of the hidden layer."""
    rank: int = 4
    """r, of both layers."""
    pretraining_steps: int = 300
    """Steps of AdamW on batches of odd digits."""
    steps: int = 200
    """Steps of fine-tuning."""
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Each method takes the one with the least mean loss in the end."""
    init_stds: tuple[float, ...] = (0.01, 0.1, 0.3)
    """LoRA's α, tuned in the same way."""
    gammas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """LoRA-One's γ, the learning rate of its one-step initialisation, tuned in the same way."""
    methods: tuple[str, ...] = NAMES
    """Which methods; any of `loraone list` but the flows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.choices("methods", self.methods, METHODS)


# Sums over 64 units; steps near the stability edge magnify rounding 1e1 times, and the axes that
# points are drawn on 3 times more, by the ratio of the variances along them.
TOLERANCE = agreement.tolerance(size=64, growth=3e1, dtype="float32")

SMOKE = Config(
    trials=2,
    pretraining_steps=60,
    steps=20,
    learning_rates=(0.1, 0.3),
    init_stds=(0.1,),
    gammas=(0.3,),
)


def candidates(config: Config, name: str) -> list[tuple[float, Method]]:
    """The settings of a method's initialisation that are tried."""
    if name == "lora":
        return [(std, METHODS[name](init_std=std)) for std in config.init_stds]
    if name == "lora-one":
        return [(gamma, METHODS[name](gamma=gamma)) for gamma in config.gammas]
    return [(np.nan, METHODS[name]())]


def run(config: Config, progress: Progress) -> Data:
    """Loss curves of every method at its best setting, and the first network's trajectory."""
    where = {"device": config.device, "dtype": getattr(torch, config.dtype)}
    even = digits.load("even", mnist=config.mnist).train
    X, labels = even.flat.to(**where), even.labels.to(config.device)
    weights = networks.pretrained(
        digits.load("odd", mnist=config.mnist).train,
        (X.shape[1], config.hidden, digits.CLASSES),
        steps=config.pretraining_steps,
        seeds=range(config.trials),
        **where,
    )
    gradient, start = networks.gradients(weights, X, labels)
    rates = torch.tensor(config.learning_rates, **where).reshape(-1, 1, 1, 1)
    data: Data = {"steps": np.arange(config.steps + 1), "start": start.cpu().numpy()}
    paths = []
    for m, name in enumerate(config.methods):
        best, chosen = np.inf, None
        tried = candidates(config, name)
        for i, (setting, method) in enumerate(tried):
            training = Training(
                method, weights, gradient, LAYERS, rank=config.rank, learning_rate=rates
            )
            curves = training.run(X, labels, config.steps).losses.cpu().numpy()
            progress((m + (i + 1) / len(tried)) / len(config.methods))
            final = np.nan_to_num(curves[-1].mean(-1), nan=np.inf)
            data[f"{name}.final.{i}"] = final
            if final.min() < best:
                best, chosen = float(final.min()), (setting, method, int(final.argmin()))
                data[f"{name}.loss"] = curves[:, chosen[2]]
        assert chosen is not None
        setting, method, index = chosen
        data[f"{name}.chosen"] = np.array([setting, config.learning_rates[index]])
        first = tuple(W[:1] for W in weights)
        paths.append(
            path(
                Training(
                    method,
                    first,
                    tuple(G[:1] for G in gradient),
                    LAYERS,
                    rank=config.rank,
                    learning_rate=config.learning_rates[index],
                ),
                first,
                (X, labels),
                config.steps,
            )
        )
    points, shares = plane(paths)
    ends = np.stack([rows[-1] / np.linalg.norm(rows[-1]) for rows in paths])
    return {**data, "points": points, "shares": shares, "cosines_of_ends": ends @ ends.T}


def path(training: Training, start: Weights, data: tuple[Tensor, Tensor], steps: int) -> np.ndarray:
    """The learned shift of all layers at the start and after every step, as rows."""
    kept = training.run(*data, steps, keep_factors=1).factors
    moved = [
        layer.frozen_weight + kept[i].dense() - start[i] for i, layer in training.layers.items()
    ]
    return torch.cat([shift.flatten(1) for shift in moved], dim=-1).cpu().numpy()


def plane(paths: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The paths (T, n) in their first two principal components, and the shares of variance.

    The origin is the pre-trained weight.
    """
    rows = np.concatenate(paths).astype(np.float64)
    _, S, Vh = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    points = np.stack([p @ Vh[:2].T for p in paths])
    return points, S[:2] ** 2 / (S**2).sum()


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Loss against steps; trajectories in the plane."""
    figure, axes = plotting.figure(1, 2, height=3.1)
    left, right = axes[0]
    for name, points in zip(config.methods, data["points"], strict=True):
        line = plotting.method_style(name)
        setting, rate = data[f"{name}.chosen"]
        tuned = {"lora": rf", $\alpha = {setting:g}$", "lora-one": rf", $\gamma = {setting:g}$"}
        line["label"] += rf", $\eta = {rate:g}$" + tuned.get(name, "")
        plotting.band(left, data["steps"], data[f"{name}.loss"], **line)
        right.plot(*points.T, color=line["color"])
        right.plot(*points[0], marker="o", color=line["color"], markerfacecolor="white")
        right.plot(*points[-1], marker="s", color=line["color"])
    right.plot(0, 0, marker="*", color=plotting.THEORY, markersize=9)
    left.set(xlabel="step $t$", ylabel="loss on even digits", yscale="log")
    shares = 100 * data["shares"]
    right.set(
        xlabel=f"first component ({shares[0]:.0f} %)",
        ylabel=f"second component ({shares[1]:.0f} %)",
    )
    plotting.label_panels((left, right), ("loss", "learned shift, ○ start, ■ end"))
    figure.legend(loc="outside lower center", ncols=1)
    return {"fig_digits_trajectories": figure}
