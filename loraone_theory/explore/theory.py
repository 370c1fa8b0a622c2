"""The lines of theory over the curves of one run: each is a call of the library, or a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraone_theory import predict
from loraone_theory.core import linalg
from loraone_theory.core.factors import Factors, concatenate
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.explore.settings import Settings
from loraone_theory.methods import Method
from loraone_theory.predict.ahead import Outlook
from loraone_theory.predict.curves import decay
from loraone_theory.predict.noise import in_closed_form
from loraone_theory.problems.base import Problem
from loraone_theory.problems.linear.problem import LinearProblem
from loraone_theory.problems.sensing.problem import SensingProblem


@dataclass(frozen=True, eq=False)
class Line:
    """A line of theory.

    Args:
        panel: the record over which it is drawn.
        label: what it is.
        steps: (T,) where it has values.
        values: (T, lines).
        code: the expression of a script that gives `values`; `problem`, `method`, `run`, `ahead`,
            `eta` and `steps` are those of the script.
    """

    panel: str
    label: str
    steps: np.ndarray
    values: np.ndarray
    code: str


@dataclass(frozen=True, eq=False)
class Case:
    """A run and what it was made of."""

    settings: Settings
    problem: Problem
    method: Method
    run: Trajectory
    ahead: Outlook
    eta: float

    @property
    def steps(self) -> np.ndarray:
        """The recorded steps."""
        return self.run.steps

    @property
    def plain(self) -> bool:
        """A pair trained by gradient descent with equal steps, from a Gaussian A₀, at s = 1."""
        local = self.method.facts.local
        return (
            self.method.init_std is not None
            and local is not None
            and (local.weights, local.momentum, local.ratio) == ("none", 0.0, 1.0)
            and self.method.at(self.settings.rank).scale == 1.0
        )

    @property
    def pair(self) -> bool:
        """Whether it trains A and B alone, without an offset."""
        return self.method.is_pair and not self.method.offset

    @property
    def fits(self) -> bool:
        """Whether it trains a pair that can equal Δ and no more, r = r*."""
        return self.pair and self.settings.rank == self.settings.true_rank


def lines(case: Case) -> tuple[list[Line], list[str]]:
    """Every line that a prediction gives, and a sentence for each thing that has none."""
    found, notes = [], list(case.ahead.notes)
    for make in LINES:
        for each in make(case):
            if isinstance(each, Line):
                found.append(each)
            else:
                notes.append(each)
    return found, list(dict.fromkeys(notes))


def _level(case: Case, panel: str, label: str, values: np.ndarray, code: str) -> Line:
    """The same height at every recorded step."""
    whole = np.broadcast_to(values, (len(case.steps), len(values))).copy()
    return Line(panel, label, case.steps, whole, f"np.tile({code}, (len(steps), 1))")


def _numbers(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()


def _floor(case: Case) -> Iterator[Line | str]:
    """The least loss that the method can reach."""
    floor = case.ahead.floor
    if (floor > 0).any():
        yield _level(case, "loss", "floor", floor, "ahead.floor")
    elif (floor == 0).all():
        yield "floor: a loss of 0 can be reached, which a logarithmic axis does not show"


def _rate(case: Case) -> Iterator[Line | str]:
    """How fast the loss falls near the solution."""
    rate = case.ahead.loss_rate(case.eta)
    if np.isfinite(rate).any() and np.isfinite(case.ahead.floor).any():
        loss = _numbers(case.run["loss"])
        values = decay(case.steps, loss, case.ahead.floor, rate)
        code = 'decay(steps, run["loss"].numpy(), ahead.floor, ahead.loss_rate(eta))'
        if np.isfinite(values).any():
            yield Line("loss", "local rate", case.steps, values, code)
        elif (rate >= 1).any():
            yield f"rate: {rate.max():.3g} per step, so the solution is unstable at this step size"
        else:
            yield "rate: the run does not come near enough to its floor for the line to start"


def _noise(case: Case) -> Iterator[Line | str]:
    """The expected risk that label noise leaves."""
    chosen = case.settings
    sigma = chosen.noise_std
    if sigma == 0:
        return
    if chosen.model == "relu":
        yield "risk floor of label noise: none is known in the ReLU model"
        return
    if case.method.name == "full" and chosen.model == "linear" and chosen.samples > chosen.d + 1:
        if chosen.ensemble != "gaussian":
            yield "risk floor of label noise: that of full fine-tuning is for Gaussian inputs"
            return
        arguments = {"samples": chosen.samples, "d": chosen.d, "k": chosen.k, "noise_std": sigma}
        height = np.array([predict.mean_full_floor(**arguments)])  # type: ignore[arg-type]
        inside = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        code = f"[lt.predict.mean_full_floor({inside})]"
        yield _level(case, "risk", "mean noise floor", height, code)
        return
    if not case.pair:
        yield "risk floor of label noise: known for pairs that end at the best fit of their rank"
        return
    problem: Any = case.problem
    if chosen.rank < chosen.true_rank or not in_closed_form(problem, chosen.rank):
        return  # `_best_fit` has it
    rank = "" if case.fits else f", rank={chosen.rank}"
    values = _numbers(predict.noise_floor(problem, noise_std=sigma, rank=chosen.rank))
    if not np.isfinite(values).all():
        yield "risk floor of label noise: infinite, some directions are not measured"
        return
    code = f"lt.predict.noise_floor(problem, noise_std={sigma!r}{rank}).numpy()"
    yield _level(case, "risk", "noise floor", values, code)


def _best_fit(case: Case) -> Iterator[Line | str]:
    """The risk of the best fit to the labels at hand, where no mean of it is known."""
    chosen, problem = case.settings, case.problem
    rank, short = chosen.rank, chosen.rank < chosen.true_rank
    if chosen.model == "relu" or not case.pair:
        return
    if isinstance(problem, LinearProblem):
        if not short:
            return
        if problem.samples is not None and problem.samples < problem.d:
            yield "risk of the best fit: with N < d it depends on the start"
            return
        at = predict.pair_solution(problem, rank=rank)
        code = f"problem.risk(lt.predict.pair_solution(problem, rank={rank})).numpy()"
    elif isinstance(problem, SensingProblem):
        if not short and (chosen.noise_std == 0 or in_closed_form(problem, rank)):
            return
        found = chosen.best_fit()
        if found is None:
            yield "risk of the best fit: none was found, or some directions of it are not measured"
            return
        at, code = found, f"problem.risk(lt.predict.best_fit(problem, {rank}).at).numpy()"
        yield "risk of the best fit: of the lowest minimum found; a run can end in another"
    else:
        return
    yield _level(case, "risk", "best fit", _numbers(problem.risk(at)), code)


def _envelope(case: Case) -> Iterator[Line | str]:
    """Theorem 4.2: ‖E_t‖ ≤ (1 − η/4)ᵗ‖E₀‖ in the ReLU model."""
    local, chosen = case.method.facts.local, case.settings
    if chosen.model != "relu":
        return
    preconditioned = local is not None and local.weights == "preconditioned"
    if not (preconditioned and case.fits and case.method.start.name == "spectral"):
        yield (
            "envelope: Theorem 4.2 is on preconditioned descent from Spectral-init at r = r*, "
            "as lora-one-preconditioned"
        )
        return
    if not case.eta < 4:
        yield "envelope: 1 − η/4 is no rate at η ≥ 4"
        return
    factor = predict.relu.envelope(case.eta) ** case.steps[:, None]
    first = _numbers(case.run["error"])[:1]
    code = 'lt.predict.relu.envelope(eta) ** steps[:, None] * run["error"].numpy()[:1]'
    yield Line("error", "envelope (1 − η/4)ᵗ, T4.2", case.steps, factor * first, code)


def _plateau(case: Case) -> Iterator[Line | str]:
    """Where the alignment of an over-ranked run settles."""
    problem, rank = case.problem, case.settings.rank
    if type(problem) is not LinearProblem:
        yield "plateau of the alignment: known in the linear model"
    elif case.method.init_std is None or rank <= case.settings.true_rank:
        yield "plateau of the alignment: that of runs from small LoRA-init with r > r*"
    else:
        values = _numbers(predict.plateau(problem, rank=rank))
        code = f"lt.predict.plateau(problem, rank={rank}).numpy()"
        yield _level(case, "left_alignment", "plateau", values, code)


def _linearised(case: Case) -> Iterator[Line | str]:
    """The alignment of the dynamics without their nonlinear part."""
    if type(case.problem) is not LinearProblem:
        return
    if not case.plain or case.method.facts.flow:
        yield "linearised alignment: that of gradient descent from a Gaussian A with s = 1"
        return
    values = predict.linearised_alignment(case.problem, case.run.initial, case.eta, case.steps)
    code = "lt.predict.linearised_alignment(problem, run.initial, eta, steps).numpy()"
    yield Line("left_alignment", "linearised, early", case.steps, _numbers(values), code)


def _flow(case: Case) -> Iterator[Line | str]:
    """The learned singular values of gradient flow at Σ̂ = I."""
    chosen = case.settings
    if chosen.model != "linear" or not case.plain:
        return
    if not chosen.infinite or chosen.rank < chosen.true_rank:
        yield "singular values of the flow: in closed form at N = ∞ and r ≥ r*"
        return
    later = case.steps[1:]
    values = flow_values(case.problem.shift, case.run.initial.A, case.eta * later)  # type: ignore[attr-defined]
    code = "flow_values(problem.shift, run.initial.A, eta * steps[1:])"
    yield Line("singular_values", "gradient flow", later, values, code)


def flow_values(shift: Factors, A: Tensor, times: np.ndarray) -> np.ndarray:
    """Singular values of AB along gradient flow at Σ̂ = I from B₀ = 0, (T, seeds·r*).

    Those of Δ + E(t), `predict.flow.lora_init`, the r* largest of each seed.

    Args:
        shift: Δ as Factors, batch (seeds,).
        A: A₀ (seeds, d, r).
        times: η·t > 0, (T,).
    """
    E = predict.flow.lora_init(shift, A, times.tolist())
    whole = Factors(*(torch.broadcast_to(M, (len(times), *M.shape[-3:])) for M in shift))
    error = Factors(*(torch.broadcast_to(M, (len(times), *M.shape[-3:])) for M in E))
    found = linalg.truncated_svd(concatenate(whole, error), shift.rank).S
    return _numbers(found.flatten(-2))


def _target(case: Case) -> Iterator[Line | str]:
    """The singular values of Δ itself."""
    shift: Any = case.problem.shift  # type: ignore[attr-defined]
    values = _numbers(linalg.truncated_svd(shift, case.settings.true_rank).S.flatten())
    code = f"lt.linalg.truncated_svd(problem.shift, {case.settings.true_rank}).S.flatten().numpy()"
    yield _level(case, "singular_values", "those of Δ", values, code)


LINES: tuple[Callable[[Case], Iterator[Line | str]], ...] = (
    _floor,
    _rate,
    _noise,
    _best_fit,
    _envelope,
    _plateau,
    _linearised,
    _flow,
    _target,
)
