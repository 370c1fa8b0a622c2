"""Files written whole or not at all, the checks before, and the one error for damaged ones."""

from __future__ import annotations

import ast
import os
import secrets
import shutil
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loraone_theory.core.wording import kind, shown

try:
    import fcntl
except ImportError:  # not a Unix: what killed runs leave behind stays
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".loraone-"
# On a disk with fewer bytes than this no result fits.
LEAST_ROOM = 1 << 16


class DamagedFile(ValueError):
    """A file that is cut short, damaged, or was not written by this library."""


def damaged(path: str | Path, wanted: str, reason: object) -> DamagedFile:
    """The error for the file at `path`, which should be `wanted` and is not, for `reason`."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return DamagedFile(
        f"{path} must be {wanted}; it is damaged or was not written by this library "
        f"({text[:160]}); make it again"
    )


@contextmanager
def reading(path: str | Path, wanted: str) -> Iterator[None]:
    """What goes wrong in the block is the fault of the file at `path`: `DamagedFile`.

    A file that is absent or may not be read keeps its own error.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, DamagedFile):
        raise
    except KeyError as error:
        raise damaged(path, wanted, f"it has no {error}") from error
    except (
        AttributeError,
        EOFError,
        IndexError,
        MemoryError,
        NotImplementedError,
        OSError,
        OverflowError,
        RecursionError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        tokenize.TokenError,  # of a header that NumPy reads
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise damaged(path, wanted, error) from error


def as_path(given: str | Path) -> Path:
    """A path given as one, or as a string."""
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(
            f"a path must be a string or a Path; got {shown(given)} of type {kind(given)}"
        )
    return Path(given)


def target(path: str | Path, *suffixes: str) -> Path:
    """The regular file that writing to `path` makes or replaces, as far as can be known before.

    Symbolic links are followed, so that a link stays and what it points to changes.

    Raises:
        ValueError: another suffix than `suffixes`, where some are given.
        OSError: a folder that is absent, not writable or full; a file that is write-protected, or
            is a folder or a device.
    """
    given = as_path(path)
    if suffixes and given.suffix not in suffixes:
        raise ValueError(f"{given} must end in {' or '.join(suffixes)}; got {given.name!r}")
    try:
        found = given.resolve()
        folder_there, mode = found.parent.is_dir(), _mode(found)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, \0
        raise OSError(f"{shown(str(given))} must be a file that can be written: {error}") from None
    if not folder_there:
        raise FileNotFoundError(
            f"the folder of {given} must exist before it is written to; create it first"
        )
    if mode is not None and not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise IsADirectoryError(f"{given} must be a file to write to, and is {what}; name another")
    if mode is not None and not mode & 0o222:
        raise PermissionError(f"{given} is write-protected; name another file, or chmod it first")
    if not os.access(found.parent, os.W_OK):
        raise PermissionError(f"the folder of {given} must be writable, and is not; name another")
    if shutil.disk_usage(found.parent).free < LEAST_ROOM:
        raise OSError(f"the disk of {given} is full; free some room or name another folder")
    return found


def _mode(path: Path) -> int | None:
    """Kind and permissions, None where there is no such file."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


@contextmanager
def whole_file(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    An interruption leaves the old file, or none. The suffix is kept, so that writers that add one
    do not. A file that is replaced keeps its permissions. What runs that were killed have left in
    the folder is removed. Where it need not be `durable`, a loss of power may leave it damaged: for
    files that can be made again, and whose readers see that they are damaged.
    """
    found = target(path)
    mode = _mode(found)
    try:
        _remove_left_behind(found.parent)
        handle, temporary = _temporary(found)
        try:
            yield temporary
            if durable:
                os.fsync(handle)
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, found)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(
            error.errno,
            f"{path} could not be written: {error.strerror}; the old file, if any, stays",
        ) from error


def _temporary(found: Path) -> tuple[int, Path]:
    """A new file beside `found`, locked for as long as its handle is open."""
    while True:
        temporary = found.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{found.suffix}")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():  # else taken for left behind before it was locked
            return handle, temporary
        os.close(handle)


def _remove_left_behind(folder: Path) -> None:
    """Remove temporary files that no living process has locked."""
    if fcntl is None:
        return
    for path in folder.glob(f"{TEMPORARY}*"):
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:  # gone, or another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:  # somebody is writing it
            pass
        finally:
            os.close(handle)


def docstring(code: str) -> str:
    """The docstring of a module's text, "" where it has none; what follows it is not parsed.

    Raises:
        SyntaxError, ValueError: it is no Python.

    >>> docstring("'One line.'")
    'One line.'
    """
    head, quotes, rest = code.partition('"""')
    if quotes and not head:
        code = f'"""{rest.partition(quotes)[0]}"""'
    return ast.get_docstring(ast.parse(code)) or ""
