"""The methods: an initialisation, a parametrisation and an update rule under one name.

`METHODS` maps each name to the factory that makes it; the factory's arguments are the method's
hyper-parameters and the first line of its docstring describes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from loraone_theory import inits, parametrisations, rules, validate
from loraone_theory.factors import Factors, Scalar
from loraone_theory.inits import Init
from loraone_theory.linalg import EXACT, SVDOptions
from loraone_theory.parametrisations import Parametrisation, Start
from loraone_theory.rules import Rule

RuleFactory = Callable[[Scalar, Scalar], Rule]  # (learning_rate, damping) -> Rule


@dataclass(frozen=True, eq=False)
class Method:
    """A method ready to be simulated; make one with a factory of `METHODS`.

    Args:
        name: its name in `METHODS`.
        init: (problem, rank, seeds) -> Start.
        parametrisation: how the trainable tensors make the learned shift.
        make_rule: (learning_rate, damping) -> Rule.
        hyper: the hyper-parameters it was made with, for records.
        scale: s in W_eff = W_f + sAB.
        offset: True where W_f = W − sA₀B₀, so that the function is unchanged at t = 0.
        takes_damping: whether its rule has the inverses that a damping goes into.
        with_init_std: std -> the method with that LoRA-init; None where A₀ is not Gaussian.
    """

    name: str
    init: Init
    parametrisation: Parametrisation
    make_rule: RuleFactory
    hyper: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    offset: bool = False
    takes_damping: bool = False
    with_init_std: Callable[[Scalar], Method] | None = None

    def started_at(self, initial: Factors) -> Method:
        """The method with given initial factors in place of its own initialisation.

        Raises:
            ValueError: the method does not train a pair (A, B).
        """
        if not self.parametrisation.is_pair:
            raise ValueError(
                f"initial factors apply to methods that train A and B; {self.name!r} trains "
                f"{self.parametrisation.name}; leave initial out"
            )
        offset = Factors(self.scale * initial.A, initial.B) if self.offset else None
        start = Start(tuple(initial), offset=offset)
        return replace(self, init=lambda problem, rank, seeds: start, with_init_std=None)


def _gd(learning_rate: Scalar, damping: Scalar) -> Rule:
    return rules.gd(learning_rate)


def _gaussian_method(
    name: str, make_rule: RuleFactory, init_std: Scalar, scale: float, **extra: Any
) -> Method:
    if not isinstance(init_std, (list, tuple)) and not hasattr(init_std, "shape"):
        validate.number("init_std", init_std, positive=True)
    elif isinstance(init_std, (list, tuple)):
        raise TypeError(
            f"init_std of a method is one number; got {init_std!r}; "
            "pass the sequence to simulate(init_std=...) to run all of them in one batch"
        )
    scale = validate.number("scale", scale, positive=True)
    takes_damping = extra.pop("takes_damping", False)
    return Method(
        name,
        inits.gaussian(init_std),
        parametrisations.pair(scale),
        make_rule,
        hyper={"init_std": init_std, "scale": scale, **extra},
        scale=scale,
        takes_damping=takes_damping,
        with_init_std=lambda std: _gaussian_method(
            name, make_rule, std, scale, takes_damping=takes_damping, **extra
        ),
    )


def full() -> Method:
    """Full fine-tuning: gradient descent on all of W."""
    return Method("full", inits.zero(), parametrisations.full(), _gd)


def lora(*, init_std: Scalar = 1e-2, scale: float = 1.0) -> Method:
    """LoRA: A Gaussian, B zero, gradient descent (Eq. 4)."""
    return _gaussian_method("lora", _gd, init_std, scale)


def lora_plus(*, ratio: float = 16.0, init_std: Scalar = 1e-2, scale: float = 1.0) -> Method:
    """LoRA+: LoRA with a step for B that is `ratio` times as large."""
    ratio = validate.number("ratio", ratio, positive=True)
    if ratio < 1:
        raise ValueError(f"ratio must be >= 1 (1 is plain LoRA); got ratio={ratio}")

    def make_rule(learning_rate: Scalar, damping: Scalar) -> Rule:
        return rules.lora_plus(learning_rate, ratio)

    return _gaussian_method("lora+", make_rule, init_std, scale, ratio=ratio)


def p_lora(*, init_std: Scalar = 1e-2, scale: float = 1.0) -> Method:
    """P-LoRA: LoRA-init, preconditioned gradient descent (Eq. 9)."""
    return _gaussian_method("p-lora", rules.preconditioned, init_std, scale, takes_damping=True)


def lora_one(*, gamma: float | None = None, scale: float = 1.0, svd: SVDOptions = EXACT) -> Method:
    """LoRA-One: Spectral-init from the one-step gradient, gradient descent."""
    return _spectral_method("lora-one", _gd, gamma, scale, svd)


def lora_one_preconditioned(
    *, gamma: float | None = None, scale: float = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-One: Spectral-init, preconditioned gradient descent (Eq. 9)."""
    return _spectral_method(
        "lora-one-preconditioned", rules.preconditioned, gamma, scale, svd, takes_damping=True
    )


