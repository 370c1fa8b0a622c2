"""Hostile arguments to every public callable: one clear error, never a raw one, never a number.

The rows are made from the signatures, so that a new function is covered the day it is added: it
needs a good value for each of its arguments here, or a reason why it takes none from outside.
"""

import importlib.util
import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Fresh, annotation_of, fresh, hostile_to, is_our_own, methods_of, targets

import loraone_theory as lt
from loraone_theory import experiment, storage
from loraone_theory.agreement import USUAL
from loraone_theory.bench import base as bench
from loraone_theory.claims import Evidence
from loraone_theory.methods import rules
from loraone_theory.predict.compare import compare

PEFT = importlib.util.find_spec("peft") is not None
if PEFT:
    import hostile_peft

X = np.random.default_rng(0).standard_normal((40, 8))
PROBLEM = lt.sample_linear(d=8, k=6, true_rank=2, samples=60)
PAIR = lt.Factors(
    torch.from_numpy(np.random.default_rng(1).standard_normal((8, 2))),
    torch.from_numpy(np.random.default_rng(2).standard_normal((2, 6))),
)
SQUARE = lt.sample_linear(d=8, k=8, true_rank=2, samples=60)
TRIPLE = (PAIR.A, torch.ones(2, 1, dtype=torch.float64), PAIR.B)
SENSING = lt.sample_sensing(ensemble="dense", d=8, k=6, true_rank=2, measurements=40)
SPECTRUM = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)

# Made by the library, or plain tuples of what the caller has; checked where they are used.
RECORDS = {
    "lt.Factors", "lt.Start", "lt.Rule", "lt.RunStatus", "lt.Outcome", "lt.Trajectory",
    "lt.Reduction", "lt.Verdict", "lt.Method", "lt.LinearProblem", "lt.LossProblem",
    "lt.ReLUProblem", "lt.ReLUPopulation", "lt.SensingProblem", "lt.claims.Claim",
    "lt.claims.Draws", "lt.claims.Evidence", "lt.claims.Finding", "lt.claims.Judgement",
    "lt.methods.Method", "lt.predict.Contraction", "lt.predict.Summary",
    "lt.linalg.SVD", "lt.linalg.Inverse", "stats.Interval", "lt.rip.Isometry", "lt.Record",
    "lt.Tuned", "lt.claims.Paper", "rules.Descent", "rules.Local", "rules.Rule",
    "bench.Row", "experiment.Experiment", "experiment.Made", "peft.ModuleReport", "peft.Pair",
    "peft.Reports", "peft.Triplets", "alignment.Watched",
}  # fmt: skip
# The inner loops work on tensors that the gates above them have seen; operators are made by the
# samplers.
KERNELS = {"lt.linalg", "lt.operators"}
# Hypothesis checks the arguments of strategies when it draws.
DRAWN = {"lt.testing"}
# They take nothing, or Any.
NOTHING = {"storage.code_version", "storage.provenance"}
# What the files of benchmarks and the scripts of experiments are written with; a fault in them is
# a fault of the file.
WITHIN = {
    "bench.benchmark", "bench.in_pairs", "bench.of_pairs", "bench.alone",
    "experiment.part", "experiment.markdown", "experiment.compare", "Method.init", "Method.rule",
}  # fmt: skip

SWEEP: dict[str, Any] = {
    "fixed": {
        "sampler": "sample_linear", "d": 8, "k": 6, "true_rank": 2, "samples": 60, "steps": 2,
        "method": "lora-one", "learning_rate": 0.1,
    },
    "axes": {"rank": [1, 2], "noise_std": [0.1, 0.2]},
}  # fmt: skip


OBJECTS: dict[str, Any] = {
    "Sweep": Fresh(lambda: lt.Sweep("swept", **SWEEP)),
    "Trajectory": Fresh(lambda: lt.simulate(PROBLEM, "lora", rank=2, learning_rate=0.1, steps=2)),
    "Method": lt.methods.lora(),
    "Comparison": compare(PROBLEM, rank=2, steps=2, names=["lora-one"]),
}
if PEFT:
    OBJECTS |= {
        "AlignmentTracker": Fresh(hostile_peft.tracker),
        "PairOptimizer": Fresh(hostile_peft.optimizer),
    }


