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
        found = _array(path) if path.suffix == ".npy" else _table(path)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path} must hold a matrix of numbers: {error}") from None
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold a matrix of real numbers; got dtype {found.dtype}")
    matrix = np.asarray(found, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"{path} must hold a matrix; got shape {matrix.shape}")
    return torch.from_numpy(matrix).to(dtype=dtype, device=device)


def _array(path: Path) -> np.ndarray:
    with path.open("rb") as file:  # np.load would take other kinds of files
        found: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _table(path: Path) -> np.ndarray:
    lines = path.read_text(encoding="utf-8").splitlines()
    heading = bool(lines) and not all(NUMBER.match(cell) for cell in lines[0].split(","))
    rows = [line for line in lines[int(heading) :] if line.strip()]
    if not rows:
        raise ValueError("it has no row of numbers")
    return np.loadtxt(rows, delimiter=",", ndmin=2)


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
