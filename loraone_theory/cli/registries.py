"""Everything that has a name: `registries` gives the dicts, and all are described in one way."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loraone_theory import experiment
from loraone_theory.dynamics.records import RECORDS, Record
from loraone_theory.methods import METHODS
from loraone_theory.methods.inits import INITS
from loraone_theory.methods.rules import AROUND, RULES
from loraone_theory.methods.schedules import SCHEDULES
from loraone_theory.problems.recipes import SAMPLERS
from loraone_theory.problems.sensing.operators import OPERATORS

# The folder that the package is in.
ROOT = Path(__file__).resolve().parents[2]
# What a factory is handed by whoever calls it; the other parameters are hyper-parameters.
HANDED = {"rule": ("learning_rate", "damping", "base"), "initialisation": ("scale", "std")}


class Registry(NamedTuple):
    """A dict of named things.

    Args:
        kind: what one of them is.
        table: name -> the factory, the Record, the Claim or the script.
        how: how one is used, with NAME for its name.
    """

    kind: str
    table: Mapping[str, Any]
    how: str


# All but the claims, which take long to import.
REGISTRIES: dict[str, Registry] = {
    "methods": Registry("method", METHODS, "lt.METHODS['NAME'](...)"),
    "rules": Registry("rule", {**RULES, **AROUND}, "method.trained_by('NAME', ...)"),
    "initialisations": Registry("initialisation", INITS, "lt.methods.inits.INITS['NAME'](...)"),
    "records": Registry("record", RECORDS, "lt.simulate(..., record=('NAME',))"),
    "problems": Registry("problem", SAMPLERS, "lt.NAME(...)"),
    "ensembles": Registry("ensemble", OPERATORS, "lt.sample_sensing(ensemble='NAME', ...)"),
    "schedules": Registry("schedule", SCHEDULES, "learning_rate=lt.schedules.NAME(...)"),
}


def registries() -> dict[str, Registry]:
    """`REGISTRIES`, the experiments, and the claims with those of installed packs."""
    from loraone_theory.claims.packs import library  # hundreds of modules

    claims = Registry("claim", library().claims, "loraone verify 'NAME'")
    scripts = Registry("experiment", experiment.find(), "loraone reproduce NAME")
    return REGISTRIES | {"experiments": scripts, "claims": claims}


class Entry(NamedTuple):
    """One named thing.

    Args:
        name: its key.
        registry: where it is.
        thing: its value there.
    """

    name: str
    registry: Registry
    thing: Any

    @property
    def text(self) -> str:
        """Its docstring without the examples: what it does, with the formula."""
        if self.registry.kind == "claim":
            return f"{self.thing.title}\n\n{self.thing.statement}"
        if self.registry.kind == "experiment":
            return experiment.summary(self.thing)
        own = self.thing.doc if isinstance(self.thing, Record) else self.thing.__doc__
        return inspect.cleandoc(own or "").partition("\n>>>")[0].rstrip()

    @property
    def line(self) -> str:
        """The first line of it."""
        return self.text.partition("\n")[0]

    @property
    def parameters(self) -> dict[str, str]:
        """Hyper-parameter -> its default as it is written, "required" where there is none."""
        if self.registry.kind in ("claim", "record", "experiment"):
            return {}
        found = {}
        for name, parameter in inspect.signature(self.thing).parameters.items():
            if name in HANDED.get(self.registry.kind, ()):
                continue
            absent = parameter.default is inspect.Parameter.empty
            found[name] = "required" if absent else repr(parameter.default)
        return found

    @property
    def facts(self) -> dict[str, str]:
        """What it states besides, by name."""
        thing = self.thing
        if isinstance(thing, Record):
            return {
                "needs": ", ".join(sorted(thing.needs)) or "nothing",
                "invariant under rotations": "yes" if thing.invariant else "no",
                "values": "one a run" if thing.axis is None else f"a vector, axis {thing.axis!r}",
                "unit": "none" if thing.unit == "1" else thing.unit,
            }
        if self.registry.kind == "claim":
            return {
                "reference": thing.reference,
                "kind": thing.kind,
                "hypotheses": "; ".join(thing.hypotheses) or "none",
                "how": thing.how,
                "mutant": thing.mutant_statement,
                "expected": str(thing.expected),
            }
        return _parts(thing()) if self.registry.kind == "method" else {}

    @property
    def source(self) -> str:
        """The file that defines it, from the folder of the package on where it is in there."""
        code = self.thing
        if self.registry.kind == "experiment":
            return Path("experiments", code.name).as_posix()
        if self.registry.kind in ("claim", "record"):
            code = code.measure
        path = Path(inspect.getsourcefile(inspect.unwrap(code)) or "").resolve()
        return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()


def _parts(method: Any) -> dict[str, str]:
    """The initialisation, parametrisation and rule of a method, each with its formula."""
    hyper = method.hyper
    inits, rules = REGISTRIES["initialisations"].table, REGISTRIES["rules"].table
    found = {
        "initialisation": _part(hyper["init"], inits),
        "parametrisation": hyper["parametrisation"],
        "rule": _part(hyper["rule"], rules),
    }
    if "around" in hyper:
        found["around the rule"] = _part(hyper["around"], rules)
    return found


def _part(described: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    name = described["name"]
    own = ", ".join(f"{key}={value!r}" for key, value in described.items() if key != "name")
    first = inspect.cleandoc(table[name].__doc__ or "").partition("\n\n")[0]
    return f"{name}({own}): {' '.join(first.split())}"


def entries(name: str) -> list[Entry]:
    """Everything of that name; several kinds may share one.

    Raises:
        ValueError: there is none; with the nearest names.
    """
    known = registries()
    everything = [
        Entry(key, registry, thing)
        for registry in known.values()
        for key, thing in registry.table.items()
    ]
    current = known["claims"].table.current(name)  # type: ignore[attr-defined]
    found = [entry for entry in everything if entry.name == current]
    if found:
        return found
    names = {entry.name.casefold(): entry for entry in everything}
    near = difflib.get_close_matches(name.casefold(), names, n=1)
    hint = f"did you mean {names[near[0]].name!r}?" if near else "see `loraone list`"
    kinds = ", ".join(registry.kind for registry in known.values())
    raise ValueError(f"name must be that of a {kinds}; got {name!r}; {hint}")
