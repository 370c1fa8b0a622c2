"""How large an instance is, and how many samples or measurements a ratio stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loraone_theory.sweeps.keywords import COUNTS, RATIO

# Ensembles whose operator holds a matrix for every measurement, or a pair of vectors.
DENSE, PAIRS = ("dense", "symmetric"), ("rank-one", "single-response", "multi-response")
# Samplers whose instances hold no samples.
THIN = ("sample_linear_matrix_free", "sample_linear_lazy", "sample_relu_population")
NAMES = frozenset({"sampler", "ensemble", "d", "k", "true_rank", *COUNTS, RATIO})


def counted(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """Samples or measurements from `sample_ratio`, for a sampler that takes `names`.

    Measurements are so many times the r*(d + k − r*) numbers that a shift of rank r* has, samples
    so many times d.

    >>> counted({"sample_ratio": 2, "d": 8, "k": 8, "true_rank": 1}, ["measurements"])
    {'measurements': 30}
    """
    if RATIO not in settings:
        return {}
    ratio = settings[RATIO]
    d, k, r = (_size(settings, name) for name in ("d", "k", "true_rank"))
    if "measurements" in names:
        count = max(1, round(ratio * r * (d + k - r)))
        if settings.get("ensemble") == "multi-response":
            count = k * max(1, round(count / k))
        return {"measurements": count}
    return {"samples": max(1, round(ratio * d))}


def instance_bytes(settings: Mapping[str, Any]) -> int:
    """Memory of one drawn instance, in double precision, while it is drawn."""
    d, k = (_size(settings, name) for name in ("d", "k"))
    counts = counted(settings, [COUNTS[1 if "ensemble" in settings else 0]])
    n = counts.get("measurements", counts.get("samples", 0))
    n = n or _size(settings, "samples") * _size(settings, "measurements")
    ensemble = settings.get("ensemble")
    if ensemble in DENSE:
        return 8 * 3 * n * d * k
    if ensemble in PAIRS:
        return 8 * 2 * n * (d + k)
    if ensemble is not None:
        return 8 * (4 * n + 2 * d * k)
    if settings["sampler"] in THIN or getattr(settings["sampler"], "__name__", "") in THIN:
        return 8 * (d * k + 4 * d * (_size(settings, "true_rank") + 2))
    return 8 * (2 * n * d + d * d + d * k)


def _size(settings: Mapping[str, Any], name: str) -> int:
    """A whole number that a sampler of one's own may lack or understand otherwise."""
    given = settings.get(name, 1)
    return given if isinstance(given, int) and not isinstance(given, bool) else 1
