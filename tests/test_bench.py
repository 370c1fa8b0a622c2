"""Every benchmark at its tiny size: what its rows hold, and how they are kept. No times."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from loraone_theory import bench
from loraone_theory.bench import base as bench_base
from loraone_theory.bench import peer_forms, peers
from loraone_theory.core.extras import MissingExtra, Unavailable, extra

TINY = bench.Setting(tiny=True, pairs=1)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:q must satisfy")  # at tiny sizes
@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_rows_of_every_benchmark(name: str, tmp_path: Path) -> None:
    if name == "peers" and set(peer_forms.PEERS) <= {*peers.absent(), peers.COMPILES}:
        pytest.skip("none of the peers is installed")
    path = tmp_path / "bench.json"
    seen: list[bench.Row] = []
    rows = bench.run([name], setting=TINY, json=path, report=seen.append)
    assert rows
    assert seen == rows
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.name.split("/")[0] == name
        assert row.baseline
        assert row.ours_s > 0
        given = [row.baseline_s, row.ratio, row.ratio_spread]
        if row.baseline_s is None:
            assert given == [None] * 3
            continue
        assert row.baseline_s > 0
        assert row.ratio is not None
        assert row.ratio_spread is not None
        low, high = row.ratio_spread
        assert 0 < low <= row.ratio <= high
    stored = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in stored] == [row.name for row in rows]
    wanted = {"name", "baseline_s", "ours_s", "ratio", "ratio_spread"}
    assert all(wanted <= row.keys() for row in stored)


def test_benchmarks_run_before_are_kept(tmp_path: Path) -> None:
    """A file keeps the rows of other benchmarks, and only the latest of each."""
    path = tmp_path / "bench.json"
    old = [asdict(bench.Row(name, "none", None, 1.0)) for name in ("other/a", "relu/gone")]
    path.write_text(json.dumps({"rows": old}))
    for _ in range(2):
        rows = bench.run(["relu"], setting=TINY, json=path)
        stored = json.loads(path.read_text())["rows"]
        assert stored[0] == old[0]
        assert [row["name"] for row in stored[1:]] == [row.name for row in rows]


def test_unknown_benchmarks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"benchmark must be one of .*'nonsense'"):
        bench.run(["nonsense"])


def test_long_benchmarks_run_only_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those marked long are no part of all of them; everything that is long is a benchmark."""
    assert set(bench.BENCHMARKS) > bench_base.LONG
    rows = {name: bench.Row(name, "", None, 1.0) for name in ("short", "endless")}
    monkeypatch.setattr(bench_base, "BENCHMARKS", {})
    monkeypatch.setattr(bench_base, "LONG", set())
    for name in rows:
        bench_base.benchmark(name, long=name == "endless")(lambda _, row=rows[name]: iter([row]))
    assert bench.run() == [rows["short"]]
    assert bench.run(["endless"]) == [rows["endless"]]


def test_what_lacks_an_extra_is_left_out_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for everything it is left out with the reason; asked for by name it is an error."""

    def lacking(setting: bench.Setting) -> Iterator[bench.Row]:
        with extra("peft"):
            return importlib.import_module("no_such_package.at_all").rows(setting)

    row = bench.Row("here", "", None, 1.0, None, None)
    monkeypatch.setattr(
        bench_base, "BENCHMARKS", {"absent": lacking, "here": lambda setting: iter([row])}
    )
    with pytest.warns(UserWarning, match=r"'absent' is left out: .*loraone-theory\[peft\]"):
        assert bench.run() == [row]
    with pytest.raises(MissingExtra, match=r"loraone-theory\[peft\]"):
        bench.run(["absent"])
    monkeypatch.undo()
    monkeypatch.setattr(peers, "absent", lambda: dict.fromkeys(peers.PEERS, "is not here"))
    with pytest.raises(MissingExtra, match=r"no peer is here: .*loraone-theory\[bench\]"):
        bench.run(["peers"])


def test_a_card_that_is_not_there_is_left_out_or_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Named, it is an error and no file is written; among all of them it is left out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "gpu.json"
    with pytest.raises(Unavailable, match=r"'gpu' is timed on a CUDA card.*tiny size"):
        bench.run(["gpu"], json=path)
    assert not path.exists()
    row = bench.Row("here", "", None, 1.0)
    gpu = bench.BENCHMARKS["gpu"]
    monkeypatch.setattr(bench_base, "BENCHMARKS", {"gpu": gpu, "here": lambda _: iter([row])})
    with pytest.warns(UserWarning, match=r"'gpu' is left out: .*torch sees none"):
        assert bench.run(json=path) == [row]
