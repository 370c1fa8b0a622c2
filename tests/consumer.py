"""A program of a user's, to be checked by strict type checkers against the installed package."""

import numpy as np
import torch
from torch import Tensor

import loraone_theory as lt


def nuclear(view: object) -> Tensor:
    """A record of one's own."""
    return torch.zeros(1)


def sign_descent(learning_rate: float, damping: float) -> lt.Rule:
    """A rule of one's own."""

    def update(
        params: tuple[Tensor, ...], gradients: tuple[Tensor, ...], state: object
    ) -> tuple[tuple[Tensor, ...], object]:
        return tuple(
            P - learning_rate * G.sign() for P, G in zip(params, gradients, strict=True)
        ), state

    return lt.Rule(lambda params: (), update)


problem = lt.sample_linear(d=20, k=10, true_rank=2, samples=200, seeds=(0, 1))
run: lt.Trajectory = lt.simulate(
    problem, "lora-one", rank=2, learning_rate=0.2, steps=50, record=("loss", "risk")
)
final: Tensor = run["risk"][-1]
arrays: dict[str, np.ndarray] = run.to_numpy()
more: lt.Trajectory = run.extend(10)
method: lt.Method = lt.METHODS["lora"]().trained_by("gd").with_rule(sign_descent, name="sign")
floor: Tensor = lt.predict.plateau(problem)
sensing = lt.sample_sensing(ensemble="completion", d=8, k=8, true_rank=1, measurements=40)
other: lt.Trajectory = lt.simulate(sensing, method, rank=1, learning_rate=0.01, steps=5)
verdict: lt.Verdict = lt.verify("T3.1", trials=20)
tuned: lt.Tuned = lt.tune_step(problem, "lora-one", rank=2, steps=20)
print(final, arrays["risk"].shape, more.steps, floor, other.status, verdict, tuned)
