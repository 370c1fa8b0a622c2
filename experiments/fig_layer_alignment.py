"""Handwritten digits: alignment of LoRA and LoRA-One by layer class of a vision transformer."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long, so that they can be interrupted
    from loraone_theory.cli import script

    sys.exit(script(__file__))

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from loraone_theory import agreement, experiment, plotting
from loraone_theory.core.extras import extra
from loraone_theory.core.randomness import generator, torch_seed
from loraone_theory.experiment import Data, Progress
from loraone_theory.integrations.alignment import AlignmentTracker
from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    get_lora_one_gradients,
    initialize_lora_one_weights,
)
from loraone_theory.nets import digits
from loraone_theory.nets.digits import Split

with extra("peft"):
    from peft import LoraConfig, get_peft_model
    from transformers import ViTConfig, ViTForImageClassification

METHODS = ("lora", "lora-one")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")
SIDES = ("left", "right")


# Expect: LoRA-One at zero when it starts, and drifting away under AdamW: sines of 0.5 to 0.9 at
# step 40, of 0.7 to 0.97 at the end, below LoRA's in most classes. Vanilla LoRA's leading direction
# on the left comes down from 0.98 to between 0.74 and 0.89 by step 40 and then mostly turns back;
# its four leading ones stay above 0.98.
@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """A transformer pre-trained on odd digits, adapters trained by AdamW on even ones."""

    trials: int = 3
    """Number of networks; network i has seed i."""
    dtype: str = "float32"
    """Precision of the networks."""
    mnist: str = ""
    """A folder with MNIST's IDX files, in place of scikit-learn's digits."""
    width: int = 48
    """Width of the residual stream; the hidden layers of the blocks have twice as much."""
    blocks: int = 3
    """Number of transformer blocks."""
    patch: int = 2
    """Pixels along a side of a patch."""
    batch: int = 64
    """Images in a batch."""
    pretraining_steps: int = 250
    """Steps of AdamW on all weights."""
    pretraining_rate: float = 3e-3
    """Its learning rate."""
    gradient_batches: int = 8
    """Batches that the one-step gradient is averaged over."""
    steps: int = 240
    """Steps of fine-tuning."""
    learning_rate: float = 1e-3
    """AdamW's, for both methods."""
    rank: int = 8
    """r, of every adapter; its scale is 2."""
    compared: tuple[int, ...] = (1, 4)
    """p: leading directions of factors and gradient that are compared."""
    gamma: float = 16.0
    """γ of LoRA-One's released initialisation."""
    every: int = 4
    """The alignment is measured once in so many steps."""


# Sums over 48 units; AdamW divides small gradients by their size: growth 1e1.
TOLERANCE = agreement.tolerance(size=48, growth=1e1, dtype="float32")

SMOKE = Config(
    trials=1,
    width=16,
    blocks=2,
    pretraining_steps=10,
    gradient_batches=2,
    steps=6,
    batch=16,
    rank=4,
    compared=(1, 2),
    every=2,
)


def run(config: Config, progress: Progress) -> Data:
    """Mean sines by class, and losses, of both methods on every network."""
    odd, even = (digits.load(parity, mnist=config.mnist).train for parity in ("odd", "even"))
    sines: dict[tuple[str, int], list[dict[str, np.ndarray]]] = {}
    losses = np.zeros((len(METHODS), config.trials, config.steps))
    before = np.zeros((config.trials, 2))
    share = 1 / (config.trials * (1 + len(METHODS)))
    for seed in range(config.trials):
        model = network(config, odd, seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.pretraining_rate)
        feed = batches(config, odd, config.pretraining_steps, f"pre-training {seed}")
        falling = train(model, optimizer, feed)
        before[seed] = falling[0], falling[-1]
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        progress(share * (1 + len(METHODS)) * (seed + 1 / (1 + len(METHODS))))
        for m, method in enumerate(METHODS):
            model = network(config, odd, seed)
            model.load_state_dict(weights)
            tuned, trackers = adapted(config, model, even, method, seed)
            trained = [p for p in tuned.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=config.learning_rate)
            feed = batches(config, even, config.steps, f"fine-tuning {seed}")
            losses[m, seed] = train(
                tuned, optimizer, feed, lambda found=trackers: [t.step() for t in found]
            )
            for p, tracker in zip(config.compared, trackers, strict=True):
                for side in SIDES:
                    found = sines.setdefault((f"{method}.{side}", p), [])
                    found.append(tracker.curves(side))  # type: ignore[arg-type]
            progress(share * ((1 + len(METHODS)) * seed + 2 + m))
    classes = list(next(iter(sines.values()))[0])
    steps = next(iter(sines.values()))[0][classes[0]][:, 0]
    data: Data = {
        "classes": np.array(classes),
        "steps": steps.astype(np.int64),
        "loss": losses,
        "pretraining_loss": before,
    }
    for (name, p), curves in sines.items():  # (steps, classes, seeds)
        data[f"{name}.{p}"] = np.stack(
            [np.stack([curve[kind][:, 1] for kind in classes], -1) for curve in curves], -1
        )
    return data


