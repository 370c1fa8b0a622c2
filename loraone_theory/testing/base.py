"""What the checks of user-made objects share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

D, K, RANK = 9, 8, 3


class ContractError(AssertionError):
    """A promise that the loop relies on is not kept; the message says which and what was found."""


def require(kept: bool, promise: str) -> None:
    """Raise ContractError with the promise unless it was kept."""
    if not kept:
        raise ContractError(promise)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard Gaussian entries, the same in both dtypes up to rounding."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def leaves(value: Any) -> Iterator[Any]:
    """What nested tuples hold, depth first."""
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def copied(value: Any) -> Any:
    """The same nested tuples with copies of the tensors."""
    if isinstance(value, tuple):
        items = [copied(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value.clone() if isinstance(value, Tensor) else value


def same_bits(first: Any, second: Any) -> bool:
    """Whether nested tuples hold the same values, NaN equal to NaN."""
    ours, theirs = list(leaves(first)), list(leaves(second))
    return len(ours) == len(theirs) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and bool(((a == b) | (a.isnan() & b.isnan())).all())
        if isinstance(a, Tensor) and isinstance(b, Tensor)
        else type(a) is type(b) and a == b
        for a, b in zip(ours, theirs, strict=True)
    )


def random_states() -> tuple[bytes, bytes]:
    """Where the global generators of torch and numpy stand."""
    state: Any = np.random.get_state()  # noqa: NPY002
    numbers = np.asarray(state[1]).tobytes() + repr(state[2:]).encode()
    return torch.get_rng_state().numpy().tobytes(), numbers


def gap(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖/‖expected‖, infinite where shapes differ or something is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    size = torch.linalg.vector_norm(expected.double())
    distance = torch.linalg.vector_norm(found.double() - expected.double())
    ratio = float(distance / size) if float(size) > 0 else float(distance)
    return ratio if ratio == ratio else float("inf")
