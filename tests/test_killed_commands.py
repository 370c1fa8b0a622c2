"""kill -9 at random moments of real commands: files are old, new or absent, and nothing is lost.

Every second kill comes at any moment of the command, the others in the first milliseconds after it
began to write.
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import TEMPORARY, Forks

import loraone_theory as lt
from loraone_theory import bench, storage

KILLS = 12  # of each command
WRITING = 0.006  # seconds after a first temporary file within which it is killed
SMALL = ["--d", "8", "--k", "6", "--rank", "2", "--true-rank", "1"]
LINEAR = "lora-one/linear"
IDS = [f"{LINEAR}/{name}" for name in ("one-step", "one-step/balance", "lora-pro", "floors/scale")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    folder = tmp_path / "work"
    folder.mkdir()
    with Forks(folder) as found:
        yield found


def killed(
    forks: Forks,
    arguments: Callable[[int], list[object]],
    look: Callable[[int], None],
    *,
    seed: int,
    into: str = ".",
) -> None:
    """Kill arguments(1), arguments(2), ..., look at what each leaves, and let a last one end."""
    rng = random.Random(seed)
    whole = forks.run(arguments(0))
    assert whole.code == 0, forks.said.read_text()
    look(0)
    hit = 0
    for kill in range(1, KILLS + 1):
        if kill % 2:
            ended = forks.run(arguments(kill), rng.uniform(0, whole.seconds))
        else:
            ended = forks.run(
                arguments(kill), rng.uniform(0, WRITING), writing=str(forks.folder / into)
            )
        assert ended.code in (0, None), forks.said.read_text()
        hit += ended.code is None
        look(kill)
    assert hit >= KILLS // 2  # else they were over before
    assert forks.run(arguments(KILLS + 1)).code == 0, forks.said.read_text()
    look(KILLS + 1)
    assert not list(forks.folder.rglob(TEMPORARY))


def test_simulate_saves_a_run_or_none(forks: Forks) -> None:
    path = forks.folder / "run.npz"
    kept = {"run": -1}

    def look(run: int) -> None:
        found = lt.Trajectory.load(path)
        (seed,) = found.config["seeds"]
        assert seed in (kept["run"], run)
        assert found["loss"].shape == (201, 1)
        assert torch.isfinite(found["loss"]).all()
        kept["run"] = seed

    def arguments(run: int) -> list[object]:
        return [
            "simulate", "lora", *SMALL, "--samples", 40, "--steps", 200, "--seeds", run,
            "--save", path,
        ]  # fmt: skip

    killed(forks, arguments, look, seed=1)
    assert kept["run"] == KILLS + 1


def test_compare_saves_a_pair_or_none(forks: Forks) -> None:
    path = forks.folder / "compared.npz"
    kept = {"run": -1}

    def look(run: int) -> None:
        try:
            arrays, about = storage.load_pair(path)
        except FileNotFoundError:  # between the halves: neither is taken for a result
            assert run > 0
            assert not path.with_suffix(".json").exists()
            kept["run"] = -1
            return
        steps = about["config"]["steps"]
        assert steps - 40 in (kept["run"], run)
        assert all(a.shape[0] == steps + 1 for name, a in arrays.items() if name.endswith("loss"))
        kept["run"] = steps - 40

    def arguments(run: int) -> list[object]:
        return [
            "compare", "lora-one", "lora-ga", *SMALL, "--samples", 40, "--steps", 40 + run,
            "--save", path,
        ]  # fmt: skip

    killed(forks, arguments, look, seed=2)
    assert kept["run"] == KILLS + 1


def test_verify_measures_no_finished_claim_again(forks: Forks) -> None:
    """The seconds in a record are those of the run that measured it."""
    path, rng = forks.folder / "verdicts.json", random.Random(3)
    partial = path.with_suffix(".partial.json")
    whole = forks.run(["verify", *IDS, "--smoke", "--json", forks.folder / "once.json"])
    assert whole.code == 0, forks.said.read_text()
    kept: dict[str, float] = {}
    rounds, most = 0, 0
    patience = 1.0  # more while a busy machine finishes nothing before it is killed
    for kill in range(KILLS):
        patience *= 1 if rounds or most else 1.5
        if kill % 2:
            ended = forks.run(
                ["verify", *IDS, "--smoke", "--json", path],
                rng.uniform(0, WRITING),
                writing=str(forks.folder),
            )
        else:
            after = patience * rng.uniform(0.1, 1.0) * whole.seconds
            ended = forks.run(["verify", *IDS, "--smoke", "--json", path], after)
        assert ended.code in (0, None), forks.said.read_text()
        entries = json.loads(partial.read_text()) if partial.exists() else []
        now = {entry["record"]["id"]: entry["record"]["seconds"] for entry in entries}
        if path.exists():  # killed after the end, or not at all
            final = {r["id"]: r["seconds"] for r in json.loads(path.read_text())}
            assert set(final) == set(IDS)
            assert final.items() >= kept.items()
            path.unlink()
            partial.unlink(missing_ok=True)
            kept, rounds = {}, rounds + 1
            continue
        assert now.items() >= kept.items(), "finished claims were lost or measured again"
        kept, most = now, max(most, len(now))
    assert rounds + most > 0  # kills came after something was finished
    assert forks.run(["verify", *IDS, "--smoke", "--json", path]).code == 0
    final = {r["id"]: r for r in json.loads(path.read_text())}
    assert {name: r["seconds"] for name, r in final.items()}.items() >= kept.items()
    once = {r["id"]: r for r in json.loads((forks.folder / "once.json").read_text())}
    for name in IDS:
        assert final[name]["verdict"] == once[name]["verdict"]
        assert final[name]["reason"] == once[name]["reason"]
    assert sorted(p.name for p in forks.folder.iterdir()) == ["once.json", "verdicts.json"]


def test_reproduce_leaves_data_and_figures_whole(forks: Forks) -> None:
    out = forks.folder / "out"
    seen: dict[int, np.ndarray] = {}

    def look(run: int) -> None:
        path = out / "fig_step_size.npz"
        for picture in out.glob("[!.]*.png"):
            assert picture.read_bytes().endswith(b"IEND\xaeB`\x82")
        for picture in out.glob("[!.]*.pdf"):
            assert picture.read_bytes().rstrip().endswith(b"%%EOF")
        try:
            arrays, about = storage.load_pair(path)
        except FileNotFoundError:
            assert run > 0
            return
        trials = about["config"]["trials"]
        assert trials in (2, 3)
        first = seen.setdefault(trials, arrays)
        assert all(np.array_equal(first[name], arrays[name], equal_nan=True) for name in first)

    def arguments(run: int) -> list[object]:
        return ["reproduce", "fig_step_size", "--smoke", "--trials", 2 + run % 2, "--out", out]

    killed(forks, arguments, look, seed=4, into="out")
    assert set(seen) == {2, 3}


def test_bench_keeps_the_rows_of_what_was_timed(forks: Forks) -> None:
    path = forks.folder / "timed.json"
    assert forks.run(["bench", "startup", "--tiny", "--pairs", 1, "--json", path]).code == 0
    others = bench.stored(path)["rows"]
    assert others

    def look(run: int) -> None:
        rows = bench.stored(path)["rows"]
        names = [row["name"] for row in rows]
        assert len(set(names)) == len(names)
        assert [row for row in rows if row["name"].startswith("startup")] == others
        ours = [row for row in rows if row["name"].startswith("relu")]
        assert len(ours) >= 1
        assert all(np.isfinite(row["ours_s"]) for row in ours)

    def arguments(run: int) -> list[object]:
        return ["bench", "relu", "--tiny", "--pairs", 1, "--json", path]

    killed(forks, arguments, look, seed=5)