def is_called(name: str) -> bool:
    return not (name in RECORDS | NOTHING | WITHIN or name.rpartition(".")[0] in KERNELS | DRAWN)


def all_targets() -> dict[str, Callable[..., Any]]:
    found = targets()
    for label, given in OBJECTS.items():
        found |= methods_of(given, label)
    return {name: value for name, value in found.items() if is_called(name)}


TARGETS = all_targets()

# Good values: of one callable's argument, or of every argument with that name.
GOOD: dict[str, Any] = {
    "d": 8, "k": 6, "true_rank": 2, "samples": 40, "rank": 2, "steps": 2,
    "measurements": 40, "ensemble": "dense", "relative_shift": 0.1, "learning_rate": 0.1,
    "problem": PROBLEM, "method": "lora-one", "initial": PAIR, "condition_number": 2.0,
    "alpha": 2.0, "M1": X, "M2": X[::-1].copy(), "X": X, "shift": PAIR,
    "pretrained": np.ones((8, 6)),
    "theta": 0.1, "singular_value": 1.0, "damping": 0.1, "t": 3, "spectrum": SPECTRUM,
    "concentration": 1.5, "rate": 0.1, "peak": 0.1, "every": 2, "decay": 0.1, "std": 0.1,
    "claim": "3.4", "names": ["3.4"], "successes": 3, "trials": 5, "probability": 0.9,
    "x": np.arange(4.0), "y": np.arange(8.0).reshape(4, 2), "low": 0.1, "high": 0.9,
    "loss": lambda W: (W**2).sum((-2, -1)),
    "path": "out.json", "text": "x", "value": 1, "arrays": {"a": X}, "about": {"a": 1},
    "kind": "bound", "evidence": Evidence(np.zeros(3), 1.0),
    "base": rules.gd(0.1),
    "stats.median.values": np.arange(5.0),
    "stats.decay_rate.values": np.geomspace(1, 0.05, 12)[:, None],
    "storage.save_arrays.path": "out.npz", "storage.save_pair.path": "out.npz",
    "storage.load_arrays.path": "in.npz", "storage.load_pair.path": "in.npz",
    "lt.methods.rebuild.name": "lora",
    "lt.methods.rebuild.hyper": dict(lt.methods.lora().hyper),
    "lt.verify.smoke": True, "lt.verify_all.smoke": True, "lt.verify_all.names": ["3.4"],
    "operator": SENSING.operator, "M": PAIR, "delta": 0.25, "batch": 4,
    "covariance": torch.eye(8, dtype=torch.float64),
    "E": torch.ones(8, 6, dtype=torch.float64), "error": 0.5,
    "lt.predict.stochastic.mean_next_error.at": PAIR,
    "at": lt.predict.pair_solution(PROBLEM, rank=2),
    "lt.predict.linearised.steps": [0, 2], "lt.predict.linearised_alignment.steps": [0, 2],
    "lt.Until.record": "loss", "level": 0.1, "noise_std": 0.1, "start": 0.01,
    "times": [0.5, 1.0], "target": PAIR, "lt.predict.flow.lora_init.A": PAIR.A,
    "lt.rerun.config": lt.simulate(PROBLEM, "lora", rank=2, learning_rate=0.1, steps=2).config,
    "lt.predict.relu_contraction.problem": lt.sample_relu(
        d=8, k=6, true_rank=2, samples=60, relative_shift=0.1
    ),
    "lt.LinearProblem.from_data.shift": PAIR, "lt.rip.designed.d": 3, "lt.rip.designed.k": 2,
    "stats.mean_sequence.values": np.arange(5.0), "confidence": 0.9,
    "lt.SensingProblem.from_data.labels": SENSING.labels,
    "lt.sample_linear_lazy.k": 30,
    "lt.sweep.folder": "new", "lt.Sweep.folder": "new", "lt.open_sweep.folder": "swept",
    **{f"lt.{name}.{key}": value for name in ("sweep", "Sweep") for key, value in SWEEP.items()},
    "lt.Measure.record": "loss", "Sweep.array.name": "loss", "Sweep.heatmap.name": "loss",
    "Sweep.heatmap.x": "rank", "Sweep.heatmap.y": "noise_std", "Sweep.to_csv.path": "s.csv",
    "filters": ["rank=2"],
    "lt.predict.measured_contraction.problem": SENSING,
    "lt.predict.measured_floor.problem": SENSING,
    "lt.predict.best_fit.problem": SENSING,
}  # fmt: skip
SCRIPT = '''"""A script."""
from loraone_theory.experiment import Config
SMOKE = Config(trials=1)
def run(config, progress):
    return {"x": [1.0]}
def plot(data, config):
    return {}
'''
EXPERIMENT = experiment.Experiment(
    "fig_x", experiment.Config, experiment.Config(trials=1), lambda config, progress: {"x": X},
    lambda data, config: {}, USUAL, dict, Path("figures"),
)  # fmt: skip
GOOD |= {
    "work": lambda: None, "bench.run.names": ("nothing",), "bench.stored.path": Path("rows.json"),
    "bench.run.setting": bench.Setting(tiny=True),
    "experiment.find.folder": "scripts", "experiment.summary.path": Path("scripts/fig_x.py"),
    "experiment.load.path": "scripts/fig_x.py", "experiment": EXPERIMENT, "out": Path("made"),
    "experiment.produce.config": experiment.Config(trials=1),
    "experiment.redraw.out": Path("kept"),
    "Trajectory.save.path": "run.npz", "Comparison.save.path": "out.npz",
    "Method.with_init.init": lambda problem, rank, seeds: lt.Start((PAIR.A, PAIR.B)),
    "Method.with_init.name": "own", "Method.with_rule.name": "own",
    "factory": lambda learning_rate, damping: rules.gd(learning_rate),
    "Method.trained_by.rule": "gd",
}  # fmt: skip
if PEFT:
    GOOD |= {
        "model": Fresh(hostile_peft.adapted), "peft_model": Fresh(hostile_peft.adapted),
        "gradients": Fresh(hostile_peft.gradients),
        "peft.PairOptimizer.pairs": Fresh(hostile_peft.adapted),
        "peft.PairOptimizer.rule": "gd", "peft.SavedGradients.path": "gradients.safetensors",
        "PairOptimizer.load_state_dict.state_dict": Fresh(
            lambda: hostile_peft.optimizer().state_dict()
        ),
        "PairOptimizer.add_param_group.param_group": Fresh(
            lambda: {"params": [torch.nn.Parameter(torch.ones(2, 2))]}
        ),
        "alignment.layer_class.name": "net.0",
        "peft.get_lora_one_gradients.data": "batch",
    }  # fmt: skip