def _spectral_method(
    name: str,
    make_rule: RuleFactory,
    gamma: float | None,
    scale: float,
    svd: SVDOptions,
    takes_damping: bool = False,
) -> Method:
    if gamma is not None:
        gamma = validate.number("gamma", gamma, positive=True)
    scale = validate.number("scale", scale, positive=True)
    return Method(
        name,
        inits.spectral(gamma, scale, svd),
        parametrisations.pair(scale),
        make_rule,
        hyper={"gamma": gamma, "scale": scale, "svd": svd},
        scale=scale,
        takes_damping=takes_damping,
    )


def lora_one_released(
    *, gamma: float = 128.0, scale: float = 1.0, svd: SVDOptions = EXACT
) -> Method:
    """LoRA-One as released (Algorithm 1): gradient directions scaled by 1/(gamma sigma_1)."""
    gamma = validate.number("gamma", gamma, positive=True)
    scale = validate.number("scale", scale, positive=True)
    return Method(
        "lora-one-released",
        inits.released(gamma, svd),
        parametrisations.pair(scale),
        _gd,
        hyper={"gamma": gamma, "scale": scale, "svd": svd},
        scale=scale,
    )


def lora_ga(*, gamma: float = 16.0, scale: float = 1.0, svd: SVDOptions = EXACT) -> Method:
    """LoRA-GA: gradient directions 1..r for A and r+1..2r for B, with an offset."""
    gamma = validate.number("gamma", gamma, positive=True)
    scale = validate.number("scale", scale, positive=True)
    return Method(
        "lora-ga",
        inits.lora_ga(gamma, scale, svd),
        parametrisations.pair(scale),
        _gd,
        hyper={"gamma": gamma, "scale": scale, "svd": svd},
        scale=scale,
        offset=True,
    )


def lora_sb(*, step: float = 1.0, scale: float = 1.0, svd: SVDOptions = EXACT) -> Method:
    """LoRA-SB: frozen gradient frames, gradient descent on the r x r core."""
    step = validate.number("step", step, positive=True)
    scale = validate.number("scale", scale, positive=True)
    return Method(
        "lora-sb",
        inits.lora_sb(step, svd),
        parametrisations.core(scale),
        _gd,
        hyper={"step": step, "scale": scale, "svd": svd},
        scale=scale,
    )


METHODS: dict[str, Callable[..., Method]] = {
    "full": full,
    "lora": lora,
    "lora+": lora_plus,
    "p-lora": p_lora,
    "lora-one": lora_one,
    "lora-one-preconditioned": lora_one_preconditioned,
    "lora-one-released": lora_one_released,
    "lora-ga": lora_ga,
    "lora-sb": lora_sb,
}


def get(method: str | Method) -> Method:
    """A Method from its name in `METHODS`, with default hyper-parameters, or the one given."""
    if isinstance(method, Method):
        return method
    return METHODS[validate.choice("method", method, METHODS)]()
