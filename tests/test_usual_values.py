"""Hyper-parameters of every rule, initialisation and method: usual values, and how far they go."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import loraone_theory as lt
from loraone_theory.core.linalg import SVDOptions
from loraone_theory.methods import inits, rules
from loraone_theory.methods.rules import Local
from loraone_theory.methods.symmetric import (
    gram_preconditioned,
    symmetric,
    symmetric_preconditioned,
)

TABLES: dict[str, dict[str, Callable[..., Any]]] = {
    "rule": dict(rules.RULES),
    "around": dict(rules.AROUND),
    "init": dict(inits.INITS),
    "method": dict(lt.METHODS),
    "symmetric": {
        "symmetric": symmetric,
        "symmetric-preconditioned": symmetric_preconditioned,
        "gram-preconditioned": gram_preconditioned,
    },
}
ROWS = [(kind, name) for kind, table in TABLES.items() for name in table]
# What has no usual value.
NEEDED = {"learning_rate": 0.1, "std": 0.1, "base": rules.gd(0.1)}

# A parameter of the flow's integrator, not a tolerance of these tests.
INTEGRATED_TO, TIGHTEST = 1e-10, 1e-13
# Those of the papers and of the code that came with them; one name, one value ...
USUAL = {
    # AdamW (Loshchilov, Hutter), and the momentum of every library
    "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "beta": 0.9, "l2": 0.0,
    # LoRA: entries of A₀ of standard deviation 0.01, W_f + AB
    "init_std": 0.01, "scale": 1.0, "alpha": 1.0,
    # undamped, and nothing added to a damping
    "damping": 0.0, "relative": 0.0, "adaptive": 0.0,
    # LoRA+ 16, LoRA-GA 16 of "ArB2r", LoRA-Pro 1e-8 of a pseudo-inverse, LoRA-XS 1e-5, LoRA-SB 1
    "ratio": 16.0, "gamma": 16.0, "direction": "ArB2r", "size": "stable", "ridge": 1e-8,
    "moments": "full", "core_std": 1e-5, "step": 1.0, "signed": False,
    # scaled AdamW as released
    "order": "released", "bias_correction": None,
    # AdaLoRA
    "target_rank": None, "total_steps": 1000, "initial_steps": 0, "final_steps": 0, "interval": 1,
    "penalty": 0.5, "squared": False,
    # LoRA-RITE without its escaped mass, Muon unscaled, white inputs, exact decompositions
    "escaped_mass": False, "scaled": False, "covariance": None, "svd": SVDOptions(),
    "rtol": INTEGRATED_TO, "iterations": 50,
}  # fmt: skip
# ... but where another one is usual.
ITS_OWN = {
    ("adamw", "ratio"): 1.0,  # plain AdamW
    ("lora-pro", "betas"): None,  # without moments
    ("muon", "beta"): 0.0,  # each gradient alone
    ("adalora", "betas"): (0.85, 0.85),
    ("adalora", "init_std"): 0.02,
    ("released", "gamma"): 128.0,
    ("lora-one-released", "gamma"): 128.0,
    ("spectral", "gamma"): None,  # that of the problem
    ("symmetric-preconditioned", "init_std"): "spectral",
} | {
    (f"lora-one{end}", "gamma"): None
    for end in ("", "-preconditioned", "-adamw", "-scaled-adamw", "-whitened")
}


def parameters(make: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(make).parameters.items()}


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_the_usual_values(kind: str, name: str) -> None:
    make = TABLES[kind][name]
    found = parameters(make)
    make(**{needed: NEEDED[needed] for needed in found if needed in NEEDED})
    expected = {
        each: ITS_OWN.get((name, each), USUAL[each]) for each in found if each not in NEEDED
    }
    assert {each: found[each] for each in expected} == expected


# --- local rates -----------------------------------------------------------------------------

# Which rules act near a solution as a map of the gradient, and as which one.
LOCAL = {
    "gd": Local(),
    "momentum": Local(momentum=0.9),
    "lora-plus": Local(ratio=16.0),
    "preconditioned": Local("preconditioned"),
    "lora-pro": Local("full"),
}
# What moves the solution away from the fit, or the map with the factors.
MOVED = ("weight_decay", "l2", "relative")


@pytest.mark.parametrize("name", rules.RULES)
def test_which_rules_have_a_rate_and_what_takes_it_away(name: str) -> None:
    make = rules.RULES[name]
    assert make(0.1).local == LOCAL.get(name)
    for option in set(MOVED) & set(parameters(make)):
        assert make(0.1, **{option: 0.0}).local == LOCAL.get(name)
        assert make(0.1, **{option: 0.2}).local is None


# --- edges -----------------------------------------------------------------------------------

LEAST = math.ulp(0.0)
BELOW_ONE = math.nextafter(1.0, 0.0)
# Name -> what lies just inside, what just outside.
POSITIVE = ([np.finfo(float).tiny, 1.0], [0.0, -LEAST])
FROM_ZERO = ([0.0, LEAST], [-LEAST])
BELOW = ([0.0, BELOW_ONE], [1.0, -LEAST])
COUNT = ([1], [0])
EDGES: dict[str, tuple[list[Any], list[Any]]] = {
    **dict.fromkeys(("eps", "scale", "alpha", "gamma", "core_std", "step"), POSITIVE),
    **dict.fromkeys(
        ("learning_rate", "damping", "weight_decay", "l2", "relative", "adaptive", "ridge"),
        FROM_ZERO,
    ),
    "penalty": FROM_ZERO,
    "beta": BELOW,
    "betas": (
        [(0.0, 0.0), (BELOW_ONE, BELOW_ONE)],
        [(1.0, 0.9), (0.9, 1.0), (-LEAST, 0.9), (0.9, -LEAST)],
    ),
    "ratio": ([1.0], [BELOW_ONE]),
    "rtol": ([TIGHTEST, BELOW_ONE], [math.nextafter(TIGHTEST, 0.0), 1.0]),
    "iterations": COUNT,
    "interval": COUNT,
    "total_steps": COUNT,
    "initial_steps": ([0, 999], [-1, 1000]),  # of 1000 steps
    "final_steps": ([0, 999], [-1, 1000]),
}
REACHED = [
    (kind, name, each)
    for kind, name in ROWS
    for each in parameters(TABLES[kind][name])
    if each in EDGES
]


@pytest.mark.parametrize(("kind", "name", "parameter"), REACHED)
def test_what_is_just_inside_is_taken_and_what_is_just_outside_refused(
    kind: str, name: str, parameter: str
) -> None:
    make = TABLES[kind][name]
    needed = {each: NEEDED[each] for each in parameters(make) if each in NEEDED}
    inside, outside = EDGES[parameter]
    for value in inside:
        make(**needed | {parameter: value})
    for value in outside:
        with pytest.raises(ValueError, match=parameter):
            make(**needed | {parameter: value})
