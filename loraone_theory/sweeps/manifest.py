"""What a folder says of its sweep, and the sweep again from that, as far as its results need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loraone_theory.sweeps.measures import CURVE
from loraone_theory.sweeps.specification import Specification
from loraone_theory.sweeps.values import label
from loraone_theory.sweeps.version import numerics_version


@dataclass(frozen=True)
class Said:
    """A measure as a manifest has it.

    Args:
        about: what `Measure.described` said.
        unit: of its values.
        doc: a line on what it is.
        trailing: the name of the axis of a vector.
    """

    about: Mapping[str, Any]
    unit: str
    doc: str
    trailing: str | None

    @property
    def is_curve(self) -> bool:
        """Whether it has a value at every recorded step."""
        return bool(self.about["reduce"] == CURVE)

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.about)


def described(spec: Specification) -> dict[str, Any]:
    """The manifest of a sweep, as JSON."""
    labels = {
        name: [label(name, value) for value in given]
        for name, given in (*spec.axes.items(), *spec.together.items())
    }
    variables = {
        name: {"unit": each.unit, "doc": each.doc, "trailing": each.trailing}
        for name, each in spec.measures.items()
    }
    told = {
        "labels": labels,
        "variables": variables,
        "numerics": numerics_version(),
        "compiled": numerics_version("numba"),
    }
    return {**spec.described(), **told}


def versions_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Engine -> the version of the numerics that its cells were made by."""
    numerics = manifest["numerics"]  # of all engines, in files of former versions
    return {"torch": numerics, "numba": manifest.get("compiled", numerics)}


def specification_of(manifest: Mapping[str, Any]) -> Specification:
    """The sweep of a manifest, its values as JSON has them: its cells have the same keys."""
    return Specification(
        name=manifest["name"],
        fixed=manifest["fixed"],
        axes={name: tuple(given) for name, given in manifest["axes"].items()},
        together={name: tuple(given) for name, given in manifest["together"].items()},
        measures={
            name: Said(about, **manifest["variables"][name])
            for name, about in manifest["measure"].items()
        },
        runs_per_cell=manifest["runs_per_cell"],
    )
