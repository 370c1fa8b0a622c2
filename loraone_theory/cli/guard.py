"""What stands around every command: streams that cannot fail it, and errors of one line.

Imports nothing heavy, so that it also stands around the imports of the commands.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from loraone_theory.core.faults import BrokenClaim

DONE, FAILED, BAD_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130


class Harmless(io.TextIOBase):
    """A text stream whose failures are kept, not raised; what cannot be encoded becomes "?".

    A command has written its files before it prints, so a closed pipe, a full disk behind the
    stream or an ascii terminal must not end it.
    """

    def __init__(self, inner: TextIO | None) -> None:
        self.inner = inner
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Pass `text` on as far as the stream can take it."""
        if self.inner is not None and self.failure is None:
            try:
                self._pass_on(text)
            except (OSError, ValueError) as error:  # ValueError: closed by somebody else
                self.failure = error
        return len(text)

    def _pass_on(self, text: str) -> None:
        assert self.inner is not None
        try:
            self.inner.write(text)
        except UnicodeEncodeError:
            known = self.encoding
            self.inner.write(text.encode(known, errors="replace").decode(known))

    def flush(self) -> None:
        """Flush as far as the stream can."""
        if self.inner is not None and self.failure is None:
            try:
                self.inner.flush()
            except (OSError, ValueError) as error:
                self.failure = error

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self.inner is not None and not self.inner.closed and self.inner.isatty()

    def fileno(self) -> int:
        """The stream's own descriptor."""
        if self.inner is None:
            raise io.UnsupportedOperation("fileno")
        return self.inner.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return getattr(self.inner, "encoding", None) or "utf-8"

    def silence(self) -> None:
        """Send what is left in the buffers of a failed stream nowhere."""
        if self.failure is None:
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        except (OSError, ValueError):  # no descriptor behind it
            pass


@contextmanager
def harmless_streams() -> Iterator[Harmless]:
    """Standard output and error cannot fail the block; gives the former."""
    before = sys.stdout, sys.stderr
    out, err = Harmless(sys.stdout), Harmless(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
        out.silence()
        err.silence()


def complain(message: object) -> None:
    """One line on standard error."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`: what a user can cause ends it with one line, not a traceback."""
    with harmless_streams() as out:
        code = _answered(work)
        out.flush()
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError):
            complain(f"not all could be printed ({out.failure}); what was to be written, was")
            code = code or FAILED
    return code


def _answered(work: Callable[[], int]) -> int:
    try:
        return work()
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        found = explained(error)
        if found is None:
            raise
        message, code = found
        complain(message)
        return code


def explained(error: Exception) -> tuple[str, int] | None:
    """Message and exit code of an error that a user can cause, None for any other."""
    if isinstance(error, BrokenClaim):
        return str(error), FAILED
    if isinstance(error, ConnectionError) and not isinstance(error, ValueError):
        return str(error), FAILED  # a cluster that was lost; an address without one is an argument
    if isinstance(error, OSError) and error.errno is not None:
        if isinstance(error, FileNotFoundError):
            return f"{error.filename or error} does not exist; check the path", BAD_ARGUMENTS
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}", FAILED
    if isinstance(error, (ValueError, TypeError, OSError)):
        return str(error), BAD_ARGUMENTS
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return f"not enough memory ({error or 'out of memory'}); lower the sizes", FAILED
    if isinstance(error, ImportError):
        return str(error), FAILED
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is what torch raises for want of memory."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("allocate" in text or "out of memory" in text)
