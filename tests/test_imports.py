"""What waits until it is asked for, and what the library does without: by what is imported when."""

import functools
import json
import subprocess
import sys

import pytest

# One process goes through these steps and says after each which modules there are.
STEPS = {
    "the library": "import loraone_theory as lt",
    "a problem of arrays": (
        "import numpy as np; lt.LinearProblem.from_data(np.eye(3), labels=np.eye(3))"
    ),
    "the help": (
        "from loraone_theory.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    ),
    "the commands": (
        "import loraone_theory.cli.listing\nfrom loraone_theory.cli.commands import COMMANDS"
    ),
}
# Step -> what is not imported by then. Statistics, ball arithmetic and compilers' helpers would
# take the start of `loraone` past half a second.
WAITS = {
    "the library": (
        "matplotlib", "peft", "transformers", "tyro", "rich", "hypothesis", "sklearn", "pandas",
    ),
    "a problem of arrays": ("pandas",),
    "the help": ("loraone_theory.claims",),
    "the commands": (
        "matplotlib", "scipy.stats", "scipy.special", "scipy.integrate", "hypothesis",
        "torch.utils.benchmark", "setuptools", "flint", "pandas",
    ),
}  # fmt: skip

WITHOUT = """
import sys
for name in ("peft", "transformers", "sklearn", "hypothesis"):
    sys.modules[name] = None
import loraone_theory as lt
from loraone_theory.nets import digits
lt.testing.check_rule(lt.methods.lora().rule)
for load in (
    lambda: __import__("loraone_theory.integrations.peft"),
    lambda: digits.load("odd"),
    lambda: lt.testing.problems,
):
    try:
        load()
    except ImportError as error:
        print(error)
"""


def said_by(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@functools.cache
def imported() -> dict[str, list[str]]:
    """Step -> the modules that there are after it."""
    tell = "\nimport json, sys; print('MODULES', json.dumps(list(sys.modules)))\n"
    said = said_by(tell.join([*STEPS.values(), ""]))
    told = [line.removeprefix("MODULES ") for line in said if line.startswith("MODULES ")]
    return dict(zip(STEPS, map(json.loads, told), strict=True))


@pytest.mark.parametrize("step", STEPS)
def test_what_waits(step: str) -> None:
    assert sorted(set(WAITS[step]) & set(imported()[step])) == []


def test_the_help_alone_does_without_torch() -> None:
    """What computes takes ten times as long to import as the help to print."""
    said = said_by(
        STEPS["the help"] + "\nimport sys; print(sorted({'torch', 'numpy'} & {*sys.modules}))"
    )
    assert len(said) > 10
    assert said[-1] == "[]"


def test_the_commands_are_all_there_by_then() -> None:
    """Else the steps would show nothing."""
    there = set(imported()["the commands"])
    assert {"loraone_theory", "loraone_theory.claims", "loraone_theory.cli.simulate"} <= there


def test_the_library_and_its_checks_do_without_extras() -> None:
    """Rules are checked without hypothesis, and what does need an extra names it."""
    peft, digits, strategies = said_by(WITHOUT)
    assert peft == "peft is not installed: pip install 'loraone-theory[peft]'"
    assert "pip install 'loraone-theory[experiments]'" in digits
    assert "pip install 'loraone-theory[test]'" in strategies
