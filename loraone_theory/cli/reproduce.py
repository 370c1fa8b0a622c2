"""`loraone reproduce`, and the same for one script on its own."""

from __future__ import annotations

import dataclasses
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from loraone_theory import experiment
from loraone_theory.agreement import Agreement
from loraone_theory.cli.common import check_folder, console
from loraone_theory.cli.guard import DONE, FAILED, INTERRUPTED, complain, explained
from loraone_theory.core import validate
from loraone_theory.core.extras import MissingExtra
from loraone_theory.experiment import Config, Experiment

# Makes an experiment and its config when its turn comes, so that a broken one fails alone.
Job = Callable[[], tuple[Experiment, Config]]


@dataclass(frozen=True)
class Reproduce:
    """Run experiments and write <out>/<name>.png, .pdf, .npz and .json.

    At full size the data are compared with the committed ones: the table shows the largest relative
    difference against what rounding explains, and beyond that the exit code is 1.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which experiments; all of them where none is named."""
    smoke: bool = False
    """The smallest size that exercises everything."""
    trials: int | None = None
    """Number of trials, in place of each experiment's own."""
    device: Literal["cpu", "cuda"] | None = None
    """Where the simulations run, in place of each experiment's own."""
    dtype: Literal["float64", "float32"] | None = None
    """Precision of the simulations, in place of each experiment's own."""
    out: Path = Path("figures")
    """The folder to write to; made where it does not exist."""
    plot_only: bool = False
    """Draw the figures again from the stored data, without running anything."""
    experiments: Path | None = None
    """A folder of experiment scripts, in place of the package's own; their code is run."""

    def run(self) -> int:
        """Run them one after another; those that fail do not stop the others."""
        check_folder(self.out)
        scripts = experiment.find(self.experiments)
        for name in self.names:
            validate.choice("experiment", name, scripts)
        given = {"trials": self.trials, "device": self.device, "dtype": self.dtype}
        changes: dict[str, Any] = {n: value for n, value in given.items() if value is not None}
        Config(**changes)  # refuses bad values before anything runs

        def job(path: Path) -> Job:
            def make() -> tuple[Experiment, Config]:
                found = experiment.load(path)
                start = found.smoke if self.smoke else found.config()
                return found, dataclasses.replace(start, **changes)

            return make

        jobs = {name: job(scripts[name]) for name in dict.fromkeys(self.names or scripts)}
        return run_all(jobs, self.out, self.plot_only, named=bool(self.names))


def run_all(jobs: dict[str, Job], out: Path, plot_only: bool, named: bool = True) -> int:
    """Run the jobs with a progress bar and end with a table; 1 if one failed or differs.

    One that needs an extra which is not installed has failed where it was `named`.
    """
    screen = console()
    rows: list[tuple[str, ...]] = []
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    failed, stopped = False, False
    with bar, warnings.catch_warnings():
        # What libraries tell each other of their next versions does not concern an experiment.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\b")
        for name, job in jobs.items():
            start = time.perf_counter()
            task = bar.add_task(name, total=1.0)
            try:
                paths, agreed = _one(job, out, plot_only, _progress(bar, task))
                result = "drawn" if agreed is None else agreed.verdict
                failed = failed or result == "differs"
            except KeyboardInterrupt:
                paths, agreed, result, stopped = [], None, "interrupted", True
            except MissingExtra as error:
                # Without it, all the others are what was asked for by asking for everything.
                paths, agreed, result = [], None, f"left out: {error}"
                failed = failed or named
                complain(f"{name}: {error}")
            except Exception as error:
                if explained(error) is None:  # a fault of the script
                    traceback.print_exc(file=sys.stderr)
                else:
                    complain(f"{name}: {error}")
                paths, agreed, result, failed = [], None, f"failed: {error}", True
            bar.update(task, completed=1.0)
            seconds = f"{time.perf_counter() - start:.1f}"
            said = "" if agreed is None else str(agreed)
            rows.append((name, result, seconds, said, ", ".join(p.name for p in paths)))
            if stopped:
                break
    table = Table(title=f"written to {out}", title_justify="left", box=None, pad_edge=False)
    for heading in ("experiment", "result", "seconds", "difference from committed", "figures"):
        right = heading == "seconds"
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    screen.print(table)
    return INTERRUPTED if stopped else FAILED if failed else DONE


def _progress(bar: Progress, task: TaskID) -> experiment.Progress:
    return lambda share: bar.update(task, completed=share)


def _one(
    job: Job, out: Path, plot_only: bool, progress: experiment.Progress
) -> tuple[list[Path], Agreement | None]:
    found, config = job()
    if plot_only:
        return experiment.redraw(found, out), None
    return experiment.produce(found, config, out, progress)


def script(path: str | Path, arguments: Sequence[str]) -> int:
    """What `cli.script` does, where errors are let through."""
    given = list(arguments)
    found = experiment.load(path)
    start = found.smoke if "--smoke" in given else found.config()
    if "--preset" in given[:-1]:
        name = given[given.index("--preset") + 1]
        start = found.presets[validate.choice("preset", name, found.presets)]
    knob: Any = Annotated[found.config, tyro.conf.arg(name="")]
    fields: list[Any] = [("config", knob, dataclasses.field(default=start))]
    for name, kind, default, text in (
        ("smoke", bool, False, "Start from the smallest size instead of the defaults above."),
        ("preset", str, "", f"Start from one of: {', '.join(found.presets) or 'there is none'}."),
        ("out", Path, Path("figures"), "The folder to write to."),
        ("plot_only", bool, False, "Draw again from the stored data."),
    ):
        annotated: Any = Annotated[kind, tyro.conf.arg(help=text)]
        fields.append((name, annotated, dataclasses.field(default=default)))
    chosen: Any = tyro.cli(
        dataclasses.make_dataclass("Arguments", fields),
        prog=f"{found.name}.py",
        description=experiment.summary(Path(path)),
        args=given,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    check_folder(chosen.out)
    return run_all({found.name: lambda: (found, chosen.config)}, chosen.out, chosen.plot_only)
