"""The version of what numbers depend on: the code that computes, and the libraries below it."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

# What a cell's numbers are computed by; a change elsewhere leaves finished cells as they are.
COMPUTES = (
    *("core", "problems", "methods", "dynamics", "predict", "metrics.py"),
    *(f"sweeps/{part}.py" for part in ("compute", "floors", "measures", "pilot", "size")),
)
PACKAGES = ("torch", "numpy", "scipy")


# Engine -> the packages that compute besides.
ENGINES: dict[str, tuple[str, ...]] = {"torch": (), "numba": ("numba",)}


@functools.cache
def numerics_version(engine: str = "torch") -> str:
    """A short digest of the computing code and of the versions of torch, NumPy and SciPy.

    For another engine than torch, of that of its package too.

    >>> len(numerics_version())
    16
    """
    packages = (*PACKAGES, *ENGINES[engine])
    whole = hashlib.sha256(repr([_version(package) for package in packages]).encode())
    folder = Path(__file__).resolve().parent.parent
    for part in COMPUTES:
        place = folder / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
