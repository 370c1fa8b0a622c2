"""Experiment scripts: found by file name, run from a config, stored, drawn from what was stored.

A script holds a frozen dataclass `Config` (a subclass of the one here), a smaller `SMOKE` config,
`run(config, progress) -> dict of arrays` and `plot(data, config) -> dict of figures`; one with a
table also holds `tables(data, config) -> dict of rows`, which become Markdown and JSON. TOLERANCE
says by how much rounding may move the data from the committed ones (agreement.py),
`comparable(data) -> arrays` leaves out what rounding decides, and PRESETS names further configs. A
knob that stored data do not know is at its default.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from loraone_theory import agreement, plotting, shipped, storage
from loraone_theory.core import knobs, validate
from loraone_theory.core.files import docstring
from loraone_theory.core.knobs import knob as knob
from loraone_theory.core.plain import plain

# Told the share of the work that is done, from 0 to 1.
Progress = Callable[[float], None]
Data = dict[str, np.ndarray]
# A table: one dict for each row, all with the same keys.
Rows = list[dict[str, Any]]

SCRIPTS = ("fig_*.py", "table_*.py")
PARTS = ("Config", "SMOKE", "run", "plot")
# Committed data of a script: in this folder beside the one of the scripts.
FIGURES = "figures"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every experiment can be told; each adds knobs of its own.

    Integers are >= 1, other numbers > 0, and tuples hold one or more such, all different, unless
    the knob says otherwise: `damping: float = experiment.knob(0.0, least=0)`.
    """

    trials: int = 16
    """Number of trials; trial i has seed i."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the simulations run."""
    dtype: Literal["float64", "float32"] = "float64"
    """Precision of the simulations."""

    def __post_init__(self) -> None:
        validate.integer("trials", self.trials, least=1)
        validate.device(self.device)
        validate.dtype(self.dtype)
        for each in dataclasses.fields(self):
            knobs.check(each, getattr(self, each.name))

    @property
    def where(self) -> dict[str, str]:
        """dtype and device, as keyword arguments of the samplers."""
        return {"dtype": self.dtype, "device": self.device}


