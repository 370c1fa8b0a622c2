"""Methods that know the inputs' covariance Σ."""

from __future__ import annotations

from loraone_theory.core import validate
from loraone_theory.core.validate import Array
from loraone_theory.methods.base import Method
from loraone_theory.methods.gradient import lora_one


def whitened_preconditioned(covariance: Array, *, base: Method | None = None) -> Method:
    """Preconditioned descent in the metric of Σ, the rule "whitened", from Spectral-init.

    Args:
        covariance: Σ (d, d), symmetric positive definite.
        base: the method whose start it has; LoRA-One by default.

    Raises:
        TypeError, ValueError: Σ is no such matrix, or the method trains no pair.
    """
    if base is not None:
        validate.instance("base", base, Method)
    Sigma = validate.tensor("covariance", covariance, owned=True)
    return (lora_one() if base is None else base).trained_by("whitened", covariance=Sigma)
