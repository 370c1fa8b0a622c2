"""Of which code claims from outside the package are: what is imported for them, and its digests.

A verdict that is kept is good as long as the code that measured it. The package's own is known to
`storage.code_version`; here is that of a file of claims with the modules beside it, and of an
installed pack.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# What begins the name that a file of claims has among the modules.
FILE = "_claims_of_"
_PACKAGE = Path(__file__).resolve().parents[1]
_MAIN = ("__main__", "__mp_main__")
_INSTALLED = {"site-packages", "dist-packages"}

# Folder -> module that was imported from it for a file of claims -> digest of its source then.
_brought: dict[Path, dict[str, str]] = {}


def _digest(path: Path) -> str:
    """Of a file's bytes; "" of one that cannot be read (any more)."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


@functools.cache
def _resolved(file: str) -> str:
    """There are thousands of modules, and looking through their folders takes its time."""
    return os.path.realpath(file)


def _files() -> Iterator[tuple[str, str]]:
    """The modules that are imported now, by name, with the file of each."""
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield name, _resolved(file)


def _inside(folder: Path) -> dict[str, Path]:
    """Of the modules that are imported now, those whose file lies in the folder or below.

    Neither those of this package, nor what is installed in an environment there, nor the script
    that runs, nor other files of claims.
    """
    below = str(folder).rstrip(os.sep) + os.sep
    found = {name: Path(file) for name, file in _files() if file.startswith(below)}
    return {
        name: path
        for name, path in found.items()
        if not path.is_relative_to(_PACKAGE)
        and not _INSTALLED.intersection(path.relative_to(folder).parts)
        and name not in _MAIN
        and not name.startswith(FILE)
    }


def _together(files: Mapping[str, Path]) -> str:
    lines = [f"{name} {_digest(path)}" for name, path in sorted(files.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def of_file(path: Path) -> str:
    """A digest of a file of claims and of the modules in its folder that are imported now."""
    path = path.resolve()
    return _together({**_inside(path.parent), "": path})


def of_package(value: str) -> str:
    """A digest of the modules that are imported now of the package that an entry point is of.

    Args:
        value: of the entry point, "my_package.claims:PAPER".
    """
    top = value.partition(":")[0].strip().partition(".")[0]
    return _together(
        {name: Path(f) for name, f in _files() if name == top or name.startswith(f"{top}.")}
    )


@contextmanager
def importable(path: Path) -> Iterator[None]:
    """During the block, modules in the folder of the file can be imported, as by a script."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def fresh(path: Path) -> Iterator[None]:
    """`importable`; what an earlier block imported from the folder is imported again if edited."""
    folder = path.resolve().parent
    known = _brought.setdefault(folder, {})
    files = _inside(folder)
    if any(_digest(files[name]) != then for name, then in known.items() if name in files):
        for name in known:
            sys.modules.pop(name, None)
        known.clear()
        importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        with importable(path):
            yield
    finally:
        new = _inside(folder)
        known |= {name: _digest(new[name]) for name in new if name not in before}
