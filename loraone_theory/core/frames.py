"""Tables of pandas as arrays, without pandas where there are none."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def is_table(given: Any) -> bool:
    """Whether it is a DataFrame or a Series; pandas is not imported for that."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(given, (pandas.DataFrame, pandas.Series))


def from_table(name: str, given: Any) -> np.ndarray:
    """Columns of numbers as float64, or float32 where all of them are; missing ones as NaN.

    Raises:
        TypeError: a column of something else, with its name.
    """
    types = sys.modules["pandas"].api.types
    table = given.to_frame() if given.ndim == 1 else given
    other = [
        column
        for column, kind in zip(table.columns, table.dtypes, strict=True)
        if types.is_bool_dtype(kind)
        or types.is_complex_dtype(kind)
        or not types.is_numeric_dtype(kind)
    ]
    if other:
        raise TypeError(
            f"{name} must hold numbers in every column; got other things in "
            f"{', '.join(repr(column) for column in other[:8])}; drop or encode these columns"
        )
    single = bool(len(table.columns)) and all(kind == np.float32 for kind in table.dtypes)
    return np.asarray(given.to_numpy(dtype=np.float32 if single else np.float64, na_value=np.nan))
