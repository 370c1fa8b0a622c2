"""What the rows of a card compare: both sides compute the same, in every form of the baseline."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tolerance
import torch
from graph_double import GraphDouble

from loraone_theory import bench
from loraone_theory.bench import gpu, gpu_linear, gpu_loops, gpu_products
from loraone_theory.dynamics import capture

TINY = bench.Setting(tiny=True, pairs=1)
CPU = torch.device("cpu")
SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu.sh"
# All but those whose sides have other starts, and whose baseline is no loop that logs the loss.
OTHERS = {gpu_linear.notebook, gpu_linear.widest, gpu_products.estimation}
LOGGED = [cases for cases in gpu.CASES if cases not in OTHERS]


@pytest.mark.parametrize("cases", LOGGED, ids=lambda cases: cases.__name__)
def test_both_sides_see_the_same_losses(cases: Any) -> None:
    for case in cases(TINY, CPU):
        dtype = case.like.dtype
        allowed = tolerance.rounding(160, operations=2 * case.steps, condition=10, dtype=dtype)
        logs = {form: torch.as_tensor(run(), dtype=dtype) for form, run in case.baselines.items()}
        for words, ours in case.ours.items():
            found: Any = ours()["loss"][: case.steps]  # type: ignore[index]
            for form, log in logs.items():
                loss = log.reshape(found.shape)
                gap = (loss.sqrt() - found.sqrt()).abs()
                assert bool((gap <= allowed * loss[:1].sqrt()).all()), (case.name, words, form)


def test_the_notebook_is_the_same_by_both_kinds_of_angles() -> None:
    """Loss, risk and alignment before every step, the last by as many digits as squares keep."""
    for case in gpu_linear.notebook(TINY, CPU):
        by_svd, by_gram = (torch.as_tensor(run()) for run in case.baselines.values())
        assert by_svd.shape == (case.steps, 3, 5)
        assert bool((by_svd[:, 2] > 0.1).all())
        eps = torch.finfo(by_svd.dtype).eps
        torch.testing.assert_close(by_gram, by_svd, rtol=eps**0.5, atol=eps**0.5)


def momentum(A: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Three steps of it tell a state that is read too late from one that is not."""
    v = 0.9 * v + A
    return A - 0.1 * v, v, A.square().sum()


