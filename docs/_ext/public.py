"""What is public, page by page: each name once, with the text that documents it."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loraone_theory as lt

PACKAGE = "loraone_theory"


@dataclass(frozen=True)
class Page:
    """A page of the reference.

    Args:
        name: its file, without the suffix.
        title: its heading.
        homes: modules under PACKAGE whose names in `loraone_theory` itself stand on the page.
        modules: modules under PACKAGE that follow, each with all its public names.
    """

    name: str
    title: str
    homes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


PAGES = (
    Page("runs", "Runs and what they return", ("dynamics", "core.status")),
    Page("problems", "Problems", ("problems",),
         ("problems.sensing.operators", "problems.sensing.rip")),
    Page("methods", "Methods, rules, initialisations, schedules", ("methods",),
         ("methods", "methods.schedules", "methods.rules", "methods.inits")),
    Page("predictions", "Predictions", ("predict",),
         ("predict", "predict.flow", "predict.relu", "predict.stochastic")),
    Page("sweeps", "Sweeps", ("sweeps",), ("sweeps",)),
    Page("claims", "Claims and verdicts", ("claims",), ("claims", "claims.stats")),
    Page("metrics", "Metrics and linear algebra", ("core",), ("metrics", "core.linalg")),
    Page("testing", "Tests of one's own parts", (), ("testing", "testing.strategies")),
    Page("integrations", "PEFT models and small networks", (),
         ("integrations.peft", "integrations.alignment", "nets.digits", "nets.idx",
          "nets.networks")),
    Page("experiments", "Experiments, figures, files", (),
         ("experiment", "plotting", "storage", "agreement", "bench")),
)  # fmt: skip
# Public names that no page above asks for, such as those of a folder that is new.
OTHERS = Page("others", "Further names")


@dataclass(frozen=True)
class Name:
    """A public name: where it is asked for, what it is, and its own text."""

    module: str
    name: str
    value: Any = field(repr=False)

    @property
    def full(self) -> str:
        """What a program writes.

        >>> Name("loraone_theory", "simulate", lt.simulate).full
        'loraone_theory.simulate'
        """
        return f"{self.module}.{self.name}"

    @property
    def kind(self) -> str:
        """class, function or data."""
        if inspect.isclass(self.value) and self.value.__module__.startswith(PACKAGE):
            return "class"
        return "function" if inspect.isroutine(self.value) else "data"

    @property
    def text(self) -> str:
        """Its docstring; of a constant the comment above it, or beside it."""
        if inspect.isclass(self.value) and self.kind == "data":
            return f"{self.value.__name__} of {self.value.__module__.partition('.')[0]}."
        if self.kind == "data":
            return comment(self.module, self.name)
        return inspect.cleandoc(self.value.__dict__.get("__doc__") or self.value.__doc__ or "")

    @property
    def summary(self) -> str:
        """The first paragraph on one line."""
        return " ".join(self.text.split("\n\n")[0].split())

    def members(self) -> Iterator[Name]:
        """Methods and properties of a class, its own ones."""
        if self.kind == "class":
            for name, value in vars(self.value).items():
                plain = inspect.unwrap(getattr(value, "__func__", value))
                if isinstance(value, property | functools.cached_property):
                    plain = getattr(value, "fget", None) or value.func
                named = not name.startswith("_") and inspect.isfunction(plain)
                if named and plain.__module__.startswith(PACKAGE):
                    yield Name(self.full, name, plain)


def is_public(module: types.ModuleType) -> list[str]:
    """The public names of a module: those of `__all__`, or those that are made in it."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if not isinstance(getattr(module, name), types.ModuleType)]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def of_package() -> dict[str, str]:
    """Names of `loraone_theory` itself -> the module under it that has them."""
    return {
        name: place.removeprefix(f"{PACKAGE}.")
        for name, place in lt._HOMES.items()
        if not isinstance(getattr(lt, name), types.ModuleType)
    }


def is_within(place: str, homes: tuple[str, ...]) -> bool:
    """Whether a module is one of `homes`, or in one."""
    return any(place == each or place.startswith(f"{each}.") for each in homes)


def top(page: Page) -> list[Name]:
    """Names of `loraone_theory` that stand on a page: on the one that says it most closely."""
    homes = of_package()
    claimed = sorted((h for each in PAGES for h in each.homes), key=len, reverse=True)

    def closest(place: str) -> str | None:
        return next((h for h in claimed if is_within(place, (h,))), None)

    mine = [n for n, place in homes.items() if closest(place) in (page.homes or (None,))]
    if not page.homes and page is not OTHERS:
        return []
    return [Name(PACKAGE, name, getattr(lt, name)) for name in mine]


def of_module(module: str) -> list[Name]:
    """The public names of a module that do not stand under `loraone_theory` itself."""
    loaded = importlib.import_module(f"{PACKAGE}.{module}")
    short = {id(getattr(lt, name)) for name in of_package()}
    return [
        Name(loaded.__name__, name, getattr(loaded, name))
        for name in is_public(loaded)
        if id(getattr(loaded, name)) not in short
    ]


def extra_modules() -> list[str]:
    """Public modules that no page names."""
    named = {f"{PACKAGE}.{module}" for page in PAGES for module in page.modules}
    found = [v.__name__ for v in map(lt.__getattr__, lt.__all__) if isinstance(v, types.ModuleType)]
    return [
        m.removeprefix(f"{PACKAGE}.")
        for m in found
        if m not in named and m != f"{PACKAGE}.problems"  # its names are those of the package
    ]


def pages() -> list[Page]:
    """The pages that have something on them."""
    others = Page(OTHERS.name, OTHERS.title, (), tuple(extra_modules()))
    return [*PAGES, *([others] if others.modules or top(OTHERS) else [])]


def names(page: Page) -> list[Name]:
    """Everything on a page, in order, each once."""
    found = top(OTHERS if page.name == OTHERS.name else page)
    return [*found, *(name for module in page.modules for name in of_module(module))]


@functools.cache
def lines(module: str) -> tuple[list[str], dict[str, int]]:
    """The source of a module, and the line of each name that is assigned at its top."""
    source = Path(typing.cast(str, importlib.import_module(module).__file__))
    text = source.read_text(encoding="utf-8")
    at = {}
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        at.update({t.id: node.lineno - 1 for t in targets if isinstance(t, ast.Name)})
    return text.splitlines(), at


def comment(module: str, name: str) -> str:
    """The comment above an assignment, in the module that makes it.

    >>> comment("loraone_theory.claims", "PAPERS")
    'In the order of the report.'
    """
    text, at = lines(module)
    if name not in at:
        origin = imported_from(module, name)
        return comment(*origin) if origin else ""
    line, found = at[name] - 1, []
    while line >= 0 and text[line].startswith("# "):
        found.append(text[line][2:])
        line -= 1
    beside = text[at[name]].partition("  # ")[2]
    return " ".join(found[::-1]) or beside


def imported_from(module: str, name: str) -> tuple[str, str] | None:
    """Where a module has a name from."""
    if module == PACKAGE:
        return lt._HOMES[name], name
    source = Path(typing.cast(str, importlib.import_module(module).__file__))
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module.startswith(PACKAGE):
                    return node.module, alias.name
    return None
