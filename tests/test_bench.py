"""Every benchmark at its tiny size: what its rows hold, and how they are kept. No times."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from loraone_theory import bench

TINY = bench.Setting(tiny=True, pairs=1)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:q must satisfy")  # at tiny sizes
@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_rows_of_every_benchmark(name: str, tmp_path: Path) -> None:
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


def test_commands_start_without_what_only_some_of_them_use() -> None:
    """Compilers' helpers, ball arithmetic and statistics wait until they are asked for."""
    late = ("torch.utils.benchmark", "setuptools", "flint", "scipy.stats", "pandas")
    code = (
        "import sys, loraone_theory.cli.commands, loraone_theory.cli.listing;"
        f"print([name for name in {late!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
