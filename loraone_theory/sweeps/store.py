"""The folder of a sweep: a manifest, and one whole, checksummed file for each finished cell."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loraone_theory import storage
from loraone_theory.core.files import TEMPORARY, damaged, whole_file

try:
    import fcntl
except ImportError:  # not a Unix: two that work on one folder may compute a cell twice
    fcntl = None  # type: ignore[assignment]

MANIFEST, CELLS, LOCKS = "sweep.json", "cells", "locks"
FORMAT = 1
WANTED = "a finished cell of a sweep"
DIGITS = 64  # of a SHA-256 in hexadecimal


class Stored(NamedTuple):
    """What the file of a cell holds.

    Args:
        arrays: name -> values (*runs, ...).
        about: its config, its failure or "", and the seconds that it took.
    """

    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


class Store:
    """Finished cells by their keys.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = storage.as_path(folder)

    def path(self, key: str) -> Path:
        """Where the cell of this key is, or will be."""
        return self.folder / CELLS / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether there is a file, whole or not."""
        return self.path(key).is_file()

    def write(self, key: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Write the file, whole or not at all: the digest of what follows, and an npz.

        Raises:
            OSError: a full disk, or a folder that cannot be written to.
        """
        content = io.BytesIO()
        text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        np.savez(
            content, allow_pickle=False, about=text, **{f"of_{n}": a for n, a in arrays.items()}
        )
        body = content.getvalue()
        place = self.path(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place, durable=False) as temporary:  # to wait for the disk takes longest
            temporary.write_bytes(hashlib.sha256(body).hexdigest().encode() + body)

    def read(self, key: str) -> Stored:
        """What `write` wrote.

        Raises:
            storage.DamagedFile: the digest is not that of what follows.
            FileNotFoundError: there is no such file.
        """
        body = self._body(key)
        path = self.path(key)
        with storage.reading(path, WANTED), np.load(io.BytesIO(body), allow_pickle=False) as found:
            about = json.loads(found["about"].tobytes())
            names = [name for name in found.files if name.startswith("of_")]
            return Stored({name.removeprefix("of_"): found[name] for name in names}, about)

    def whole(self, key: str) -> bool:
        """Whether there is a file that is as it was written.

        Raises:
            storage.DamagedFile: there is one that is not.
        """
        if not self.has(key):
            return False
        self._body(key)
        return True

    def _body(self, key: str) -> bytes:
        path = self.path(key)
        content = path.read_bytes()
        body = content[DIGITS:]
        if content[:DIGITS] != hashlib.sha256(body).hexdigest().encode():
            raise damaged(path, WANTED, "its checksum is not that of its contents")
        return body

    def delete(self, key: str) -> None:
        """Remove a cell, if it is there."""
        self.path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """The keys of all files, those of other configurations too."""
        for place in sorted((self.folder / CELLS).glob("??")):
            yield from sorted(e.name for e in os.scandir(place) if not e.name.startswith("."))

    def manifest(self) -> dict[str, Any] | None:
        """What the sweep was asked for, None where the folder holds none.

        Raises:
            storage.DamagedFile: it is none that this library wrote.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        found = storage.load_json(path)
        with storage.reading(path, "the manifest of a sweep"):
            if found["format"] != FORMAT:
                raise ValueError(f"its format is {found['format']}, and this one reads {FORMAT}")
            return dict(found["sweep"])

    def announce(self, described: Mapping[str, Any]) -> None:
        """Write the manifest of a sweep, or leave the one that is there if it says the same.

        Raises:
            ValueError: the folder holds another sweep, or is something else; nothing is written.
        """
        self.refuse_other(described)
        if self.manifest() == described:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        storage.save_json(self.folder / MANIFEST, {"format": FORMAT, "sweep": described})

    def refuse_other(self, described: Mapping[str, Any]) -> None:
        """Refuse a folder of another sweep: one of another name or with other axes.

        Raises:
            ValueError: it is one, or holds other files and no sweep.
        """
        there = self.manifest()
        if there is None:
            names = [p.name for p in self.folder.iterdir()] if self.folder.is_dir() else []
            # A manifest that another run is just writing, or that one was killed at, is ours.
            if any(not name.startswith(TEMPORARY) for name in names):
                raise ValueError(
                    f"{self.folder} must be empty or hold this sweep, and holds something else; "
                    "name another folder"
                )
            return
        for part, told in (("name", str), ("axes", list), ("together", list)):
            mine, theirs = told(described[part]), told(there[part])
            if mine != theirs:
                raise ValueError(
                    f"{self.folder} holds another sweep: its {part} {_are(part)} {theirs}, here "
                    f"{mine}; name another folder, or remove this one"
                )


def _are(part: str) -> str:
    return "is" if part == "name" else "are"


class Locks:
    """Cells that a process is at work on; the system drops its locks when it ends.

    Args:
        folder: of the sweep, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._file = open(folder / LOCKS, "ab")  # noqa: SIM115 - closed by close

    def take(self, key: str, *, wait: bool = False) -> bool:
        """Whether the cell is this process's from now on; `wait` until it can be."""
        if fcntl is None:
            return True
        try:
            kind = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(self._file, kind, 1, self._byte(key))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def give_back(self, key: str) -> None:
        """Let others have the cell."""
        if fcntl is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._byte(key))

    def close(self) -> None:
        """Give all back."""
        self._file.close()

    @staticmethod
    def _byte(key: str) -> int:
        return int(key[:15], 16)


@contextmanager
def locks_of(folder: Path) -> Iterator[Locks]:
    """Locks of a folder for as long as the block runs."""
    found = Locks(folder)
    try:
        yield found
    finally:
        found.close()
