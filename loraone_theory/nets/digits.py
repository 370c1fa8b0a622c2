"""Handwritten digits, odd ones to pre-train on and even ones to fine-tune on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.extras import extra
from loraone_theory.core.randomness import generator
from loraone_theory.nets.idx import read_mnist

CLASSES = 5


class Split(NamedTuple):
    """Images (n, height, width) in [0, 1] and labels 0 … 4: digit y has label y // 2."""

    images: Tensor
    labels: Tensor

    @property
    def flat(self) -> Tensor:
        """Images as rows (n, height·width)."""
        return self.images.flatten(1)

    def batch(self, size: int, rng: np.random.Generator) -> Split:
        """`size` of them at random, with replacement."""
        chosen = torch.from_numpy(rng.integers(len(self.labels), size=size))
        return Split(self.images[chosen], self.labels[chosen])


class Digits(NamedTuple):
    """One parity of the digits: disjoint parts to train, choose and test on."""

    train: Split
    validation: Split
    test: Split


def load(
    parity: Literal["odd", "even"], *, mnist: str | Path = "", limit: int = 5000, seed: int = 0
) -> Digits:
    """scikit-learn's 8×8 digits, or MNIST's where a folder is named, in parts of 60, 20 and 20 %.

    Args:
        parity: which digits.
        mnist: a folder with the standard IDX files; "" for scikit-learn's.
        limit: no more than so many images of that parity, drawn at random.
        seed: of the partition.

    Raises:
        ModuleNotFoundError: scikit-learn is needed and not installed.
    """
    if mnist:
        images, labels = read_mnist(mnist)
        images = images / 255
    else:
        images, labels = _bundled()
    chosen = np.flatnonzero(labels % 2 == (parity == "odd"))
    chosen = generator(seed, f"digits {parity}").permutation(chosen)[:limit]
    pixels = torch.from_numpy(images[chosen]).to(torch.float32)
    classes = torch.from_numpy(labels[chosen] // 2).to(torch.int64)
    first, second = int(0.6 * len(chosen)), int(0.8 * len(chosen))
    bounds = ((0, first), (first, second), (second, len(chosen)))
    return Digits(*(Split(pixels[i:j], classes[i:j]) for i, j in bounds))


def _bundled() -> tuple[np.ndarray, np.ndarray]:
    with extra("experiments", "name a folder with MNIST's IDX files"):
        from sklearn.datasets import load_digits
    found = load_digits()
    return found.images / 16, found.target