# Good values that belong together, made anew for each call.
TOGETHER: dict[str, Callable[[], dict[str, Any]]] = {}
if PEFT:
    TOGETHER["peft.get_lora_one_gradients"] = hostile_peft.estimated
# Values that break a rule elsewhere and are right here.
RIGHT: dict[str, tuple[str, ...]] = {
    # One time in place of a list of them.
    "lt.predict.flow.balanced.times": ("array number",),
    "lt.predict.flow.lora_init.times": ("array number",),
    # Whether it is recorded is seen by simulate; 1 − ρ is negative for a start beyond the target.
    "lt.Until.record": ("str unknown", "str empty"),
    "lt.predict.flow.balanced_descent.start": ("float negative",),
    # No times give no values.
    "lt.predict.linearised.steps": ("counts empty",),
    "lt.predict.linearised_alignment.steps": ("counts empty",),
    # LoRA-Pro without Adam's moments; NaN stands for a rate that is not known.
    "lt.methods.lora_pro_adamw.betas": ("none",),
    "lt.predict.local_rate.learning_rate": ("array nan",),
    # Any text may be written, and any name stand in a record.
    "storage.save_text.text": ("str unknown", "str empty"),
    "lt.methods.rebuild.name": ("str unknown", "str empty"),
    # A series that was not measured everywhere has a rate all the same, or NaN.
    "stats.decay_rate.values": ("array nan", "array infinite"),
    # Of the values that are numbers, infinite ones among them.
    "stats.median.values": ("array nan", "array infinite"),
    # Any text names data or a module, a rule of one's own or a start.
    "peft.get_lora_one_gradients.data": ("str unknown", "str empty"),
    "alignment.layer_class.name": ("str unknown", "str empty"),
    "Method.trained_by.name": ("str unknown",),
    "Method.with_init.name": ("str unknown",),
    "Method.with_rule.name": ("str unknown",),
    # All of them are run, which takes too long here.
    "bench.run.names": ("texts empty",),
    # Nothing is recorded; every claim is judged.
    "lt.simulate.record": ("texts empty",),
    # Any name is one of a sweep.
    "lt.sweep.name": ("str unknown",),
    "lt.Sweep.name": ("str unknown",),
    "lt.verify_all.names": ("texts empty",),
}


ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def needed(name: str) -> dict[str, Any]:
    """The arguments without a default, at good values."""
    together = TOGETHER.get(name, dict)()
    given = dict(together)
    for parameter in inspect.signature(TARGETS[name]).parameters.values():
        full = f"{name}.{parameter.name}"
        if parameter.name in together or parameter.kind in ANY_NUMBER:
            continue
        if full in GOOD or parameter.default is inspect.Parameter.empty:
            if full not in GOOD and parameter.name not in GOOD:
                raise LookupError(f"{full} needs a good value in GOOD of this file")
            given[parameter.name] = fresh(GOOD.get(full, GOOD.get(parameter.name)))
    return given


