"""`loraone doctor`."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from importlib import metadata

from loraone_theory import environment, selftest, shipped
from loraone_theory.cli.common import console, print_tables
from loraone_theory.cli.guard import DONE, FAILED


@dataclass(frozen=True)
class Doctor:
    """Say what the library runs on and whether it computes right here; exit code 1 if it does not.

    Paste what it prints into a report of a fault. A second's worth of small runs is compared with
    stored numbers; that an extra is not installed, or that an installed pack of
    claims cannot be loaded, is said and is no fault.
    """

    def run(self) -> int:
        """Print versions, machine and extras, run the self-test."""
        screen = console()
        wrong = environment.lacking(environment.requirements()[""])
        tables = {"versions": environment.versions(), "machine": environment.machine()}
        tables["extras"] = {
            extra.name: f"{'; '.join(extra.missing)}: {extra.remedy}" if extra.missing else "here"
            for extra in environment.extras()
        }
        if metadata.entry_points(group=shipped.PACKS):  # the claims take long to import
            packs = importlib.import_module("loraone_theory.claims.packs")
            tables["packs of claims"] = packs.states()
        gap = selftest.difference()
        right = not math.isnan(gap) and gap <= selftest.TOLERANCE
        tables["self-test"] = {
            "largest relative difference from stored numbers": f"{gap:.1e}",
            "what rounding explains": f"{selftest.TOLERANCE:.1e}",
            "result": "right" if right else "WRONG: please report it with all of this",
        }
        print_tables(screen, tables)
        for phrase in wrong:
            screen.print(f"the library needs more than is here: {phrase}")
        return DONE if right and not wrong else FAILED
