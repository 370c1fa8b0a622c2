"""What the repository holds beside the package, and an installed package carries with it.

In a checkout these are the folders of the repository; the wheel has copies of them in `_shipped`
(pyproject.toml, `tool.hatch.build.targets.wheel`), so that every command works from an installed
package too.
"""

from __future__ import annotations

from pathlib import Path

# Entry points of this group are packs of claims that come with other distributions.
PACKS = "loraone_theory.claims"
# The folder that holds the package.
_BESIDE = Path(__file__).resolve().parent.parent
_INSIDE = Path(__file__).resolve().parent / "_shipped"


def in_checkout() -> bool:
    """Whether the package runs from a checkout of its repository."""
    return (_BESIDE / "pyproject.toml").is_file() and (_BESIDE / "experiments").is_dir()


def folder(name: str) -> Path:
    """The folder `name` of the repository: "experiments", "figures" or "records".

    It may not exist: an editable install without its checkout, say.

    >>> folder("experiments").name
    'experiments'
    """
    return (_BESIDE if in_checkout() else _INSIDE) / name
