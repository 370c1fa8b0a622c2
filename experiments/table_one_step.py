"""Handwritten digits: is one step of the full gradient enough, and what does training add."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory import METHODS, agreement, experiment, plotting
from loraone_theory.core import linalg, validate
from loraone_theory.core.randomness import generator
from loraone_theory.experiment import Data, Progress, part
from loraone_theory.methods import Method
from loraone_theory.nets import digits, networks
from loraone_theory.nets.digits import Split
from loraone_theory.nets.networks import Training, Weights

# The head keeps its pre-trained weight: with 5 columns it has no room for LoRA-GA's 2r directions.
ADAPTED = (0, 1)
SCALE = 2.0
STEP_ROWS = ("pre-trained", "one full-gradient step", "its best rank-r part, small batch")
LABELS = {
    "lora": "LoRA",
    "lora+": "LoRA+",
    "p-lora": "P-LoRA",
    "pissa": "PiSSA",
    "lora-ga": "LoRA-GA",
    "lora-pro": "LoRA-Pro",
    "lora-one": "LoRA-One",
}
# Those whose initialisation needs the full gradient of a batch.
FROM_GRADIENT = ("lora-ga", "lora-one")


# Expect: one step is not enough here. It lifts accuracy from about 0.24 to 0.38, its rank-r part
# from a small batch to 0.27, and training to 0.98 or more. Once each method has its own learning
# rate they are within a standard deviation or two of each other, LoRA and LoRA-One first.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """A three-layer ReLU network pre-trained on odd digits; AdamW on even ones."""

    trials: int = 5
    """Number of networks; network i has seed i."""
    dtype: str = "float32"
    """Precision of the networks."""
    mnist: str = ""
    """A folder with MNIST's IDX files, in place of scikit-learn's digits."""
    hidden: int = 64
    """Width of both hidden layers."""
    rank: int = 4
    """r, of both adapted layers."""
    batch: int = 64
    """Images in a batch of training."""
    small_batch: int = 32
    """Images that the rank-r step and the data-driven initialisations see."""
    pretraining_steps: int = 300
    """Steps of AdamW on odd digits."""
    steps: int = 120
    """Steps of fine-tuning."""
    step_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates tried for the single steps."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    """Learning rates tried for every trained method."""
    damping: float = experiment.knob(1e-6, least=0)
    """λ of P-LoRA."""
    ratio: float = 16.0
    """λ of LoRA+, how much larger B's rate is."""
    methods: tuple[str, ...] = tuple(LABELS)
    """Which methods are trained; the default is all that the table has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.choices("methods", self.methods, LABELS)


# Sums over batches of 64; AdamW divides small gradients by their size: growth 1e1.
TOLERANCE = agreement.tolerance(size=64, growth=1e1, dtype="float32")

SMOKE = Config(
    trials=2, pretraining_steps=60, steps=10, step_rates=(0.1, 1.0), learning_rates=(3e-3, 1e-2)
)


def comparable(data: Data) -> Data:
    """Without the validation losses of the sweep over rates.

    At its large rates AdamW follows rounding, and the losses are those of other networks. The
    accuracies, of the tuned rates, count images: TOLERANCE lets a few of them turn.
    """
    return {name: array for name, array in data.items() if not name.endswith("validation_loss")}


def methods(config: Config, gamma: float) -> dict[str, Method]:
    """The trained methods; γ of LoRA-One is the tuned rate of the rank-r step."""
    start: dict[str, Any] = {"scale": SCALE, "init_std": "kaiming"}
    made = {
        "lora": METHODS["lora-adamw"](**start),
        "lora+": METHODS["lora+-adamw"](ratio=config.ratio, **start),
        "p-lora": METHODS["p-lora-adamw"](**start),
        "pissa": METHODS["pissa"](scale=SCALE).trained_by("adamw"),
        "lora-ga": METHODS["lora-ga"](scale=SCALE).trained_by("adamw"),
        "lora-pro": METHODS["lora-pro-adamw"](**start),
        "lora-one": METHODS["lora-one-adamw"](gamma=gamma, scale=SCALE),
    }
    return {name: made[name] for name in config.methods}


def run(config: Config, progress: Progress) -> Data:
    """Test accuracies (rows, seeds), tuned rates, and what each row costs."""
    like = torch.empty(0, dtype=getattr(torch, config.dtype), device=config.device)
    even = digits.load("even", mnist=config.mnist)
    weights = networks.pretrained(
        digits.load("odd", mnist=config.mnist).train,
        (even.train.flat.shape[1], config.hidden, config.hidden, digits.CLASSES),
        steps=config.pretraining_steps,
        seeds=range(config.trials),
        dtype=like.dtype,
        device=config.device,
    )
    whole = networks.gradients(weights, *networks.inputs(even.train, like))[0]
    few = even.train.batch(config.small_batch, generator(0, "small batch"))
    small = networks.gradients(weights, *networks.inputs(few, like))[0]
    parts = tuple(
        best_part(G, config.rank) if i in ADAPTED else torch.zeros_like(G)
        for i, G in enumerate(small)
    )
    none = tuple(torch.zeros_like(G) for G in whole)
    full = tuple(G if i in ADAPTED else none[i] for i, G in enumerate(whole))

    size = sum(G[0].numel() * G.element_size() for i, G in enumerate(whole) if i in ADAPTED)
    accuracy, rates, seconds, held, once = [], [], [], [], []
    for direction, cost in ((none, 0), (full, size), (parts, size)):
        started = time.process_time()
        rate, found = one_step(config, weights, direction, even, like)
        seconds.append((time.process_time() - started) / len(config.step_rates) / config.trials)
        accuracy.append(found)
        rates.append(rate if cost else np.nan)
        held.append(0)
        once.append(cost)
    gamma = rates[-1]
    tried = methods(config, gamma)
    tuning = {}
    for m, (name, method) in enumerate(tried.items()):
        done = part(progress, m, len(tried))
        grid = torch.tensor(config.learning_rates).to(like).reshape(-1, 1, 1, 1)
        training = fine_tuned(config, method, weights, small, grid, even.train, like)
        loss = networks.losses(training.weights, *networks.inputs(even.validation, like)).mean(-1)
        tuning[f"{name}.validation_loss"] = loss.cpu().numpy()
        index = int(np.nan_to_num(tuning[f"{name}.validation_loss"], nan=np.inf).argmin())
        done(0)
        started = time.process_time()
        rate = config.learning_rates[index]
        training = fine_tuned(config, method, weights, small, rate, even.train, like)
        seconds.append((time.process_time() - started) / config.trials)
        accuracy.append(tested(training.weights, even.test, like))
        rates.append(rate)
        held.append(training.bytes_held() // config.trials)
        once.append(size if name in FROM_GRADIENT else 0)
        done(1)
    return {
        "rows": np.array([*STEP_ROWS, *(LABELS[name] for name in tried)]),
        "accuracy": np.stack(accuracy),
        "rate": np.array(rates),
        "seconds": np.array(seconds),
        "bytes_in_training": np.array(held),
        "bytes_of_gradient": np.array(once),
        **tuning,
    }


def best_part(G: Tensor, rank: int) -> Tensor:
    """The best rank-`rank` approximation of (..., d, k)."""
    U, S, V = linalg.truncated_svd(G, rank)
    return (U * S[..., None, :]) @ V.mT


def one_step(
    config: Config, weights: Weights, direction: Weights, data: digits.Digits, like: Tensor
) -> tuple[float, np.ndarray]:
    """The rate of W − η·direction with the least validation loss, and test accuracies there."""
    losses = []
    for rate in config.step_rates:
        moved = tuple(W - rate * D for W, D in zip(weights, direction, strict=True))
        found = networks.losses(moved, *networks.inputs(data.validation, like))
        losses.append(float(found.mean()))
    rate = config.step_rates[int(np.argmin(losses))]
    moved = tuple(W - rate * D for W, D in zip(weights, direction, strict=True))
    return rate, tested(moved, data.test, like)


def fine_tuned(
    config: Config,
    method: Method,
    weights: Weights,
    gradient: Weights,
    rate: float | Tensor,
    data: Split,
    like: Tensor,
) -> Training:
    """A method after its steps; all see the same batches."""
    training = Training(
        method,
        weights,
        gradient,
        ADAPTED,
        rank=config.rank,
        learning_rate=rate,
        damping=config.damping if method.facts.inverts else 0.0,
    )
    rng = generator(0, "fine-tuning batches")
    for _ in range(config.steps):
        training.step(*networks.inputs(data.batch(config.batch, rng), like))
    return training


def tested(weights: Weights, data: Split, like: Tensor) -> np.ndarray:
    """Test accuracy of every network."""
    return networks.accuracies(weights, *networks.inputs(data, like)).cpu().numpy()


def deviation(values: np.ndarray) -> float:
    """Standard deviation of a sample; of a single value nothing is known."""
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def tables(data: Data, config: Config) -> dict[str, list[dict[str, Any]]]:
    """The table, a row for each way to fine-tune."""
    columns = zip(
        data["rows"],
        data["accuracy"],
        data["rate"],
        data["seconds"],
        data["bytes_in_training"],
        data["bytes_of_gradient"],
        strict=True,
    )
    return {
        "table_one_step": [
            {
                "method": str(name),
                "accuracy": f"{accuracy.mean():.3f} ± {deviation(accuracy):.3f}",
                "learning rate": "–" if np.isnan(rate) else f"{rate:g}",
                "CPU seconds per network": f"{seconds:.3f}",
                "KiB in training": f"{held / 1024:.1f}",
                "KiB of gradient at the start": f"{once / 1024:.1f}",
            }
            for name, accuracy, rate, seconds, held, once in columns
        ]
    }


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Accuracy of every row, each network a point."""
    names = [str(name) for name in data["rows"]]
    figure, axes = plotting.figure(height=0.5 + 0.25 * len(names))
    ax = axes[0, 0]
    places = np.arange(len(names))[::-1]
    for place, accuracy in zip(places, data["accuracy"], strict=True):
        ax.plot(accuracy, np.full(len(accuracy), place), "o", color=plotting.THEORY, alpha=0.35)
        ax.errorbar(
            accuracy.mean(),
            place,
            xerr=accuracy.std(ddof=1),
            fmt="s",
            color=plotting.sequence(2)[0],
        )
    ax.set_yticks(places, names)
    ax.set(xlabel="test accuracy on even digits (mean ± deviation)")
    return {"table_one_step": figure}
