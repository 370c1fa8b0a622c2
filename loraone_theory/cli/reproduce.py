"""`loraone reproduce`, and the same for one script on its own."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

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

from loraone_theory import engines, experiment
from loraone_theory.agreement import Agreement
from loraone_theory.cli.common import Names, check_folder, console
from loraone_theory.cli.guard import DONE, FAILED, INTERRUPTED, complain, explained
from loraone_theory.core import validate
from loraone_theory.core.extras import MissingExtra
from loraone_theory.core.threads import one_thread
from loraone_theory.experiment import Config, Experiment

HERE = engines.Place()
# Makes an experiment and its config when its turn comes, so that a broken one fails alone.
Job = Callable[[], tuple[Experiment, Config]]


@dataclass(frozen=True)
class Script:
    """A job that any process can do.

    Args:
        path: of the script.
        smoke: from its smallest size.
        changes: knobs in place of its own.
    """

    path: Path
    smoke: bool
    changes: dict[str, Any]

    def __call__(self) -> tuple[Experiment, Config]:
        """The experiment and its config."""
        found = experiment.load(self.path)
        start = found.smoke if self.smoke else found.config()
        return found, dataclasses.replace(start, **self.changes)


class Attempt(NamedTuple):
    """What became of a job.

    Args:
        result: in a word, or why there is none.
        seconds: that it took.
        said: the difference from what is committed.
        files: names of the figures.
        complaint: for standard error.
        missing: it needs an extra that is not installed.
    """

    result: str
    seconds: float
    said: str = ""
    files: tuple[str, ...] = ()
    complaint: str = ""
    missing: bool = False

    @property
    def failed(self) -> bool:
        """Whether it gave no figure, or another one than is committed."""
        return self.result == "differs" or (bool(self.complaint) and not self.missing)


@dataclass(frozen=True)
class Reproduce:
    """Run experiments and write <out>/<name>.png, .pdf, .npz and .json.

    At full size the data are compared with the committed ones: the table shows the largest relative
    difference against what rounding explains, and beyond that the exit code is 1.
    """

    names: Names = ()
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
    workers: int = 1
    """Processes that run experiments side by side, with the extra "sweep"."""
    scheduler: str | None = None
    """The address of a Dask cluster in their place, whose workers see the same folders."""
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

        named = dict.fromkeys(self.names or scripts)
        jobs: dict[str, Job] = {n: Script(scripts[n].resolve(), self.smoke, changes) for n in named}
        where = engines.place(self.workers, self.scheduler)
        out = self.out if where == engines.Place() else self.out.resolve()
        return run_all(jobs, out, self.plot_only, named=bool(self.names), where=where)


def run_all(
    jobs: dict[str, Job],
    out: Path,
    plot_only: bool,
    named: bool = True,
    where: engines.Place = HERE,
) -> int:
    """Run the jobs with a progress bar and end with a table; 1 if one failed or differs.

    Each runs on one thread, so that what it makes does not depend on who does it. One that needs an
    extra which is not installed has failed where it was `named`.
    """
    screen = console()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    made: dict[str, Attempt] = {}
    stopped = False
    with bar:
        try:
            for name, attempt in _attempts(jobs, out, plot_only, where, bar):
                made[name] = attempt
                if attempt.complaint.startswith("Traceback"):  # a fault of the script
                    print(attempt.complaint, file=sys.stderr, end="")
                elif attempt.complaint:
                    complain(f"{name}: {attempt.complaint}")
        except KeyboardInterrupt:
            stopped = True
            left = [name for name in jobs if name not in made]
            made |= {name: Attempt("interrupted", 0.0) for name in left[:1]}
    table = Table(title=f"written to {out}", title_justify="left", box=None, pad_edge=False)
    for heading in ("experiment", "result", "seconds", "difference from committed", "figures"):
        right = heading == "seconds"
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for name in jobs:
        if name in made:
            one = made[name]
            table.add_row(name, one.result, f"{one.seconds:.1f}", one.said, ", ".join(one.files))
    screen.print(table)
    failed = any(one.failed or (one.missing and named) for one in made.values())
    return INTERRUPTED if stopped else FAILED if failed else DONE


def _attempts(
    jobs: dict[str, Job], out: Path, plot_only: bool, where: engines.Place, bar: Progress
) -> Iterator[tuple[str, Attempt]]:
    """As they are done: here with a bar for each, elsewhere with one for all."""
    if where == engines.Place():
        for name, job in jobs.items():
            task = bar.add_task(name, total=1.0)
            yield name, _attempt(job, out, plot_only, _progress(bar, task))
            bar.update(task, completed=1.0)
        return
    task = bar.add_task("experiments", total=len(jobs))
    work = functools.partial(_attempt_of, out=out, plot_only=plot_only)
    for (name, _), attempt in engines.all_of(work, jobs.items(), where):
        bar.update(task, advance=1, description=f"done: {name}")
        yield name, attempt


def _attempt_of(job: tuple[str, Job], *, out: Path, plot_only: bool) -> Attempt:
    return _attempt(job[1], out, plot_only, lambda share: None)


def _attempt(job: Job, out: Path, plot_only: bool, progress: experiment.Progress) -> Attempt:
    start = time.perf_counter()

    def seconds() -> float:
        return time.perf_counter() - start

    try:
        with one_thread(), warnings.catch_warnings():
            # What libraries tell each other of their next versions does not concern an experiment.
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)")
            paths, agreed = _one(job, out, plot_only, progress)
    except MissingExtra as error:
        # Without it, all the others are what was asked for by asking for everything.
        text = f"left out: {error}"
        return Attempt(text, seconds(), complaint=str(error), missing=True)
    except Exception as error:
        known = explained(error) is not None
        told = str(error) if known else traceback.format_exc()
        return Attempt(f"failed: {error}", seconds(), complaint=told)
    result = "drawn" if agreed is None else agreed.verdict
    files = tuple(path.name for path in paths)
    return Attempt(result, seconds(), "" if agreed is None else str(agreed), files)


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
    start = _start(found, smoke="--smoke" in given, preset=_preset(given, found))
    knob: Any = Annotated[found.config, tyro.conf.arg(name="")]
    fields: list[Any] = [("config", knob, dataclasses.field(default=start))]
    options: list[tuple[str, type, object, str]] = [
        ("smoke", bool, False, "Start from the smallest size instead of the defaults below."),
        ("out", Path, Path("figures"), "The folder to write to."),
        ("plot_only", bool, False, "Draw again from the stored data."),
    ]
    if found.presets:
        text = f"Settings that have a name, also on top of --smoke: {', '.join(found.presets)}."
        options.insert(1, ("preset", str, "", text))
    for name, kind, default, text in options:
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


def _preset(given: Sequence[str], found: Experiment) -> str | None:
    """The preset that is asked for, before the arguments are parsed with it for a start."""
    if not found.presets:
        return None  # there is no such option, which the parser will say
    for option, value in zip(given, [*given[1:], None], strict=True):
        if option == "--preset":
            return value  # None where nothing follows, which the parser will say
        if option.startswith("--preset="):
            return option.partition("=")[2]
    return None


def _start(found: Experiment, *, smoke: bool, preset: str | None) -> Config:
    """The config to begin with: full or smallest, with what a preset changes on top."""
    base, usual = found.smoke if smoke else found.config(), found.config()
    if preset is None:
        return base
    chosen = vars(found.presets[validate.choice("preset", preset, found.presets)])
    changed = {name: value for name, value in chosen.items() if value != vars(usual)[name]}
    return dataclasses.replace(base, **changed)
