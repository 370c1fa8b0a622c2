"""Results on disk: written whole or not at all, with what is needed to make them again."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import subprocess
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from loraone_theory.core import validate
from loraone_theory.core.files import DamagedFile as DamagedFile
from loraone_theory.core.files import as_path as as_path
from loraone_theory.core.files import damaged as damaged
from loraone_theory.core.files import reading as reading
from loraone_theory.core.files import target as target
from loraone_theory.core.files import whole_file as whole_file
from loraone_theory.core.plain import plain

PACKAGES = ("loraone-theory", "torch", "numpy", "scipy", "matplotlib")
# Packages whose version numbers can depend on.
NUMERICAL = ("torch", "numpy", "scipy")
DIGEST = "data_sha256"


def save_text(path: str | Path, text: str) -> None:
    """Write text in UTF-8."""
    validate.instance("text", text, str)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as a compressed npz without pickles."""
    whole = _plain_arrays(arrays)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        _write_arrays(file, whole)


def _plain_arrays(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    validate.instance("arrays", arrays, Mapping, "give them by name")
    found = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in found.items():
        if value.dtype == object:
            raise TypeError(f"array {name!r} must have a plain dtype; got object")
    return found


def _write_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    np.savez_compressed(file, allow_pickle=False, **arrays)


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read an npz; files that hold pickles are refused.

    Raises:
        DamagedFile: not an npz of plain arrays.
    """
    path = as_path(path)
    with reading(path, "an npz file of plain arrays"):
        with zipfile.ZipFile(path) as archive:  # else np.load would take other kinds of files
            if odd := [name for name in archive.namelist() if not name.endswith(".npy")]:
                raise ValueError(f"it holds {odd[0]!r}, which is no array")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def save_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with a final newline."""
    save_text(path, _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=plain) + "\n"


def load_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        DamagedFile: not JSON.
    """
    path = as_path(path)
    with reading(path, "a JSON file"):
        return json.loads(path.read_text(encoding="utf-8"))


def save_pair(path: str | Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write arrays to `path` (.npz) and what they are to the .json beside it, as one unit.

    The .json holds the digest of the .npz and is absent while that is replaced, so that no
    interruption leaves halves that were not written together and look as if they were.
    """
    data = target(path, ".npz")
    beside = target(Path(path).with_suffix(".json"))
    whole = _plain_arrays(arrays)
    validate.instance("about", about, Mapping)
    with whole_file(beside) as second, whole_file(data) as first:
        with open(first, "wb") as file:
            _write_arrays(file, whole)
        second.write_text(_json({**about, DIGEST: digest(first)}), encoding="utf-8")
        beside.unlink(missing_ok=True)


def load_pair(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_pair` wrote.

    Raises:
        DamagedFile: one of the two is damaged, or they were not written together.
    """
    data = as_path(path)
    beside = data.with_suffix(".json")
    about = load_json(beside)
    wanted = f"a JSON object that belongs to {data.name}"
    if not isinstance(about, dict):
        raise damaged(beside, wanted, f"it holds a {type(about).__name__}")
    if DIGEST in about and about[DIGEST] != digest(data):
        raise damaged(beside, wanted, f"{data.name} was written by another run")
    return load_arrays(data), about


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(as_path(path).read_bytes()).hexdigest()


@functools.cache
def code_version() -> str:
    """A digest of the library's code and of the versions of the packages it computes with.

    Numbers of two runs with the same one were made by the same code.
    """
    whole = hashlib.sha256(repr([_version(package) for package in NUMERICAL]).encode())
    folder = Path(__file__).resolve().parent
    for path in sorted(folder.rglob("*.py")):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def provenance() -> dict[str, Any]:
    """Versions, commit and platform that a result was made with."""
    versions = {package: _version(package) for package in PACKAGES}
    return {
        "versions": versions | {"python": platform.python_version()},
        "commit": _commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit of the checkout that the package runs from, with + where it has changes."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", __file__)
        changed = git("status", "--porcelain", "--", ".", "../experiments")
        return git("rev-parse", "HEAD") + ("+" if changed else "") if tracked else "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