START = (torch.arange(1.0, 5.0, dtype=torch.float64), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("double", [False, True])
def test_a_recorded_step_logs_what_a_called_one_does(
    double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, and replayed on the memory of one recording."""
    if double:
        monkeypatch.setattr(gpu_loops, "_graph", lambda once, at: GraphDouble(once).replay)
    called = gpu_loops._called(momentum, START, 6)
    run = gpu_loops._recorded(momentum, START, 6)
    for _ in range(2):  # from the start each time
        assert torch.equal(run(), called)


@pytest.mark.skipif(not gpu_loops.can_compile(CPU), reason="torch.compile finds no compiler")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_every_form_of_a_step_gives_the_same_log() -> None:
    forms, absent = gpu_loops.prepared(gpu_loops.runs(momentum, START, 6, compiles=True))
    assert (list(forms), absent) == (list(gpu_loops.FORMS), [])
    for run in forms.values():
        log: Any = run()
        torch.testing.assert_close(
            log, gpu_loops._called(momentum, START, 6), rtol=tolerance.rounding(6), atol=0
        )


def test_a_form_that_does_not_run_here_is_named() -> None:
    def fails() -> None:
        raise RuntimeError("no such compiler\nand much more")

    forms = {"eager": lambda: None, "compiled": fails}
    with pytest.warns(
        UserWarning, match=r"^torch.compile of a step is left out: no such compiler$"
    ):
        found, absent = gpu_loops.prepared(forms)
    assert (list(found), absent) == (["eager"], ["compiled"])
    with pytest.raises(RuntimeError, match="no such compiler"):  # of what compiles nothing
        gpu_loops.prepared({"eager": fails})


def test_rows_say_which_forms_were_left_out() -> None:
    def fails() -> None:
        raise RuntimeError("no such compiler")

    peaks = gpu_loops.Peaks(CPU, tiny=True)
    case = next(iter(gpu_linear.single(TINY, CPU)))
    eager = {"eager": case.baselines["eager"]}
    for form in ("compiled", "recorded"):
        lacking = dataclasses.replace(case, baselines={**eager, form: fails})
        with pytest.warns(UserWarning, match="is left out: no such compiler"):
            rows = list(gpu._rows(lacking, TINY, peaks, CPU, on=False))
        assert rows
        assert all(row.notes["left_out"] == [form] for row in rows)
    whole = dataclasses.replace(case, baselines=eager)
    assert all("left_out" not in row.notes for row in gpu._rows(whole, TINY, peaks, CPU, on=False))


# In place of the interpreter: notes what it is called with, and benches as it is told.
STUB = """\
#!/usr/bin/env bash
echo "$*" >> called
case "$*" in
*"bench gpu"*) [ -z "$ROWS" ] || echo "$ROWS" > benchmarks/gpu-new.json; exit "$CODE" ;;
esac
"""


@pytest.mark.parametrize(
    ("rows", "code", "moved"),
    [
        ('{"rows": [{"name": "gpu/a"}]}', 0, True),
        ('{"rows": [{"name": "gpu/a"}]}', 1, False),
        ('{"rows": []}', 0, False),
        ("", 2, False),
    ],
    ids=["whole", "broken off", "no rows", "no card"],
)
def test_the_script_replaces_the_rows_of_a_card_by_whole_ones_only(
    rows: str, code: int, moved: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    (folder / "gpu.json").write_text("before")
    python = tmp_path / "python"
    python.write_text(STUB)
    python.chmod(0o755)
    told = {**os.environ, "PYTHON": str(python), "ROWS": rows, "CODE": str(code)}
    ended = subprocess.run(["bash", folder / "gpu.sh"], env=told, check=False)
    assert ended.returncode == (0 if moved else 1)
    assert (folder / "gpu.json").read_text().strip() == (rows if moved else "before")
    assert sorted(path.name for path in folder.iterdir()) == ["gpu.json", "gpu.sh"]
    called = (tmp_path / "called").read_text()
    rendered = "bench --render-only --json benchmarks/results.json --page docs/performance.md"
    assert (rendered in called) == moved


def test_trying_the_script_out_leaves_nothing_behind(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "benchmarks", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    shutil.copy(SCRIPT, folder)
    told = {**os.environ, "PYTHON": "true", "TMPDIR": str(temporary)}
    subprocess.run(["bash", folder / "gpu.sh", "--tiny"], env=told, check=True)
    assert list(temporary.iterdir()) == []


def double(work: Any, like: Any) -> Any:
    return GraphDouble(work)


def refuse(work: Any, like: Any) -> Any:
    raise RuntimeError("not while recording")


@pytest.mark.parametrize("recorder", [double, refuse])
def test_rows_say_which_steps_were_not_recorded(
    recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(capture.RECORDERS, "cpu", recorder)
    peaks = gpu_loops.Peaks(CPU, tiny=True)
    for case in gpu_linear.single(TINY, CPU):
        for row in gpu._rows(case, TINY, peaks, CPU, on=False):
            kept, empty = ("graphs", "refused_graphs")[:: 1 if recorder is double else -1]
            assert row.notes[kept] > 0
            assert row.notes[empty] == 0
    assert capture.RECORDERS["cpu"] is recorder


def test_without_a_recorder_nothing_is_said_of_graphs() -> None:
    with gpu_loops.recordings(CPU) as found:
        assert found == {}


def test_the_precision_of_products_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    with gpu_loops.tf32(True):
        assert torch.get_float32_matmul_precision() == "high"
        with gpu_loops.tf32(False):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_shares_are_of_what_was_measured() -> None:
    peaks = gpu_loops.Peaks(CPU, tiny=True)
    like = torch.zeros(1)
    work = {
        "bytes": 2 * peaks.bytes_per_s,
        "operations": 3 * peaks.operations_per_s(like.dtype, False),
    }
    found = peaks.shares(4.0, like, False, work)
    expected = {"share_of_bandwidth": 0.5, "share_of_arithmetic": 0.75}
    assert found == pytest.approx(expected, rel=tolerance.rounding(1, operations=4))
    assert peaks.shares(4.0, like, False, {}) == {}
