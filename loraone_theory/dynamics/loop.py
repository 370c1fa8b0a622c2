"""Simulate a method on a problem, for a batch of runs at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loraone_theory import methods
from loraone_theory.core import validate
from loraone_theory.core.factors import Factors
from loraone_theory.core.names import MethodName, RecordName, Sampling
from loraone_theory.dynamics import provenance, settings
from loraone_theory.dynamics.execution import carry_out, prepare
from loraone_theory.dynamics.rates import Rate
from loraone_theory.dynamics.records import Record
from loraone_theory.dynamics.trajectory import Trajectory
from loraone_theory.dynamics.until import Until
from loraone_theory.methods import Method
from loraone_theory.problems.base import Problem


def simulate(
    problem: Problem,
    method: MethodName | str | Method,
    *,
    rank: int,
    learning_rate: Rate | Sequence[Rate],
    steps: int,
    seeds: Sequence[int] | None = None,
    initial: Factors | None = None,
    init_std: float | Sequence[float] | None = None,
    damping: float | Sequence[float] = 0.0,
    record: Sequence[RecordName | str | Record] = ("loss", "risk"),
    every: int = 1,
    reduce: str = "auto",
    keep_factors: int | None = None,
    until: Until | None = None,
    batch_size: int | None = None,
    sampling: Sampling | str | None = None,
    engine: str = "torch",
    progress: Callable[[int], object] | None = None,
) -> Trajectory:
    """Run `steps` steps of a method and record along the way.

    On a batched problem trial i runs on instance i; on a single problem every seed is a trial.
    Sequences for init_std, learning_rate and damping add leading batch axes in that order.
    Where the rule is rotation-equivariant and the problem is a LinearProblem (no subclass of it)
    the problem is reduced exactly first; records and final factors are those of the original
    coordinates. With LoRA-init the reduced right space is V_{r*}(G), so `right_alignment` is then
    zero by construction: use reduce="never" to observe it. Dense sensing goes by K = 𝒜*𝒜/m where
    that makes steps cheaper (`SensingProblem.lighter`), with the same values to rounding.

    Args:
        problem: anything that has the members of `Problem`.
        method: a name in `METHODS`, or a Method.
        rank: r, 1 <= r <= min(d, k).
        learning_rate: η > 0, or a schedule: any callable t -> η for the step from t to t + 1.
        steps: T >= 1.
        seeds: one trial per seed. By default trial i has the seed of instance i.
        initial: A₀ (..., d, r) and B₀ (..., r, k) in place of the method's initialisation.
        init_std: α of LoRA-init, in place of the method's.
        damping: λ >= 0 of preconditioned rules; 0 stands for pseudo-inverses.
        record: names in `RECORDS`, or `Record`s of one's own.
        every: record at t = 0, every, 2·every, …, and at T.
        reduce: "auto" or "never".
        keep_factors: keep the factors at t = 0 and every so many steps, in `run.factors`.
        until: stop once a record is at a level in every run.
        batch_size: b, rows of each step's gradient; None for the full gradient. The rows depend on
            the trial's seed and the step alone.
        sampling: "with-replacement" (the default), "epochs" or "fresh".
        engine: "torch", or "numba" (the extra "fast"): compiled loops for plain descent of A and B
            on a reduced LinearProblem without noise, and for the gradients of a ReLUProblem, with
            the same values to rounding; anything else is refused.
        progress: called with the number of steps done, now and then.

    Returns:
        A Trajectory with records of shape (recorded steps, *batch), t = 0 first. A run that
        diverges gets a status with the step; the others are not affected.

    Raises:
        TypeError, ValueError: an argument that breaks a rule above; nothing has been computed.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=20, k=15, true_rank=2, samples=400, seeds=(0, 1))
    >>> run = simulate(problem, "lora-one", rank=2, learning_rate=0.25, steps=200)
    >>> run.axes, tuple(run["risk"].shape)
    (('seed',), (201, 2))
    >>> bool((run["risk"][-1] < 1e-25).all())
    True
    """
    if progress is not None:
        validate.function("progress", progress)
    chosen = methods.get(method)
    checked = settings.check(
        problem,
        chosen,
        rank=rank,
        learning_rate=learning_rate,
        steps=steps,
        seeds=seeds,
        initial=initial,
        init_std=init_std,
        damping=damping,
        record=record,
        every=every,
        reduce=reduce,
        keep_factors=keep_factors,
        until=until,
        batch_size=batch_size,
        sampling=sampling,
        engine=engine,
    )
    plan = prepare(problem, chosen, checked)
    return Trajectory.of(carry_out(plan, None, checked.steps, progress))


def rerun(
    config: Mapping[str, Any],
    *,
    problem: Problem | None = None,
    method: Method | None = None,
    initial: Factors | None = None,
    records: Sequence[Record] = (),
    learning_rate: Any = None,
    progress: Callable[[int], object] | None = None,
) -> Trajectory:
    """The run again that `run.config` describes, the same bits with as many threads.

    Args:
        config: `run.config`, also after a trip through JSON.
        problem: where it was not drawn by a sampler.
        method: where a part of it was the user's own.
        initial: the factors that were given, where they were.
        records: those of the user's own.
        learning_rate: where it was a function of the user's own.
        progress: as for `simulate`.

    Raises:
        ValueError: a part is missing, or is not the one recorded.

    >>> from loraone_theory.problems.linear.sampling import sample_linear
    >>> problem = sample_linear(d=8, k=6, true_rank=1, samples=40)
    >>> run = simulate(problem, "lora", rank=1, learning_rate=0.1, steps=3)
    >>> bool((rerun(run.config)["loss"] == run["loss"]).all())
    True
    """
    validate.instance("config", config, Mapping, "pass run.config")
    for given in validate.sequence("records", records, "records"):
        validate.instance("each of records", given, Record)
    if progress is not None:
        validate.function("progress", progress)
    plan = provenance.plan_of(
        config,
        problem=problem,
        method=method,
        initial=initial,
        records=records,
        learning_rate=learning_rate,
    )
    return Trajectory.of(carry_out(plan, None, plan.settings.steps, progress))