def use(name: str, given: dict[str, Any]) -> Any:
    """Call, and use what comes out, for some arguments are seen only then."""
    positional = [
        given.pop(p.name)
        for p in inspect.signature(TARGETS[name]).parameters.values()
        if p.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    found = TARGETS[name](*positional, **given)
    if isinstance(found, lt.Method):
        problem = SQUARE if name.startswith("lt.methods.symmetric") else PROBLEM
        return lt.simulate(problem, found, rank=2, learning_rate=0.01, steps=2)
    if isinstance(found, lt.methods.Alpha):
        return use("lt.methods.lora", {"scale": found})
    if isinstance(found, lt.SVDOptions):
        return lt.simulate(
            PROBLEM, lt.methods.lora_one(svd=found), rank=2, learning_rate=0.01, steps=2
        )
    if isinstance(found, lt.Rule):
        if found.advance is not None:
            return found.advance
        params = TRIPLE if name == "rules.adalora" else tuple(PAIR)
        return found.update(params, params, found.init(params))
    if name.startswith("inits."):
        return found(PROBLEM, 2, (0,))
    return found


def rows() -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, str]]:
    """(callable, argument) -> hostile values by name; and arguments that none are known for."""
    made, unknown = {}, {}
    for name, target in TARGETS.items():
        for parameter in inspect.signature(target).parameters.values():
            if parameter.kind in ANY_NUMBER:
                continue
            full, annotation = f"{name}.{parameter.name}", annotation_of(parameter)
            values = hostile_to(annotation, parameter.default)
            if values is None:
                unknown[full] = annotation
                continue
            right = RIGHT.get(full, ())
            kept = {label: value for label, value in values.items() if label not in right}
            if kept:
                made[name, parameter.name] = kept
    return made, unknown


ROWS, UNKNOWN = rows()


