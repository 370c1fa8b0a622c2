"""What peers of the library compute in `loraone bench peers`, against a longhand loop over X."""

import functools
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tolerance
import torch
import xloop

from loraone_theory.bench import peer_forms, peers

ENGINES = ("torch", "numba")
# In a process of its own: JAX keeps threads, and forks of a process that has them are not safe.
CODE = """
import json, sys
from loraone_theory.bench import peer_forms, peers
found = {}
for name in sys.argv[1:]:
    for angles in (True, False):
        given = peers.experiment(tiny=True, angles=angles)
        if name in peer_forms.PEERS:
            run = peer_forms.PEERS[name].form(given)
        else:
            run = peer_forms.ours(given, name)
        first, later = run(), run()
        assert (first == later).all() and later.dtype == "float64"
        found[f"{name}, {angles}"] = later.tolist()
print(json.dumps(found))
"""


@functools.cache
def found(names: tuple[str, ...]) -> dict[str, Any]:
    environment = os.environ | peers.ENVIRONMENT
    call = [sys.executable, "-c", CODE, *names]
    ended = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@functools.cache
def longhand() -> tuple[np.ndarray, np.ndarray, float]:
    """Records (3, steps, runs), the allowed errors of the angles, and of roots of loss and risk."""
    given = peers.experiment(tiny=True, angles=True)
    X, shift, p = given.X, given.shift, given.true_rank
    # Two products of length N a step, at the condition of Σ̂ with N = 8d: (1 + 8^-½)²/(1 - 8^-½)².
    close = tolerance.rounding(len(X), operations=2 * given.steps, condition=5)
    U = np.linalg.svd(X.T @ X @ shift)[0]
    records = np.empty((3, given.steps, len(given.starts)))
    allowed = np.empty(records.shape[1:])
    for i, start in enumerate(given.starts):
        B = np.zeros((start.shape[1], shift.shape[1]))
        loop = xloop.pair_loop(
            X, X @ shift, 0 * shift, start, B, eta=given.learning_rate, steps=given.steps - 1
        )
        for t, (A, B) in enumerate(loop):
            E = A @ B - shift
            Q, S, _ = np.linalg.svd(A)
            sine = np.linalg.norm(U[:, p:].T @ Q[:, :p], 2)
            records[:, t, i] = ((X @ E) ** 2).sum() / (2 * len(X)), (E**2).sum() / 2, sine
            # A Gram matrix has the squares of the singular values, and so their ratio once more.
            error = close * S[0] * S[0] / S[p - 1]
            allowed[t, i] = tolerance.subspace(S, p, error)
    return records, allowed, close


def assert_right(name: str, values: dict[str, Any]) -> None:
    records, allowed, close = longhand()
    for angles in (True, False):
        mine = np.array(values[f"{name}, {angles}"])
        assert mine.shape == (2 + angles, *records.shape[1:])
        for row in (0, 1):
            tolerance.roots(torch.from_numpy(mine[row]), torch.from_numpy(records[row]), close)
        if angles:
            assert (np.abs(mine[2] - records[2]) <= allowed).all()


@pytest.mark.parametrize("name", [*ENGINES, *(n for n in peer_forms.PEERS if n != peers.COMPILES)])
def test_every_peer_computes_what_the_loop_over_X_does(name: str) -> None:
    away = peers.absent()
    away |= {"numba": away["numba loop"]} if "numba loop" in away else {}
    if name in away:
        pytest.skip(away[name])
    here = tuple(n for n in (*ENGINES, *peer_forms.PEERS) if n not in away and n != peers.COMPILES)
    assert_right(name, found(here))


@pytest.mark.slow
def test_the_compiled_plain_loop_computes_the_same() -> None:
    if os.environ.get("ATEN_CPU_CAPABILITY") == "default":
        pytest.skip("torch.compile writes vector code where torch is told to use none")
    if peers.COMPILES in (away := peers.absent()):
        pytest.skip(away[peers.COMPILES])
    assert_right(peers.COMPILES, found((peers.COMPILES,)))


def test_what_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    away = peers.absent()
    assert list(away) == list(peer_forms.PEERS)
    assert away["jax"] == "jax is not installed"
    assert away[peers.COMPILES] == "there is no C++ compiler"
