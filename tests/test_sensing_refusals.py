"""What noise, input laws and ensembles cannot do: one clear error before anything is computed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory.core.randomness import generator

ROWS, LABELS = np.ones((6, 3)), np.ones((6, 2))
LINEAR = {"d": 6, "k": 5, "true_rank": 2, "samples": 40}
DENSE = {"ensemble": "dense", "d": 6, "k": 5, "true_rank": 2, "measurements": 60}
WIDE = {"d": 10**5, "k": 10**5, "true_rank": 2, "samples": 2 * 10**5, "noise_std": 0.1}
ENTRY = torch.tensor([0])
ONE = torch.ones(1).double()


def run(problem: object, method: str, **more: object) -> object:
    return lt.simulate(problem, method, rank=2, learning_rate=0.1, steps=5, **more)


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "labels of another length": (
        lambda: lt.LinearProblem.from_data(ROWS, labels=LABELS[:5]),
        "labels must hold one row for each row of X",
    ),
    "labels of another width than W": (
        lambda: lt.LinearProblem.from_data(ROWS, labels=LABELS, pretrained=np.ones((3, 4))),
        "pretrained must be d x k",
    ),
    "nothing to learn": (lambda: lt.LinearProblem.from_data(ROWS), "pass shift=Δ, labels=Y"),
    "no measurements": (
        lambda: lt.sample_sensing(**(DENSE | {"measurements": 0})),
        "measurements must be >= 1",
    ),
    "an entry outside": (
        lambda: lt.operators.Completion(ENTRY + 2, ENTRY, 2, 2, ONE),
        "rows must lie in 0..1",
    ),
    "an entry twice": (
        lambda: lt.operators.Completion(ENTRY.repeat(2), ENTRY.repeat(2), 2, 2, ONE),
        r"each entry once; got entry \(0, 0\) more than once",
    ),
    "more entries than there are, each once": (
        lambda: lt.sample_sensing(
            **(DENSE | {"ensemble": "completion", "measurements": 31}), replace=False
        ),
        r"measurements <= d \* k",
    ),
    "a row outside": (
        lambda: lt.sample_sensing(**DENSE).batch(torch.tensor([60])),
        "indices must be from 0 to N - 1; got 60 with N=60",
    ),
    "negative noise": (
        lambda: lt.sample_linear(**LINEAR, noise_std=-0.1),
        "noise_std must be finite and >= 0",
    ),
    "negative noise of measurements": (
        lambda: lt.sample_sensing(**DENSE, noise_std=-0.1),
        "noise_std must be finite and >= 0",
    ),
    "a covariance that is none": (
        lambda: lt.sample_linear(**LINEAR, covariance=np.diag([1.0, 1, 1, 1, 1, -1])),
        "covariance must be positive definite",
    ),
    "a method of W without W": (
        lambda: run(lt.sample_sensing(**DENSE), "pissa"),
        "'pissa' initialises from the pre-trained weight",
    ),
    "minibatches without X": (
        lambda: run(lt.sample_linear(**LINEAR), "lora", batch_size=4),
        "minibatches need the rows of X",
    ),
    "a matrix-free instance and a rule with coordinates": (
        lambda: run(lt.sample_linear_matrix_free(**LINEAR), "lora-adamw"),
        "known up to a rotation",
    ),
    "a lazy operator beyond its horizon": (
        lambda: run(
            lt.sample_dense_lazy(d=6, k=5, true_rank=2, measurements=60, steps=2), "lora-one"
        ),
        "draw it with a larger steps",
    ),
    "lazy noise beyond its horizon": (
        lambda: run(
            lt.sample_linear_lazy(
                d=40, k=40, true_rank=2, samples=100, noise_std=0.1, steps=1, rank=2
            ),
            "lora",
            record=("loss",),
        ),
        "draw it with a larger steps or rank",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(case: str) -> None:
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_noise_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """d = k = 10⁵ takes 80 GB, which is said before a number is drawn."""
    monkeypatch.setattr("loraone_theory.core.memory.machine_bytes", lambda: 64 * 10**9)
    drawn = []

    def noted(seed: int, stream: str) -> np.random.Generator:
        drawn.append(stream)
        return generator(seed, stream)

    monkeypatch.setattr("loraone_theory.core.randomness.generator", noted)
    with pytest.raises(ValueError, match=r"take 80 GB of memory.*64 GB.*sample_linear_lazy"):
        lt.sample_linear_matrix_free(**WIDE)
    with pytest.raises(ValueError, match="GB of memory"):
        lt.sample_linear(**WIDE)
    assert drawn == []
