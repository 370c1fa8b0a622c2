"""What the library runs on: versions, threads, linear algebra, devices, and extras."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import torch
from packaging.requirements import Requirement

DISTRIBUTION = "loraone-theory"
# Who works on the package needs these; its users do not.
DEVELOPMENT = ("test", "release", "docs")


class Extra(NamedTuple):
    """An optional part of the package.

    Args:
        name: as in `pip install 'loraone-theory[peft]'`.
        missing: what of it is not installed, or is older than its lower bound, a phrase each.
    """

    name: str
    missing: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """The sentence that says how to get it; empty where nothing is missing."""
        return f"pip install '{DISTRIBUTION}[{self.name}]'" if self.missing else ""


def requirements() -> dict[str, list[Requirement]]:
    """Extra -> what it needs, "" for what the package itself needs.

    Raises:
        ModuleNotFoundError: the package is not installed, only on the path.
    """
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"{DISTRIBUTION} is on the path and not installed, so that what it needs is not known; "
            f"pip install {DISTRIBUTION}, or pip install -e . in a checkout"
        ) from error
    parsed = [Requirement(line) for line in lines]
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    found = {"": [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]}
    for extra in extras:
        found[extra] = [
            r
            for r in parsed
            if r.marker is not None
            and r.marker.evaluate({"extra": extra})
            and not r.marker.evaluate({"extra": ""})
        ]
    return found


def lacking(wanted: list[Requirement]) -> tuple[str, ...]:
    """What of `wanted` is not installed or too old, a phrase each.

    >>> lacking([Requirement("numpy>=1"), Requirement("no-such-package>=2")])
    ('no-such-package is not installed',)
    """
    phrases = []
    for requirement in wanted:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            phrases.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            phrases.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return tuple(phrases)


def extras() -> list[Extra]:
    """The optional parts for users, in the order in which the package declares them."""
    return [
        Extra(name, lacking(wanted))
        for name, wanted in requirements().items()
        if name and name not in DEVELOPMENT
    ]


def versions() -> dict[str, str]:
    """Python and every package that the library itself needs, with the installed version."""
    found = {"python": platform.python_version(), DISTRIBUTION: metadata.version(DISTRIBUTION)}
    for requirement in requirements()[""]:
        absent = lacking([Requirement(requirement.name)])
        found[requirement.name] = absent[0] if absent else metadata.version(requirement.name)
    return found


def machine() -> dict[str, str]:
    """Platform, threads, linear algebra and devices, a line each."""
    config: Any = np.show_config(mode="dicts") or {}
    blas = config.get("Build Dependencies", {}).get("blas", {})
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        "threads of torch": f"{torch.get_num_threads()} ({_setting('OMP_NUM_THREADS')})",
        "vector units of torch": f"{torch.backends.cpu.get_cpu_capability()} "
        f"({_setting('ATEN_CPU_CAPABILITY')})",
        "linear algebra of torch": "MKL" if torch.backends.mkl.is_available() else "other than MKL",
        "linear algebra of numpy": f"{blas.get('name', '?')} {blas.get('version', '?')}",
        "CUDA devices": ", ".join(cards) or "none",
    }


def _setting(variable: str) -> str:
    return f"{variable}={os.environ[variable]}" if variable in os.environ else f"{variable} not set"