def network(config: Config, data: Split, seed: int) -> nn.Module:
    """A fresh transformer, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "transformer"))
        made = ViTForImageClassification(
            ViTConfig(
                hidden_size=config.width,
                intermediate_size=2 * config.width,
                num_hidden_layers=config.blocks,
                num_attention_heads=4,
                image_size=data.images.shape[-1],
                patch_size=config.patch,
                num_channels=1,
                num_labels=digits.CLASSES,
            )
        )
    return made.to(device=config.device, dtype=getattr(torch, config.dtype))


def batches(config: Config, data: Split, steps: int, stream: str) -> Iterator[dict[str, Tensor]]:
    """Random batches as the transformer takes them."""
    rng = generator(0, stream)
    for _ in range(steps):
        images, labels = data.batch(config.batch, rng)
        images = images[:, None].to(device=config.device, dtype=getattr(torch, config.dtype))
        yield {"pixel_values": images, "labels": labels.to(config.device)}


def adapted(
    config: Config, model: nn.Module, data: Split, method: str, seed: int
) -> tuple[nn.Module, list[AlignmentTracker]]:
    """The model with its adapter initialised, and a tracker for each number of directions."""
    lora = LoraConfig(r=config.rank, lora_alpha=2 * config.rank, target_modules=list(TARGETS))
    feed = batches(config, data, config.gradient_batches, f"gradient {seed}")
    gradients = get_lora_one_gradients(
        model,
        lora,
        lambda: model(**next(feed)).loss.backward(),
        num_batches=config.gradient_batches,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "adapter"))
        tuned = get_peft_model(model, lora)  # type: ignore[arg-type]
    if method == "lora-one":
        initialize_lora_one_weights(tuned, gradients, LoRAOneConfig(gamma=config.gamma))
    trackers = [
        AlignmentTracker(tuned, gradients, rank=p, every=config.every) for p in config.compared
    ]
    for tracker in trackers:
        tracker.step()
    return tuned, trackers


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    feed: Iterator[dict[str, Tensor]],
    after_step: Callable[[], object] = lambda: None,
) -> list[float]:
    """A step for each batch; the losses before them."""
    losses = []
    for batch in feed:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        after_step()
        losses.append(loss.item())
    return losses


def comparable(data: Data) -> Data:
    """What is there before pretraining.

    Torch's normal numbers are 5e-7 apart between vector units, and the 250 steps of AdamW magnify
    that to size 1, in float64 too: other networks, whose figures agree in their features alone.
    """
    return {"classes": data["classes"], "loss at the start": data["pretraining_loss"][:, 0]}


def plot(data: Data, config: Config) -> dict[str, plotting.Figure]:
    """Mean sine by class against steps: a row for each number of directions, left and right."""
    figure, axes = plotting.figure(
        len(config.compared), 2, height=1.2 + 2.0 * len(config.compared), sharex=True, sharey=True
    )
    classes = [str(kind) for kind in data["classes"]]
    colours = plotting.sequence(len(classes))
    dashes = {"lora": ":", "lora-one": "-"}
    for row, p in zip(axes, config.compared, strict=True):
        for ax, side in zip(row, SIDES, strict=True):
            for method in METHODS:
                curves = data[f"{method}.{side}.{p}"].mean(-1)
                for c, colour in enumerate(colours):
                    ax.plot(data["steps"], curves[:, c], color=colour, linestyle=dashes[method])
            ax.set(ylim=(0, 1.03))
        row[0].set(ylabel=f"mean largest sine, $p = {p}$")
    for ax in axes[-1]:
        ax.set(xlabel="step $t$")
    plotting.label_panels(axes[0], ("left: A against U(G)", "right: B against V(G)"))
    handles = [plotting.key(kind, color=c) for kind, c in zip(classes, colours, strict=True)]
    handles += [
        plotting.key(plotting.method_style(m)["label"], color=plotting.THEORY, linestyle=dashes[m])
        for m in METHODS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return {"fig_layer_alignment": figure}
