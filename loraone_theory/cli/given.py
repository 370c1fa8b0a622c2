"""Arrays of a user's own, from .npy or .csv files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loraone_theory.problems.linear.problem import LinearProblem

# How a cell begins that is none of a heading.
NUMBER = re.compile(r"\s*[+-]?(\d|\.\d|nan|inf)", re.IGNORECASE)


def read(path: Path, dtype: torch.dtype, device: str) -> Tensor:
    """A matrix; a .csv holds numbers between commas, one row a line, after a heading or none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, or contents that are no matrix of numbers.
    """
    if path.suffix not in (".npy", ".csv"):
        raise ValueError(f"{path} must end in .npy or .csv")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the path of a .npy or .csv")
    try:
        found = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _table(path)
        matrix = np.asarray(found, dtype=np.float64)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path} must hold a matrix of numbers: {error}") from None
    if matrix.ndim != 2:
        raise ValueError(f"{path} must hold a matrix; got shape {matrix.shape}")
    return torch.from_numpy(matrix).to(dtype=dtype, device=device)


def _table(path: Path) -> np.ndarray:
    with path.open(encoding="utf-8") as file:
        first = file.readline().split(",")
    heading = not all(NUMBER.match(cell) for cell in first)
    return np.loadtxt(path, delimiter=",", skiprows=int(heading), ndmin=2)


def problem(
    data: Path, labels: Path | None, weights: Path | None, dtype: torch.dtype, device: str
) -> LinearProblem:
    """The linear problem of these files.

    Raises:
        ValueError: no labels; else what `read` and `LinearProblem.from_data` say.
    """
    if labels is None:
        raise ValueError("--data holds inputs alone; give what they are to predict as --labels")
    return LinearProblem.from_data(
        read(data, dtype, device),
        labels=read(labels, dtype, device),
        pretrained=None if weights is None else read(weights, dtype, device),
    )
