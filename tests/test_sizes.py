"""What does not fit is refused before anything is allocated, with its size and a remedy."""

import time

import pytest

import loraone_theory as lt
from loraone_theory.core import memory

LINEAR = {"d": 8, "k": 6, "true_rank": 2, "samples": 40}
RELU = {"d": 8, "k": 6, "true_rank": 2, "relative_shift": 0.1}


def simulate(**changes):
    options = {"rank": 2, "learning_rate": 0.1, "steps": 3} | changes
    return lt.simulate(lt.sample_linear(**LINEAR), "lora", **options)


HUGE = {
    "dense covariance": (
        lambda: lt.sample_linear(**LINEAR | {"d": 10**6, "samples": 10}),
        "TB of memory.*sample_linear_matrix_free",
    ),
    "inputs": (
        lambda: lt.sample_linear(**LINEAR | {"samples": 2 * 10**11}),
        "TB of memory.*lower the sizes",
    ),
    "outputs": (lambda: lt.sample_linear(**LINEAR | {"k": 10**12}), "TB of memory"),
    "instances": (
        lambda: lt.sample_linear(**LINEAR, seeds=range(10**8)),
        "at most 1,000,000 seeds; got 100,000,000; take them in several batches",
    ),
    "matrix-free": (
        lambda: lt.sample_linear_matrix_free(**LINEAR | {"d": 10**12, "samples": 10**13}),
        "TB of memory",
    ),
    "ReLU inputs": (lambda: lt.sample_relu(**RELU, samples=10**12), "TB of memory.*N = ∞"),
    "ReLU weights": (lambda: lt.sample_relu_population(**RELU | {"k": 10**12}), "TB of memory"),
    "steps": (
        lambda: simulate(steps=10**9),
        r"records of 2 numbers at 1,000,000,002 .*raise every",
    ),
    "trials": (lambda: simulate(seeds=range(10**8)), "at most 1,000,000 seeds"),
    "sweep": (
        lambda: simulate(steps=10**6, learning_rate=[0.1] * 1000, damping=0.0, seeds=range(1000)),
        "TB of memory.*raise every, or record less",
    ),
    "beyond 64 bits": (lambda: simulate(steps=10**30), "steps must be at most"),
}


@pytest.mark.parametrize("name", HUGE)
def test_refused_at_once(name, monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 64 * 10**9)  # whatever runs this
    call, message = HUGE[name]
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message):
        call()
    # Filling the memory of such a machine takes tens of seconds.
    assert time.perf_counter() - start < 10


def test_long_runs_that_record_little_are_not_refused():
    problem = lt.sample_linear(**LINEAR)
    seen = []

    def stop(done):
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lt.simulate(
            problem, "lora", rank=2, learning_rate=0.1, steps=10**9, every=10**6, progress=stop
        )
    assert seen


def test_the_machine_has_memory():
    found = memory.machine_bytes()
    assert found is None or 10**8 < found < 10**15


def test_an_unknown_machine_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: None)
    memory.refuse_beyond_memory("everything", 10**30, "-")
