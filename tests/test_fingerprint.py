"""Fingerprints tell apart what computes something else, and nothing else."""

import dataclasses
import functools
import json
import subprocess
import sys
import textwrap
from enum import Enum

import numpy as np
import pytest
import torch
from torch.nn import functional

import loraone_theory as lt
from loraone_theory.core.fingerprint import fingerprint

FACTOR = 1.0
TABLE = {"a": torch.ones(2)}


def helper(x):
    return x + 1


def uses_a_number(W):
    return FACTOR * W


def uses_a_table(W):
    return TABLE["a"] * W


def uses_a_helper(W):
    return helper(W)


def uses_it_within(W):
    return [helper(w) for w in W]


class Net:
    scale = 2.0

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return self.scale * self.weight * x

    @functools.cached_property
    def slow(self):
        return self.weight**2


class Slots:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight

    def __repr__(self):
        return "Slots()"


@dataclasses.dataclass(frozen=True)
class Rate:
    peak: float

    def __call__(self, t):
        return self.peak / (1 + t)

    def __repr__(self):
        return "Rate()"


class Colour(Enum):
    RED = 1
    BLUE = 2


def layer(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())


def captured(value):
    return lambda W: (value, W)


# Two of a kind that compute different things.
PAIRS = {
    "closures": (captured(1.0), captured(2.0)),
    "weights of a module": (captured(layer(0)), captured(layer(1))),
    "modules": (layer(0), layer(1)),
    "fields": (Net(1.0), Net(2.0)),
    "slots": (Slots(1.0), Slots(2.0)),
    "fields behind a repr": (Rate(0.1), Rate(0.2)),
    "methods of two objects": (Net(1.0).__call__, Net(2.0).__call__),
    "partials": (functools.partial(helper, x=1), functools.partial(helper, x=2)),
    "long arrays": ({1: torch.zeros(3000)}, {1: torch.arange(3000.0)}),
    "members of an enum": (Colour.RED, Colour.BLUE),
    "generators": (np.random.default_rng(0), np.random.default_rng(1)),
    "caches around functions": (functools.lru_cache(helper), functools.lru_cache(uses_a_helper)),
    "constants": (lambda x: x in {1, 2}, lambda x: x in {1, 3}),
}


@pytest.mark.parametrize("case", PAIRS)
def test_what_computes_something_else_is_told_apart(case):
    first, second = PAIRS[case]
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)


@pytest.mark.parametrize(
    ("function", "name", "other"),
    [
        (uses_a_number, "FACTOR", 2.0),
        (uses_a_table, "TABLE", {"a": torch.zeros(2)}),
        (uses_a_helper, "helper", lambda x: x + 2),
        (uses_it_within, "helper", lambda x: x + 2),
    ],
)
def test_what_is_reached_by_a_global_name_counts(monkeypatch, function, name, other):
    before = fingerprint(function)
    assert fingerprint(function) == before
    monkeypatch.setitem(globals(), name, other)
    assert fingerprint(function) != before


def test_code_and_attributes_of_ones_own_classes_count(monkeypatch):
    before = fingerprint(Net(1.0))
    monkeypatch.setattr(Net, "scale", 3.0)
    assert fingerprint(Net(1.0)) != before
    monkeypatch.undo()
    assert fingerprint(Net(1.0)) == before
    monkeypatch.setattr(Net, "__call__", lambda self, x: x)
    assert fingerprint(Net(1.0)) != before


def test_what_is_cached_does_not_count():
    net = Net(3.0)
    before = fingerprint(net)
    assert net.slow == 9.0
    assert fingerprint(net) == before


def test_what_holds_itself_ends():
    def again(n):
        return again(n - 1)

    ring = []
    ring.append(ring)
    assert fingerprint(again) == fingerprint(again)
    assert fingerprint(ring) == fingerprint(ring)


SCRIPT = """
    import functools, json, numpy as np, torch
    from torch.nn import functional
    from loraone_theory.core.fingerprint import fingerprint
    WEIGHT = np.arange(4.0)
    WORDS = {"tanh", "gelu", "relu", "silu"}
    class Rate:
        def __init__(self, peak): self.peak = peak
        def __call__(self, t): return self.peak / (1 + t)
    @functools.lru_cache
    def helper(x): return x if x in {"a", "b", "c"} else WORDS
    def loss(W, X): return functional.gelu(X @ W).square().mean() * WEIGHT.sum() + helper("a")
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    things = [loss, Rate(0.5), net, helper, lambda W: net(W), np.random.default_rng(3)]
    print(json.dumps([fingerprint(thing) for thing in things]))
"""


def test_a_restart_changes_nothing():
    """Hashes of texts are other ones in each process, and so are addresses."""
    ends = []
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SCRIPT)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        ends.append(json.loads(found.stdout))
    assert ends[0] == ends[1]
    assert len(set(ends[0])) == len(ends[0])


def entropy(net):
    def loss(W, X, Y):
        return functional.mse_loss(net(torch.tanh(X @ W)), Y)

    X, Y = (torch.from_numpy(np.random.default_rng(i).standard_normal((20, n)))
            for i, n in enumerate((5, 2)))  # fmt: skip
    W = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 4)))
    return lt.from_loss(loss, d=5, k=4, data=(X, Y), pretrained=W)


def head(seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(4, 2).double().requires_grad_(False)


def test_a_problem_with_other_weights_is_refused_after_a_restart(tmp_path):
    """A two-layer network, whose second layer is a module that the loss captures."""
    given = {"rank": 2, "learning_rate": 0.1}
    whole = lt.simulate(entropy(head(0)), "lora-one", steps=6, **given)
    lt.simulate(entropy(head(0)), "lora-one", steps=3, **given).save(tmp_path / "run.npz")
    again = lt.Trajectory.load(tmp_path / "run.npz")
    assert torch.equal(again.extend(3, problem=entropy(head(0)))["loss"], whole["loss"])
    with pytest.raises(ValueError, match="the problem handed in is not the one"):
        again.extend(3, problem=entropy(head(1)))


class Ridge(lt.LinearProblem):
    weight = 0.5

    def gradients(self, shift):
        A, B = shift
        grad_A, grad_B = super().gradients(shift)
        learned = self.weight * A @ B
        return lt.Factors(grad_A + learned @ B.mT, grad_B + A.mT @ learned)


def test_a_class_of_ones_own_is_part_of_its_problem(tmp_path, monkeypatch):
    plain = lt.sample_linear(d=6, k=5, true_rank=2, samples=40)
    problem = Ridge(plain.covariance, plain.shift, samples=plain.samples)
    run = lt.simulate(problem, "lora", rank=2, learning_rate=0.1, steps=3)
    run.save(tmp_path / "run.npz")
    again = lt.Trajectory.load(tmp_path / "run.npz")
    again.extend(2, problem=problem)
    monkeypatch.setattr(Ridge, "weight", 1.0)
    with pytest.raises(ValueError, match="the problem handed in is not the one"):
        again.extend(2, problem=problem)
