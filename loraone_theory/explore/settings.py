"""What can be set in the laboratory, and the problem and the methods that this asks for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from loraone_theory import methods
from loraone_theory.core import linalg, validate
from loraone_theory.core.factors import Factors
from loraone_theory.methods import METHODS, Method
from loraone_theory.predict.ahead import Outlook, outlook_beside
from loraone_theory.predict.best_fit import best_fit
from loraone_theory.predict.contraction import Known
from loraone_theory.predict.rates import rates
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.laws import LAWS
from loraone_theory.problems.linear.sampling import linear_population, sample_linear
from loraone_theory.problems.relu.sampling import sample_relu, sample_relu_population
from loraone_theory.problems.sensing.operators import OPERATORS
from loraone_theory.problems.sensing.sampling import sample_sensing

# Model -> the ensembles of its inputs, its columns of W, or its measurements.
ENSEMBLES: dict[str, tuple[str, ...]] = {
    "linear": tuple(LAWS),
    "relu": ("gaussian", "orthonormal"),
    "sensing": tuple(OPERATORS),
}
MOST_POINTS = 100  # of a curve
MOST_SEEDS = 8


class Call(NamedTuple):
    """A call of the library that can be made and be written down.

    Args:
        function: what is called.
        arguments: names and plain values.
    """

    function: Callable[..., Any]
    arguments: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, function: Callable[..., Any], **arguments: Any) -> Call:
        """The call with these arguments."""
        return cls(function, tuple(arguments.items()))

    def made(self) -> Any:
        """What it returns."""
        return self.function(**dict(self.arguments))

    def written(self) -> str:
        """The call as Python reads it.

        >>> print(Call.of(dict, d=3, seeds=(0,)).written())
        dict(
            d=3,
            seeds=(0,),
        )
        """
        inside = "".join(f"    {name}={value!r},\n" for name, value in self.arguments)
        return f"{self.function.__name__}(\n{inside})"


@dataclass(frozen=True)
class Settings:
    """Everything that the page lets one choose.

    Args:
        model: "linear", "relu" or "sensing".
        ensemble: a name in `ENSEMBLES[model]`.
        methods: names in `METHODS`.
        d: rows of Δ.
        k: columns of Δ.
        rank: r.
        true_rank: r*.
        condition_number: κ of Δ.
        ratio: N/d; of sensing m over the degrees of freedom r*(d + k − r*); infinite for the
            expectation over the inputs.
        noise_std: σ of the labels.
        relative_shift: c of the ReLU model.
        fraction: of the predicted best step; None for the absolute one.
        learning_rate: η where `fraction` is None or no best step is predicted.
        init_std: α of a Gaussian A₀; None for each method's own.
        steps: T.
        seeds: one run of each method per seed.
    """

    model: str = "linear"
    ensemble: str = "gaussian"
    methods: tuple[str, ...] = ("lora-one", "lora")
    d: int = 50
    k: int = 40
    rank: int = 4
    true_rank: int = 4
    condition_number: float = 4.0
    ratio: float = 16.0
    noise_std: float = 0.0
    relative_shift: float = 0.1
    fraction: float | None = 0.5
    learning_rate: float = 0.1
    init_std: float | None = None
    steps: int = 400
    seeds: tuple[int, ...] = (0,)

    def check(self) -> None:
        """Refuse what no problem or run can be made of, in one sentence.

        Raises:
            ValueError, TypeError: a setting that breaks a rule.
        """
        validate.choice("model", self.model, ENSEMBLES)
        validate.choice("ensemble", self.ensemble, ENSEMBLES[self.model])
        if not self.methods:
            raise ValueError("methods must name at least one; got none; choose for example lora")
        for name in self.methods:
            validate.choice("method", name, METHODS)
        validate.integer("d", self.d, least=1)
        validate.integer("k", self.k, least=1)
        validate.rank(self.rank, d=self.d, k=self.k)
        validate.rank(self.true_rank, d=self.d, k=self.k, name="true_rank")
        validate.integer("steps", self.steps, least=1)
        if not 1 <= len(validate.seeds(self.seeds)) <= MOST_SEEDS:
            raise ValueError(f"seeds must be 1 to {MOST_SEEDS}; got {len(self.seeds)}; take fewer")
        if self.fraction is not None:
            validate.number("fraction", self.fraction, positive=True)
        validate.number("learning_rate", self.learning_rate, positive=True)
        if self.init_std is not None:
            validate.standard_deviation("init_std", self.init_std)
        self._check_samples()

    def _check_samples(self) -> None:
        if not self.infinite:
            validate.number("ratio", self.ratio, positive=True)
            return
        if self.model == "sensing":
            raise ValueError(
                "sensing takes a finite number of measurements; got ratio=inf; lower the ratio"
            )
        if self.noise_std > 0:
            raise ValueError(
                "infinitely many samples average label noise away; got "
                f"noise_std={self.noise_std:g}; set noise_std=0 or a finite N/d"
            )

    @property
    def infinite(self) -> bool:
        """Whether the loss is the expectation over the inputs, N = ∞."""
        return self.ratio == math.inf

    @property
    def samples(self) -> int:
        """N, or m of sensing; of the linear model at N = ∞ a number that its draws ignore."""
        if self.infinite:
            return self.d
        if self.model != "sensing":
            return max(1, round(self.ratio * self.d))
        freedom = self.true_rank * (self.d + self.k - self.true_rank)
        count = max(1, round(self.ratio * freedom))
        whole = self.k if self.ensemble == "multi-response" else 1
        return -(-count // whole) * whole

    @property
    def every(self) -> int:
        """Every so many steps are recorded: a curve has about `MOST_POINTS` points."""
        return -(-self.steps // MOST_POINTS)

    def drawn(self) -> Call:
        """The call that draws the problem."""
        sizes = {"d": self.d, "k": self.k, "true_rank": self.true_rank}
        rest = {"condition_number": self.condition_number, "seeds": self.seeds}
        noisy = {"samples": self.samples, "noise_std": self.noise_std}
        if self.model == "relu":
            law = {"relative_shift": self.relative_shift, "columns": self.ensemble}
            if self.infinite:
                return Call.of(sample_relu_population, **sizes, **law, **rest)
            return Call.of(sample_relu, **sizes, **noisy, **law, **rest)
        if self.model == "sensing":
            count = {"measurements": self.samples, "noise_std": self.noise_std}
            return Call.of(sample_sensing, ensemble=self.ensemble, **sizes, **count, **rest)
        sample = linear_population if self.infinite else sample_linear
        return Call.of(sample, **sizes, **noisy, inputs=self.ensemble, **rest)

    def problem(self) -> Problem:
        """The problem; those of the last settings are kept."""
        return _problem(self.drawn())

    def method(self, name: str) -> Method:
        """The method, with the initial size where it has one."""
        return _method(name, self.init_std)

    def outlook(self, name: str) -> Outlook:
        """What is predicted of the method on the problem; those of the last settings are kept."""
        return _outlook(self.drawn(), name, self.init_std, self.rank, self.seeds)

    def best_fit(self) -> Factors | None:
        """The best fit of rank r to the labels of sensing, None where they do not determine it.

        Those of the last settings are kept.
        """
        return _best_fit(self.drawn(), self.rank)

    def step(self, name: str) -> float:
        """η of the method: the fraction of its predicted best step, or the absolute one."""
        if self.fraction is None:
            return self.learning_rate
        best = self.outlook(name).best_step
        return self.fraction * best if 0 < best < math.inf else self.learning_rate


@lru_cache(maxsize=4)
def _problem(call: Call) -> Problem:
    problem: Problem = call.made()
    return problem


def _method(name: str, init_std: float | None) -> Method:
    method = methods.get(name)
    if init_std is None or method.init_std is None:
        return method
    return method.with_init_std(init_std)


@lru_cache(maxsize=64)
def _outlook(
    call: Call, name: str, init_std: float | None, rank: int, seeds: tuple[int, ...]
) -> Outlook:
    method = _method(name, init_std)
    return outlook_beside(_problem(call), method, rank=rank, seeds=seeds, known=_known(call))


@lru_cache(maxsize=4)
def _best_fit(call: Call, rank: int) -> Factors | None:
    problem: Any = _problem(call)
    fit = best_fit(problem, rank)
    if bool(fit.loss.isnan().any()):
        return None
    low, high = rates(problem, fit.at).extremes.unbind(-1)
    return fit.at if bool((low > linalg.eps(low) ** 0.5 * high).all()) else None


@lru_cache(maxsize=8)
def _known(call: Call) -> Known:
    """What was predicted of other methods on the problem of a call."""
    return {}
