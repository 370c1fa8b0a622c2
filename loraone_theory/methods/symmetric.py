"""Symmetric factorisation UUᵀ of square problems: gradient descent, preconditioned, damped.

These methods stand beside `METHODS`, whose rows run at any shape.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loraone_theory.core import validate
from loraone_theory.core.factors import Params, Scalar
from loraone_theory.core.linalg import inverse_psd
from loraone_theory.core.randomness import normal, per_seed
from loraone_theory.methods import parametrisations
from loraone_theory.methods.base import Method
from loraone_theory.methods.inits import Init
from loraone_theory.methods.parametrisations import Parametrisation, Start
from loraone_theory.methods.parts import Part
from loraone_theory.methods.rules.base import Drops, Rule, check_rates, checked, descend
from loraone_theory.problems.base import Problem, facts


def symmetric(*, init_std: float | str = 1e-2) -> Method:
    """UUᵀ by gradient descent U ← U − ηR_sU, from a Gaussian U or from the "spectral" one."""
    return _method("symmetric", init_std, PARTS["gram-gd"]())


def symmetric_preconditioned(
    *, init_std: float | str = "spectral", adaptive: float = 0.0
) -> Method:
    """UUᵀ by U ← U − ηR_sU(UᵀU + λ_tI)⁻¹, λ_t = λ + adaptive·‖R_sU(UᵀU)^{−1/2}‖_F."""
    return _method("symmetric-preconditioned", init_std, _preconditioned(adaptive))


def _preconditioned(adaptive: float) -> Part:
    hyper = {"adaptive": checked("gram-preconditioned", "adaptive", adaptive)}
    return Part("gram-preconditioned", gram_preconditioned, hyper, frozenset({"damping"}))


# Parts of these methods, and how UUᵀ is made, by the names that records hold.
PARTS: dict[str, Callable[..., Part]] = {
    "gram-gaussian": lambda: Part("gram-gaussian", gram_gaussian, {}, frozenset({"std"})),
    "gram-spectral": lambda: Part("gram-spectral", gram_spectral, {}),
    "gram-gd": lambda: Part("gram-gd", _gd, {}),
    "gram-preconditioned": _preconditioned,
}


def _gram(scale: float) -> Parametrisation:
    return parametrisations.gram()


FORMS = {"_gram": _gram}


def _method(name: str, init_std: float | str, train: Part) -> Method:
    if isinstance(init_std, str):
        validate.choice("init_std", init_std, ("spectral",))
        return Method(name, PARTS["gram-spectral"](), _gram, train)
    std = validate.standard_deviation("init_std", init_std)
    return Method(name, PARTS["gram-gaussian"](), _gram, train, init_std=std)


def gram_gaussian(std: Scalar) -> Init:
    """U₀ i.i.d. N(0, α²) with α = `std`."""

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        _square(problem)
        U = per_seed(lambda rng: normal(rng, problem.d, rank), seeds, "U0", problem.like)
        size = std.to(U) if isinstance(std, Tensor) else std
        return Start((size * U,))

    return init


def gram_spectral() -> Init:
    """U₀ = V_r(γΛ_r)₊^{1/2} from the r largest eigenvalues of G's symmetric part."""

    def init(problem: Problem, rank: int, seeds: tuple[int, ...]) -> Start:
        _square(problem)
        G = problem.one_step_gradient()
        dense = G if isinstance(G, Tensor) else G.dense()
        values, V = torch.linalg.eigh((dense + dense.mT) / 2)
        top = facts(problem).spectral_gamma * values[..., -rank:].flip(-1).clamp_min(0)
        return Start((V[..., -rank:].flip(-1) * top.sqrt()[..., None, :],))

    return init


def _square(problem: Problem) -> None:
    if problem.d != problem.k:
        raise ValueError(
            "UUᵀ is square: symmetric methods need a problem with d = k; "
            f"got d={problem.d}, k={problem.k}"
        )


def _gd(learning_rate: Scalar) -> Rule:
    check_rates("gram-gd", learning_rate)

    def update(params: Params, gradients: Params, state: None) -> tuple[Params, None]:
        return (descend(params[0], gradients[0], learning_rate),), state

    return Rule(lambda params: None, update, equivariant=True, replays=True)


def gram_preconditioned(
    learning_rate: Scalar, damping: Scalar = 0.0, adaptive: float = 0.0
) -> Rule:
    """U ← U − η∇(UᵀU + λ_tI)⁻¹; λ_t = λ + c·⟨∇, ∇(UᵀU)†⟩^{1/2}, linear in the residual."""
    check_rates("gram-preconditioned", learning_rate, damping)
    checked("gram-preconditioned", "adaptive", adaptive)

    def update(params: Params, gradients: Params, state: Drops) -> tuple[Params, Drops]:
        (U,), (grad,) = params, gradients
        gram = U.mT @ U
        lam = damping
        if adaptive > 0:
            squared = (grad * (grad @ inverse_psd(gram).matrix)).sum((-2, -1), keepdim=True)
            lam = damping + adaptive * squared.clamp_min(0).sqrt()
        inverse = inverse_psd(gram, lam)
        return (descend(U, grad @ inverse.matrix, learning_rate),), state.after(inverse, inverse)

    return Rule(
        Drops.none,
        update,
        equivariant=True,
        dropped=lambda state: (state.steps, state.last),
        inverts=True,
        replays=True,
    )
