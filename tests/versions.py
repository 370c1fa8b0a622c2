"""Constraints for `tests/versions.sh`: the lower bounds of pyproject.toml as pins, or torch alone.

The tools of development (tests, lint, types, site) are not what a user has to have, and stay
unpinned.
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def lines(which: str) -> list[str]:
    """The constraints, one line each.

    >>> lines("newest")[0].startswith("torch==")
    True
    """
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line for line in pinned if line.startswith("torch==")]
    if which == "newest":
        return found
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    users = [
        line
        for name, lines in optional.items()
        if name not in ("test", "release", "docs")
        for line in lines
    ]
    for requirement in map(Requirement, [*project["dependencies"], *users]):
        bounds = [s.version for s in requirement.specifier if s.operator == ">="]
        assert len(bounds) == 1, f"{requirement} must have one lower bound"
        if requirement.name != "torch":
            found.append(f"{requirement.name}=={bounds[0]}")
    return found


if __name__ == "__main__":
    print("\n".join(lines(sys.argv[1])))
