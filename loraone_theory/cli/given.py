"""Arrays of a user's own, from .npy or .csv files."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from loraone_theory import storage
from loraone_theory.problems.linear.problem import LinearProblem


def read(path: Path, dtype: torch.dtype, device: str) -> Tensor:
    """A matrix; a .csv holds numbers between commas, one row a line, after a heading or none.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: a .npy that is none, or that holds Python objects.
        ValueError: another suffix, or contents that are no matrix of finite real numbers.
    """
    if path.suffix not in (".npy", ".csv"):
        raise ValueError(f"{path} must end in .npy or .csv")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the path of a .npy or .csv")
    found = _array(path) if path.suffix == ".npy" else _table(path)
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold a matrix of real numbers; got dtype {found.dtype}")
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{path} must hold a matrix, one row a sample; got shape {found.shape}")
    matrix = found.astype(np.float64)
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{path} must hold finite numbers; got {len(bad)} others, the first "
            f"({matrix[row, column]}) in row {row + 1}, column {column + 1}; remove or replace them"
        )
    return torch.from_numpy(matrix).to(dtype=dtype, device=device)


def _array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, TypeError, EOFError, MemoryError, OverflowError, TokenError):
            raise storage.DamagedFile(
                f"{path} must be a .npy of numbers; it is cut short, of another format, or holds "
                "Python objects; write it with numpy.save from an array of floats"
            ) from None


def _table(path: Path) -> np.ndarray:
    """Numbers between commas; utf-8-sig leaves out the mark that spreadsheets begin a file with."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
        if lines and not any(_is_number(cell) for cell in lines[0].split(",")):
            lines = lines[1:]  # a heading
        if not any(line.strip() for line in lines):
            raise ValueError("it has no row of numbers")
        return np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:  # of what is not UTF-8 too
        raise ValueError(f"{path} must hold a matrix of numbers between commas: {error}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def problem(
    data: Path,
    labels: Path | None,
    weights: Path | None,
    dtype: torch.dtype,
    device: str,
    *,
    keep: bool = False,
) -> LinearProblem:
    """The linear problem of these files; `keep` its rows, which minibatches need.

    Raises:
        ValueError: no labels; else what `read` and `LinearProblem.from_data` say.
    """
    if labels is None:
        raise ValueError("--data holds inputs alone; give what they are to predict as --labels")
    return LinearProblem.from_data(
        read(data, dtype, device),
        labels=read(labels, dtype, device),
        pretrained=None if weights is None else read(weights, dtype, device),
        keep=keep,
    )