def test_every_annotation_has_hostile_values() -> None:
    """Else add its words to `WORDS` in hostile.py."""
    assert UNKNOWN == {}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "swept"
    lt.Sweep(folder, **SWEEP).run()
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(swept, tmp_path / "swept")
    storage.save_pair("in.npz", {"a": X}, {"a": 1})
    storage.save_json("out.json", 1)
    storage.save_pair("out.npz", {"a": X}, {"a": 1})
    storage.save_json("rows.json", {"rows": []})
    monkeypatch.setitem(bench.BENCHMARKS, "nothing", lambda setting: iter(()))
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "fig_x.py").write_text(SCRIPT)
    (tmp_path / "made").mkdir()
    (tmp_path / "kept").mkdir()
    experiment.produce(EXPERIMENT, experiment.Config(trials=1), tmp_path / "kept")
    if PEFT:
        hostile_peft.saved(tmp_path / "gradients.safetensors")
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", TARGETS)
def test_good_values_are_good(name: str, folder: Path) -> None:
    """Else the rows below would show nothing; what comes out is finite, in the dtype put in."""
    found = use(name, needed(name))
    if isinstance(found, lt.Trajectory):
        found = dict(found.records)
    for value in tensors_in(found):
        if value.is_floating_point() and name not in SINGLE:
            assert value.dtype == torch.float64
        assert torch.isfinite(value).all()


# Gradients of a network in float32.
SINGLE = {"peft.get_lora_one_gradients", "peft.lora_pairs"}


def tensors_in(found: Any) -> Iterator[torch.Tensor]:
    """Tensors and arrays of an answer, however deep in tuples and dicts."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, np.ndarray) and found.dtype.kind in "fiu":
        yield torch.from_numpy(np.array(found))
    elif isinstance(found, float):
        yield torch.tensor(found, dtype=torch.float64)
    elif isinstance(found, dict):
        for value in found.values():
            yield from tensors_in(value)
    elif isinstance(found, (tuple, list)):
        for value in found:
            yield from tensors_in(value)


def test_no_entry_is_dead() -> None:
    """Every name of the tables above is that of something that is there and is looked up."""
    there = set(targets())
    for label, given in OBJECTS.items():
        there |= set(methods_of(given, label))
    absent = () if PEFT else ("peft.", "alignment.")
    excused = {name for name in RECORDS | NOTHING | WITHIN if not name.startswith(absent)}
    assert excused - there == set()
    assert KERNELS | DRAWN <= {name.rpartition(".")[0] for name in there}
    arguments = {
        f"{name}.{parameter.name}": parameter
        for name, target in TARGETS.items()
        for parameter in inspect.signature(target).parameters.values()
    }
    named = {
        parameter.name
        for full, parameter in arguments.items()
        if full not in GOOD and parameter.default is inspect.Parameter.empty
    }
    assert set(GOOD) - set(arguments) - named == set()
    assert set(RIGHT) - set(arguments) - {n for n in RIGHT if n.startswith(absent)} == set()
    assert set(TOGETHER) <= set(TARGETS)


def test_there_are_rows() -> None:
    assert sum(len(values) for values in ROWS.values()) >= 300


def complaint(name: str, argument: str, value: Any) -> str:
    """What is wrong with the answer to a hostile value, or ""."""
    try:
        found = use(name, needed(name) | {argument: value})
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        if not is_our_own(error):
            return f"raw {type(error).__name__}: {message:.80}"
        clear = "\n" not in message and 20 < len(message) < 700
        return "" if clear else f"unclear: {message:.80}"
    except Exception as error:
        return f"raw {type(error).__name__}: {error!s:.80}"
    return f"accepted: {found!r:.60}"


@pytest.mark.parametrize(("name", "argument"), ROWS, ids=["-".join(row) for row in ROWS])
def test_one_clear_error(name: str, argument: str, folder: Path) -> None:
    before = files(folder)
    answers = {
        label: complaint(name, argument, value) for label, value in ROWS[name, argument].items()
    }
    assert {label: text for label, text in answers.items() if text} == {}
    assert files(folder) == before
