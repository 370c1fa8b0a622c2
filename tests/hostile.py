"""Hostile arguments made from signatures: what to call, with what, and what counts as an answer."""

import ast
import functools
import importlib
import importlib.util
import inspect
import math
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import loraone_theory as lt
from loraone_theory import experiment, storage
from loraone_theory.bench import base as bench
from loraone_theory.claims import stats
from loraone_theory.methods import inits, rules

PACKAGE = Path(lt.__file__).resolve().parent
MATRIX = np.arange(1.0, 13.0).reshape(3, 4)


class Fresh(NamedTuple):
    """A good value that its call may change, so that every call has one of its own."""

    make: Callable[[], Any]


def fresh(value: Any) -> Any:
    """The value, made anew where it has to be."""
    return value.make() if isinstance(value, Fresh) else value


class Kind(NamedTuple):
    """What an annotation asks for: values that break it, and what it would take by its type."""

    hostile: Mapping[str, Any]
    takes: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, range))


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's, about prototypes and deprecations
    ARRAYS: dict[str, Any] = {
        "masked": np.ma.masked_array(MATRIX, mask=MATRIX > 3),
        "sparse": torch.from_numpy(MATRIX.copy()).to_sparse(),
        "meta": torch.ones(3, 4, device="meta"),
        "complex": torch.ones(3, 4, dtype=torch.complex128),
        "boolean": MATRIX > 2,
        "half": torch.ones(3, 4).half(),
        "quantised": torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8),
        "strings": np.array([["a"]]),
        "objects": np.array([[None]]),
        "nan": MATRIX * math.nan,
        "infinite": torch.full((3, 4), math.inf, dtype=torch.float64),
        "empty": MATRIX[:0],
        "number": 1.0,
        "text": "x",
    }
TEXTS = {"unknown": "nonsense", "bytes": b"gd", "number": 1, "list": ["gd"], "empty": ""}
NUMBERS = {
    "boolean": True,
    "text": "0.1",
    "complex": 1j,
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 10**400,
    "negative": -1.0,
    "numpy boolean": np.True_,
    "meta": torch.ones((), device="meta"),
    "masked": np.ma.masked,
    "object": object(),
}
COUNTS = {
    "boolean": True,
    "fraction": 1.5,
    "text": "2",
    "negative": -1,
    "beyond 64 bits": 2**70,
    "numpy boolean": np.True_,
    "nan": math.nan,
    "object": object(),
}
LISTS = {"empty": [], "text": "ab", "objects": [object()], "booleans": [True], "set": {1}}
PAIR = torch.ones(8, 2, dtype=torch.float64), torch.ones(2, 6, dtype=torch.float64)
FACTORS = {
    "nan": lt.Factors(PAIR[0] * math.nan, PAIR[1]),
    "shapes": lt.Factors(PAIR[0], PAIR[0]),
    "arrays of text": lt.Factors("A", "B"),  # type: ignore[arg-type]
    "dtype": lt.Factors(PAIR[0].float(), PAIR[1]),
    "complex": lt.Factors(PAIR[0] + 0j, PAIR[1] + 0j),
    "number": 1.0,
}
THINGS = {"text": "nonsense", "number": 3, "object": object()}

