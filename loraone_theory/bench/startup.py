"""What starting costs, over the imports of what is needed anyway."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from loraone_theory.bench.base import Row, Setting, benchmark, in_pairs

_COMMAND = "import torch, tyro, rich.console, rich.table, rich.progress"
# Case -> the baseline in words, its code, ours.
CASES = {
    "import": ("import torch, numpy", "import torch, numpy", "import torch, numpy, loraone_theory"),
    "help": (_COMMAND, _COMMAND, "from loraone_theory.cli import main; main(['--help'])"),
    "list": (_COMMAND, _COMMAND, "from loraone_theory.cli import main; main(['list'])"),
}


@benchmark("startup")
def startup(setting: Setting) -> Iterator[Row]:
    """Importing the library, `loraone --help` and `loraone list`, each in a process of its own."""
    for case, (words, theirs, ours) in list(CASES.items())[: 1 if setting.tiny else None]:
        baseline = _process(theirs)
        baseline()  # the files that it reads are then in memory on both sides
        row = in_pairs(f"startup/{case}", words, baseline, _process(ours), pairs=setting.pairs)
        added = row.ours_s - (row.baseline_s or 0.0)
        yield replace(row, notes=row.notes | {"added_s": round(added, 3)})


def _process(code: str) -> Callable[[], object]:
    """Run `code` in a fresh interpreter; what it prints goes nowhere."""
    return lambda: subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True
    )
