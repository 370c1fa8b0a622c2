"""The example and the notebook for PEFT models run, and say what their text says."""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from peft_nets import QUIET

ROOT = Path(__file__).resolve().parent.parent
pytestmark = QUIET


def test_quickstart_runs_and_is_short() -> None:
    path = ROOT / "examples" / "peft_quickstart.py"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(path))
    shown = re.search(r"energy kept >= (\S+); loss (\S+);", out.getvalue())
    assert shown is not None
    assert 0 < float(shown[1]) <= 1
    assert float(shown[2]) < 1.609  # below log 5, that of a guess among five classes
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 36


def test_notebook_runs_from_top_to_bottom() -> None:
    pytest.importorskip("sklearn", reason="needs the extra experiments")
    text = (ROOT / "notebooks" / "alignment_in_practice.ipynb").read_text()
    notebook = json.loads(text)
    assert notebook["nbformat"] == 4
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)
    names: dict[str, object] = {}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for i, cell in enumerate(cells):
            exec(compile("".join(cell["source"]), f"cell {i}", "exec"), names)
    starts = dict(re.findall(r"(LoRA(?:-One)?): mean sine (\S+) at the start", out.getvalue()))
    assert float(starts["LoRA"]) > 0.8
    # Float32 frames of gradients whose fourth singular value may be close to the fifth.
    assert float(starts["LoRA-One"]) < 0.01


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--bf16 --checkpointing --batches 2 --groups 2",
        "--reduce sketch --batches 3 --rank 2",
        "--reduce none --batches 2 --gamma 256",
        "--four-bit --checkpointing",  # a toy model stays as it is
    ],
)
def test_the_large_example_at_toy_size(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gradients.safetensors"
    arguments = [*flags.split(), "--gradients", str(file), "--steps", "5"]
    path = ROOT / "examples" / "peft_large.py"
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(path))
    shown = re.search(
        r"14 modules; .*before=(\S+), after=(\S+), predicted=-.*inert=\(\).*loss (\S+)",
        out.getvalue(),
    )
    assert shown is not None
    before, after, last = (float(shown[i]) for i in (1, 2, 3))
    assert last < after < before
    assert file.stat().st_size > 0


def test_the_large_example_refuses_what_is_not_exact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "examples" / "peft_large.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--batches", "2"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(path))
    assert "add --groups, or take --reduce sketch" in capsys.readouterr().err
