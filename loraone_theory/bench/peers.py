"""The notebook's experiment by its peers: JAX, torch.compile, numba; needs the extra `bench`.

All are timed in one process of their own on one thread, so that their settings and threads are not
those of whoever asks, and first runs are first ones.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch

from loraone_theory.bench import baselines
from loraone_theory.bench.base import Row, Setting, benchmark, of_pairs, seconds, warm_seconds
from loraone_theory.bench.linear import ALPHA2
from loraone_theory.bench.peer_forms import PEERS, Experiment, has_compiler, ours
from loraone_theory.core.extras import MissingExtra

# One thread for each library; JAX counts in float64 and asks NPROC how many processors there are.
ENVIRONMENT = {
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMBA_NUM_THREADS",
            "NPROC",
        ),
        "1",
    ),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_ENABLE_X64": "1",
    "JAX_PLATFORMS": "cpu",
}
COMPILES = "torch.compile"


@benchmark("peers")
def peers(setting: Setting) -> Iterator[Row]:
    """The reference experiment against JAX, torch.compile and numba; first and later runs."""
    if not set(PEERS) - set(_left_out(setting.tiny)):
        raise MissingExtra(
            "no peer is here: pip install 'loraone-theory[bench]', or a C++ compiler for "
            f"{COMPILES} at full size",
            name="jax",
        )
    code = "import sys; from loraone_theory.bench import peers; peers.measure(*sys.argv[1:])"
    call = [sys.executable, "-c", code, str(int(setting.tiny)), str(setting.pairs)]
    environment = os.environ | ENVIRONMENT
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield Row(**json.loads(line))
    if child.returncode:
        raise RuntimeError(f"the process of the peers ended with {child.returncode}")


def experiment(*, tiny: bool, angles: bool) -> Experiment:
    """Five init sizes of the reference experiment."""
    d, samples, steps = (20, 160, 20) if tiny else (100, 1600, 1500)
    instance = baselines.sample(d, d, 4, samples, torch.float64)
    starts = [baselines.start(instance, 8, math.sqrt(a))[0].numpy() for a in ALPHA2]
    X, shift = instance.X.numpy(), instance.target.numpy()
    return Experiment(X, shift, np.stack(starts), instance.true_rank, 1 / 64, steps, angles)


def absent() -> dict[str, str]:
    """Peer -> what it would need that is not here."""
    found = {}
    for name, peer in PEERS.items():
        if peer.package and find_spec(peer.package) is None:
            found[name] = f"{peer.package} is not installed"
        if not peer.package and not has_compiler():
            found[name] = "there is no C++ compiler"
    return found


def _left_out(tiny: bool) -> dict[str, str]:
    """Peer -> why it is not timed."""
    found = absent()
    if tiny:  # torch takes half a minute to compile
        found.setdefault(COMPILES, "not at tiny size")
    return found


def measure(tiny: str, pairs: str) -> None:
    """Rows as lines of JSON, in the process that is for it."""
    torch.set_num_threads(1)
    for row in _rows(tiny == "1", int(pairs)):
        print(json.dumps(asdict(row)), flush=True)


class Ours(NamedTuple):
    """The library by one of its engines, and the seconds of its first run."""

    run: Callable[[], np.ndarray]
    first: float


def _rows(tiny: bool, pairs: int) -> Iterator[Row]:
    left_out = _left_out(tiny)
    about = {"left_out": left_out} if left_out else {}
    for angles in (True,) if tiny else (True, False):  # every form is compiled anew
        given = experiment(tiny=tiny, angles=angles)
        mine = {e: _started(given, e) for e in ("torch", "numba") if e == "torch" or find_spec(e)}
        for name, peer in PEERS.items():
            if name not in left_out and (angles or peer.bare):
                share = 1 if tiny else peer.share
                yield from _beside(name, given, mine, share, min(pairs, 3), about)


def _started(given: Experiment, engine: str) -> Ours:
    run = ours(given, engine)
    return Ours(run, seconds(run))


def _beside(
    name: str,
    given: Experiment,
    mine: dict[str, Ours],
    share: int,
    pairs: int,
    about: dict[str, Any],
) -> Iterator[Row]:
    """A row for each of our engines, a peer and all of them in alternation.

    The peer runs one step of so many, its `share`, and its seconds count that often.
    """
    peer = PEERS[name]
    theirs = peer.form(given._replace(steps=given.steps // share))
    first = seconds(theirs)
    peers_s: list[float] = []
    ours_s: dict[str, list[float]] = {engine: [] for engine in mine}
    for _ in range(pairs):
        peers_s.append(share * warm_seconds(theirs))
        for engine, one in mine.items():
            ours_s[engine].append(warm_seconds(one.run))
    once = statistics.median(peers_s) / share
    sizes = {
        "first_run_s": round(first + (share - 1) * once, 3),
        "d": given.X.shape[1], "N": len(given.X), "r": given.starts.shape[-1],
        "true_rank": given.true_rank, "steps": given.steps, "runs": len(given.starts),
        "timed_steps": given.steps // share,
    }  # fmt: skip
    records = "loss, risk and angles" if given.angles else "loss and risk"
    for engine, one in mine.items():
        notes = {"our_first_run_s": round(one.first, 3), **sizes, **about}
        case = f"peers/{name}, {records}, engine={engine}"
        yield of_pairs(case, peer.words, peers_s, ours_s[engine], notes)