KINDS = {
    "int": Kind(COUNTS, lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "float": Kind(NUMBERS, is_number),
    "scalar": Kind(
        {name: value for name, value in NUMBERS.items() if name != "meta"},
        lambda v: is_number(v) or isinstance(v, torch.Tensor),
    ),
    "str": Kind(TEXTS, lambda v: isinstance(v, str)),
    "bool": Kind({"text": "yes", "number": 2, "none": None}, lambda v: isinstance(v, bool)),
    "array": Kind(ARRAYS, lambda v: isinstance(v, (np.ndarray, torch.Tensor))),
    "counts": Kind(LISTS | {"fractions": [0.5], "negative": [-1]}, is_list),
    "numbers": Kind(LISTS | {"nan": [math.nan], "texts": ["a"]}, is_list),
    "texts": Kind(LISTS | {"unknown": ["nonsense"]}, is_list),
    "rate": Kind(
        {name: value for name, value in NUMBERS.items() if name != "object"},
        lambda v: is_number(v) or callable(v),
    ),
    "rates": Kind(LISTS | {"nan": [math.nan], "texts": ["a"]}, is_list),
    "layers": Kind(ARRAYS, lambda v: isinstance(v, dict)),
    "betas": Kind({"one": [0.9], "too large": (2.0, 2.0), "texts": ("a", "b")}, is_list),
    "function": Kind({"number": 3, "text": "x"}, callable),
    "thing": Kind(THINGS, lambda v: False),
    "factors": Kind(FACTORS, lambda v: isinstance(v, lt.Factors)),
    "path": Kind({"number": 3}, lambda v: isinstance(v, (str, Path))),
    "none": Kind({}, lambda v: v is None),
}
# Words of an annotation -> kinds, the first match of each alternative.
WORDS = {
    "None": "none",
    "Sequence[int]": "counts",
    "Sequence[float]": "numbers",
    "Sequence[str]": "texts",
    "Sequence[Rate]": "rates",
    "Sequence": "counts",
    "Callable": "function",
    "Report": "function",
    "picture.Boundary": "function",
    "Loss": "function",
    "Init": "function",
    "RuleFactory": "function",
    "rows.Draw": "function",
    "Draw": "function",
    "Betas": "betas",
    "Bounds": "counts",
    "tuple[float": "numbers",
    "tuple[int": "counts",
    "tuple[str": "texts",
    "dict": "thing",
    "int": "int",
    "float": "float",
    "Scalar": "scalar",
    "Scale": "float",
    "Std": "float",
    "bool": "bool",
    "torch.dtype": "thing",
    "torch.device": "thing",
    "str": "str",
    "Path": "path",
    "Tensor": "array",
    "np.ndarray": "array",
    "Array": "array",
    "Layers": "layers",
    "Rate": "rate",
    "frozenset": "thing",
    "Factors": "factors",
    "Mapping": "thing",
    "Data": "thing",
    "Rows": "thing",
    "PairOf": "function",
    "State": "none",
    "Any": "none",
}
NAMED = (
    "Direction", "Size", "Order", "Side", "Kind", "RuleName", "ColumnLaw", "Literal",
    "Missing", "Reduce", "InputLaw", "EnsembleName", "Sampling",
)  # fmt: skip
THING = (
    "Problem",
    "Measured",
    "Until",
    "ReLUPopulation",
    "Covariance",
    "Method",
    "SVDOptions",
    "Rule",
    "Claim",
    "Evidence",
    "Operator",
    "Record",
    "Setting",
    "LoraConfig",
    "LoRAOneConfig",
    "Group",
    "Experiment",
    "Config",
    "nn.Module",
    "Progress",
    "Row",
)


def alternatives(annotation: str) -> Iterator[str]:
    """The members of a union, outside brackets."""
    depth, start = 0, 0
    for i, letter in enumerate(annotation + "|"):
        depth += (letter in "[(") - (letter in "])")
        if letter == "|" and depth == 0:
            yield annotation[start:i].strip()
            start = i + 1


def kinds_of(annotation: str) -> list[str]:
    """The kinds that an annotation is made of."""
    found = []
    for word in alternatives(annotation):
        if any(word.startswith(name) for name in NAMED):
            found.append("str")
        elif any(name in word for name in THING) and not word.startswith("Callable"):
            found.append("thing")
        else:
            found.append(next((k for name, k in WORDS.items() if word.startswith(name)), ""))
    return found


def hostile_to(annotation: str, default: Any) -> dict[str, Any] | None:
    """Values that no member of the annotation takes, by name; None where none are known."""
    names = kinds_of(annotation)
    if "" in names:
        return None
    values: dict[str, Any] = {}
    for name in names:
        others = [KINDS[other] for other in names if other != name]
        for label, value in KINDS[name].hostile.items():
            if not any(other.takes(value) for other in others):
                values[f"{name} {label}"] = value
    if "none" not in names and "bool" not in names and default is not None:
        values["none"] = None
    return values


def public(module: types.ModuleType, label: str, seen: set[str]) -> Iterator[tuple[str, Any]]:
    """Every public callable of a module and of the modules in it."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    for name in names:
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            if value.__name__ not in seen and value.__name__.startswith(lt.__name__):
                seen.add(value.__name__)
                yield from public(value, f"{label}.{name}", seen)
        elif callable(value) and typing.get_origin(value) is None:
            yield f"{label}.{name}", value


def targets() -> dict[str, Callable[..., Any]]:
    """Everything public that is called with arguments, by its full name."""
    found: dict[str, Callable[..., Any]] = {}
    seen: set[str] = set()
    modules = {"lt": lt, "storage": storage, "stats": stats, "rules": rules, "inits": inits}
    modules |= {"bench": bench, "experiment": experiment}
    if importlib.util.find_spec("peft") is not None:
        for label in ("peft", "alignment"):
            modules[label] = importlib.import_module(f"loraone_theory.integrations.{label}")
    for label, module in modules.items():
        found |= dict(public(module, label, seen))
    for problem in (lt.LinearProblem, lt.ReLUProblem, lt.ReLUPopulation, lt.SensingProblem):
        for name, value in vars(problem).items():
            if isinstance(value, classmethod) and not name.startswith("_"):
                found[f"lt.{problem.__name__}.{name}"] = getattr(problem, name)
    return found


def methods_of(given: Any, label: str) -> dict[str, Callable[..., Any]]:
    """The public methods of an object that take arguments, each of a fresh copy of it."""
    found: dict[str, Callable[..., Any]] = {}
    for name, value in inspect.getmembers_static(type(fresh(given))):
        if name.startswith("_") or not inspect.isfunction(value):
            continue
        if PACKAGE not in Path(value.__code__.co_filename).resolve().parents:
            continue  # of torch or numpy
        if len(inspect.signature(value).parameters) > 1:
            found[f"{label}.{name}"] = _bound(given, value)
    return found


def _bound(given: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(fresh(given), *args, **kwargs)

    own = list(inspect.signature(method).parameters.values())[1:]
    call.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    return call


def annotation_of(parameter: inspect.Parameter) -> str:
    given = parameter.annotation
    if isinstance(given, typing.ForwardRef):
        return given.__forward_arg__
    return given if isinstance(given, str) else getattr(given, "__name__", str(given))


@functools.cache
def raises_of(path: str) -> tuple[tuple[int, int], ...]:
    """First and last lines of the `raise` statements of a source file."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return tuple((node.lineno, node.end_lineno or node.lineno) for node in found)


def is_our_own(error: BaseException) -> bool:
    """Whether a `raise` statement of the library made it, and not torch, numpy or Python."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    path, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
    if PACKAGE not in Path(path).resolve().parents:
        return False
    return any(first <= line <= last for first, last in raises_of(path))
