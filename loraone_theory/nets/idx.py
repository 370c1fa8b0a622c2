"""The IDX files that MNIST comes in, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from loraone_theory.core.files import DamagedFile, as_path

# The third byte of the file says what an entry is; numbers of several bytes are big-endian.
KINDS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# The standard names, with the dot that some copies have in place of the second dash.
IMAGES = ("train-images-idx3-ubyte", "train-images.idx3-ubyte")
LABELS = ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte")


# Not every NumPy has arrays of more axes.
MOST_AXES = 32


def read_idx(path: str | Path) -> np.ndarray:
    """The array of an IDX file; .gz files are unpacked.

    Raises:
        DamagedFile: not an IDX file, or one that is cut short, too long or damaged.
    """
    path = as_path(path)
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = _unpacked(path, raw)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in KINDS or raw[3] > MOST_AXES:
        raise DamagedFile(
            "an IDX file starts with two zero bytes, a known type and at most "
            f"{MOST_AXES} axes; {path} starts with {raw[:4].hex(' ')}; download it again"
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DamagedFile(f"{path} ends within its header, at byte {len(raw)}; download it again")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    kind = np.dtype(KINDS[raw[2]])
    expected = start + math.prod(shape) * kind.itemsize
    if len(raw) != expected:
        raise DamagedFile(
            f"{path} of shape {shape} must hold {expected} bytes; got {len(raw)}; download it again"
        )
    return np.frombuffer(raw, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def _unpacked(path: Path, raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise DamagedFile(
            f"{path} must be a whole gzip file; it is damaged ({error}); download it again"
        ) from None


def read_mnist(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width) and labels (n,) of the training set in `folder`.

    Raises:
        FileNotFoundError: the standard files are not there.
        DamagedFile: one is damaged.
        ValueError: they do not belong together.
    """
    images, labels = read_idx(_find(folder, IMAGES)), read_idx(_find(folder, LABELS))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            "images must be (n, height, width) and labels (n,) with one n; got "
            f"{images.shape} and {labels.shape} in {folder}"
        )
    return images, labels


def _find(folder: str | Path, names: tuple[str, ...]) -> Path:
    for name in names:
        for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{folder} must hold {names[0]} or {names[0]}.gz, one of the four standard MNIST files"
    )
