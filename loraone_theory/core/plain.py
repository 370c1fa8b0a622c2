"""Values in the types that JSON has, for records of what was run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.frames import is_table


def plain(value: Any) -> Any:
    """A value as it comes back from JSON: dicts, lists, strings, numbers, booleans, None.

    Mappings and named tuples become dicts; tuples, ranges, arrays and tables of pandas lists;
    dtypes, devices and paths their text.

    >>> plain({"betas": (0.9, 0.999), 1: np.float64(2.0), "dtype": torch.float32})
    {'betas': [0.9, 0.999], '1': 2.0, 'dtype': 'float32'}

    Raises:
        TypeError: another type.
    """
    if is_table(value):
        return value.to_numpy().tolist()
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (list, tuple, range)):
        return [plain(item) for item in value]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, (torch.device, Path)):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
