"""Results on disk: written whole or not at all, with what is needed to make them again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("loraone-theory", "torch", "numpy", "scipy", "matplotlib")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    An interruption leaves the old file, or none. The suffix is kept, so that writers that add one
    do not.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"the folder of {target} must exist before it is written to; create it first"
        )
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def save_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as a compressed npz without pickles."""
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype == object:
            raise TypeError(f"array {name!r} must have a plain dtype; got object")
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **plain)


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read an npz; files that hold pickles are refused."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def save_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with a final newline."""
    with whole_file(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
        temporary.write_text(text + "\n", encoding="utf-8")


def load_json(path: str | Path) -> Any:
    """Read JSON."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def provenance() -> dict[str, Any]:
    """Versions, commit and platform that a result was made with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions | {"python": platform.python_version()},
        "commit": _commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


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
