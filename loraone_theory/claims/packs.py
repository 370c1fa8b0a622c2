"""Claims from outside the package: packs that are installed, and files.

A pack is a module with `CLAIMS`, or with a `PAPER` that says more. An installed distribution names
its packs as entry points of the group `loraone_theory.claims`; a file is handed in by its path.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from loraone_theory import shipped, storage
from loraone_theory.claims import CLAIMS, PAPERS, Claim, Paper, origins
from loraone_theory.claims.registry import Registry


class Library(NamedTuple):
    """All claims that are known.

    Args:
        papers: in the order of the report.
        claims: by id.
        own: those of the file that was asked for, if one was.
        origin: what the claims from outside are of: entry point -> version and digest of its
            package, path of the file -> digest of it and of the modules beside it.
        broken: entry point of an installed pack that cannot be loaded -> why, in a sentence.
    """

    papers: tuple[Paper, ...]
    claims: Registry
    own: tuple[Claim, ...]
    origin: Mapping[str, str]
    broken: Mapping[str, str] = {}

    def find(self, name: str) -> Claim:
        """The claim of this id or alias.

        Raises:
            ImportError: its pack cannot be loaded.
            ValueError: it is unknown; with the nearest, and with the packs that cannot be loaded.
        """
        if isinstance(name, str) and name not in {*self.claims, *self.claims.aliases}:
            self.refuse_broken(name.partition("/")[0])
        try:
            return self.claims.find(name)
        except ValueError as error:
            raise ValueError("; ".join([str(error), *self.broken.values()])) from None

    def refuse_broken(self, paper: str) -> None:
        """An ImportError where this is the name of a pack that cannot be loaded."""
        if paper in self.broken:
            raise ImportError(self.broken[paper])


class Pack(NamedTuple):
    """An installed pack.

    Args:
        point: the name of its entry point.
        value: of the entry point.
        home: the entry point and its distribution, in words.
        code: version of the distribution, and a digest of its package.
        paper: what it is.
        fault: why it cannot be loaded, or "".
    """

    point: str
    value: str
    home: str
    code: str = ""
    paper: Paper = Paper("", "", "", ())
    fault: str = ""


def library(source: str | Path | None = None) -> Library:
    """The claims of the package, of the packs that are installed, and of the file `source`.

    A pack that is installed and cannot be loaded, or has a name that is taken, is left out with a
    warning.

    Raises:
        ImportError: the file cannot be imported.
        ValueError: it has no claims, or claims whose names are taken.

    >>> len(library().claims) >= len(CLAIMS)
    True
    """
    installed = _installed()
    own = () if source is None else (from_file(source),)
    if not installed and not own:
        return Library(PAPERS, CLAIMS, (), {})
    claims = Registry(CLAIMS.values())
    outside, origin, broken = [], {}, {}
    for pack in installed:
        fault = pack.fault
        if not fault:
            try:
                claims.add_all(pack.paper.claims, pack.home)
            except (TypeError, ValueError) as error:
                fault = str(error)
        if fault:
            broken[pack.point] = (
                f"the pack of claims {pack.home} cannot be loaded: {fault}; mend it, or uninstall "
                "the distribution that it is of"
            )
            _warn(broken[pack.point])
        else:
            outside.append(pack.paper)
            origin[pack.value] = pack.code
    if source is not None:
        path = storage.as_path(source)
        claims.add_all(_claims(own), str(path))
        origin[str(path.resolve())] = origins.of_file(path)
    return Library((*PAPERS, *outside, *own), claims, _claims(own), origin, broken)


def _claims(papers: Iterable[Paper]) -> tuple[Claim, ...]:
    return tuple(claim for paper in papers for claim in paper.claims)


@functools.cache
def _warn(fault: str) -> None:
    """Once in a process."""
    warnings.warn(f"{fault}; the other claims are there", stacklevel=3)


@functools.cache
def _installed() -> tuple[Pack, ...]:
    """The packs of installed distributions, those that cannot be loaded among them."""
    found = []
    for point in sorted(metadata.entry_points(group=shipped.PACKS), key=lambda point: point.value):
        version = "" if point.dist is None else point.dist.version
        of = "" if point.dist is None else f" of {point.dist.name} {version}"
        pack = Pack(point.name, point.value, f"{point.name!r} ({point.value}{of})")
        try:
            paper = paper_of(point.load(), point.value)
        except (Exception, SystemExit) as error:
            found.append(pack._replace(fault=f"{type(error).__name__}: {error}"))
            continue
        code = f"{version} {origins.of_package(point.value)}".lstrip()
        found.append(pack._replace(paper=paper, code=code))
    return tuple(found)


def states() -> dict[str, str]:
    """Each installed pack, in words -> how many claims it has, or why it cannot be loaded."""
    known = library()
    return {
        pack.home: known.broken.get(pack.point, f"{len(pack.paper.claims)} claims")
        for pack in _installed()
    }


def from_file(source: str | Path) -> Paper:
    """The claims of a Python file, which is run; modules beside it can be imported meanwhile.

    Raises:
        FileNotFoundError: it is absent.
        ImportError: it cannot be run.
        ValueError: another suffix than .py, or no claims.
    """
    path = storage.as_path(source)
    if path.suffix != ".py":
        raise ValueError(f"a file of claims must end in .py; got {path}")
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    name = f"{origins.FILE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        with origins.fresh(path):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ImportError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return paper_of(module, str(path))


def paper_of(pack: Any, where: str) -> Paper:
    """What a pack is: a Paper itself, a module with `PAPER`, or one with `CLAIMS` of one paper."""
    inside = {} if isinstance(pack, Paper) else vars(pack)
    paper = inside.get("PAPER", pack)
    if not isinstance(paper, Paper):
        if not isinstance(inside.get("CLAIMS"), (tuple, list)):
            raise ValueError(f"{where} must have CLAIMS = (Claim(...), ...), or a PAPER with them")
        paper = Paper("", "", "", (pack,))
    claims = paper.claims
    odd = [claim for claim in claims if not isinstance(claim, Claim)]
    if odd or not claims:
        raise ValueError(f"{where} must hold claims of the type Claim; got {odd[:1] or 'none'}")
    names = sorted({claim.paper for claim in claims} | ({paper.id} - {""}))
    if len(names) > 1:
        raise ValueError(
            f"the ids of the claims of {where} must begin with one paper; got {', '.join(names)}"
        )
    return paper if paper.id else Paper(names[0], names[0], where, paper.files)