@dataclass(frozen=True)
class Experiment:
    """A loaded script.

    Args:
        name: its file name without the suffix.
        config: the Config class; its defaults are the full size.
        smoke: the smallest size that exercises everything.
        run: (config, progress) -> arrays by name.
        plot: (arrays, config) -> figures by name.
        tolerance: largest relative difference from the committed data that rounding explains.
        comparable: arrays -> those of them, or of their entries, that rounding does not decide.
        committed: the folder of the committed data.
        tables: (arrays, config) -> rows by name; None where there is no table.
        presets: further configs by name.
    """

    name: str
    config: type[Config]
    smoke: Config
    run: Callable[[Any, Progress], Data]
    plot: Callable[[Data, Any], Mapping[str, plotting.Figure]]
    tolerance: float
    comparable: Callable[[Data], Data]
    committed: Path
    tables: Callable[[Data, Any], Mapping[str, Rows]] | None = None
    presets: Mapping[str, Config] = field(default_factory=dict)

    def whole(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A stored config with the defaults of knobs that came later."""
        return {**plain(dataclasses.asdict(self.config())), **stored}


def find(folder: str | Path | None = None) -> dict[str, Path]:
    """The scripts of `folder`, by default those that come with the package.

    Scripts are code, so those of the current folder are run only where it is named.

    Raises:
        FileNotFoundError: the folder has none.
    """
    where = shipped.folder("experiments") if folder is None else storage.as_path(folder)
    found = (path for pattern in SCRIPTS for path in where.glob(pattern))
    scripts = {path.stem: path for path in sorted(found) if path.is_file()}
    if not scripts:
        remedy = "install the package again" if folder is None else "name another folder"
        raise FileNotFoundError(
            f"{where} must hold experiments, {' or '.join(SCRIPTS)}, and has none; {remedy}"
        )
    return scripts


def summary(path: Path) -> str:
    """First line of a script's docstring, without running the script."""
    try:
        text = docstring(storage.as_path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        return f"(cannot be read: {' '.join(str(error).split())})"
    return text.partition("\n")[0]


def load(path: str | Path) -> Experiment:
    """Import a script by its file name.

    Raises:
        AttributeError: a part that every script has to define is missing.
    """
    path = storage.as_path(path).resolve()
    module_name = f"loraone_experiments_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    missing = [part for part in PARTS if not hasattr(module, part)]
    if missing:
        raise AttributeError(
            f"an experiment must define {', '.join(PARTS)}; {path.name} lacks {', '.join(missing)}"
        )
    parts = (module.Config, module.SMOKE, module.run, module.plot)
    return Experiment(
        path.stem,
        *parts,
        tolerance=getattr(module, "TOLERANCE", agreement.USUAL),
        comparable=getattr(module, "comparable", dict),
        committed=path.parent.parent / FIGURES,
        tables=getattr(module, "tables", None),
        presets=getattr(module, "PRESETS", {}),
    )


class Made(NamedTuple):
    """What `produce` made: the figures' files, and whether the data are the committed ones."""

    figures: list[Path]
    agreement: agreement.Agreement


def produce(
    experiment: Experiment,
    config: Config,
    out: Path,
    progress: Progress = lambda share: None,
) -> Made:
    """Run, store <out>/<name>.npz and .json, and draw and tabulate from what was stored.

    Files whose numbers would not change stay as they are, so that versions, commit and wall time
    in them are those of the run that made the numbers.
    """
    validate.instance("experiment", experiment, Experiment)
    validate.instance("config", config, Config)
    validate.function("progress", progress)
    (out := storage.as_path(out)).mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    data = experiment.run(config, progress)
    about = {
        "experiment": experiment.name,
        "config": dataclasses.asdict(config),
        "seeds": list(range(config.trials)),
        "wall_time_s": round(time.perf_counter() - start, 2),
        **storage.provenance(),
    }
    found = compare(experiment, data, about["config"])
    if not _holds_already(experiment, data, about["config"], out):
        storage.save_pair(out / f"{experiment.name}.npz", data, about)
    return Made(redraw(experiment, out), found)


def compare(experiment: Experiment, data: Data, config: Mapping[str, Any]) -> agreement.Agreement:
    """The data against those committed at the same config.

    A run at the script's own full size, where another is committed, disagrees: the committed data
    are of a former version of the script.
    """
    kept = agreement.stored(experiment.committed, experiment.name)
    if kept is None:
        return agreement.Agreement(experiment.tolerance, None, "nothing is committed")
    arrays, stored = kept
    asked, known = plain(config), experiment.whole(stored)
    if known != asked:
        if asked != plain(dataclasses.asdict(experiment.config())):
            return agreement.Agreement(experiment.tolerance, None, "other sizes than committed")
        other = sorted(name for name in {**known, **asked} if known.get(name) != asked.get(name))
        why = f"committed with other {', '.join(other)}: commit the data made now"
        return agreement.Agreement(experiment.tolerance, math.inf, why)
    ours, theirs = experiment.comparable(data), experiment.comparable(arrays)
    return agreement.Agreement(
        experiment.tolerance, *agreement.difference(ours, theirs, config["dtype"])
    )


def _holds_already(
    experiment: Experiment, data: Data, config: Mapping[str, Any], out: Path
) -> bool:
    try:
        kept = agreement.stored(out, experiment.name)
    except storage.DamagedFile:  # it is written anew
        return False
    if kept is None or experiment.whole(kept[1]) != plain(config):
        return False
    return agreement.same_bits(data, kept[0])


def redraw(experiment: Experiment, out: Path) -> list[Path]:
    """Draw the figures again from <out>/<name>.npz and .json alone.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: the data was stored by a version of the script with other knobs; with
            storage.DamagedFile, data and config are damaged or were not written together.
    """
    validate.instance("experiment", experiment, Experiment)
    kept = agreement.stored(out := storage.as_path(out), experiment.name)
    if kept is None:
        raise FileNotFoundError(
            f"plotting reads stored data, and {out} must hold {experiment.name}.npz and .json; "
            "run the experiment without --plot-only first"
        )
    data, given = kept[0], experiment.whole(kept[1])
    known = {each.name for each in dataclasses.fields(experiment.config)}
    if odd := sorted(set(given) - known):
        raise ValueError(
            f"the stored config of {experiment.name} must have the script's fields; "
            f"{', '.join(odd)} is none; run the experiment again"
        )
    # The data is only drawn, so the device it was made on need not be here.
    config = experiment.config(**{**_tuples(given), "device": "cpu"})
    paths = []
    with plotting.style():
        for name, figure in experiment.plot(data, config).items():
            paths += plotting.save(figure, out / name)
    if experiment.tables is not None:
        for name, rows in experiment.tables(data, config).items():
            storage.save_json(out / f"{name}.rows.json", rows)
            storage.save_text(out / f"{name}.md", markdown(rows))
    return paths


def markdown(rows: Rows) -> str:
    """A table in Markdown.

    >>> print(markdown([{"r": 4, "loss": 0.5}, {"r": 8, "loss": 0.25}]), end="")
    | r | loss |
    | --- | --- |
    | 4 | 0.5 |
    | 8 | 0.25 |
    """
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def part(progress: Progress, index: int, count: int, steps: int = 1) -> Callable[[int], None]:
    """A callback for steps done within stage `index` of `count` equal ones.

    >>> part(print, 1, 2, steps=100)(50)
    0.75
    """
    return lambda done: progress((index + done / steps) / count)
