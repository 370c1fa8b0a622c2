"""`loraone explore`."""

from __future__ import annotations

import importlib
import os
import runpy
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from loraone_theory import storage
from loraone_theory.cli.common import check_target, console
from loraone_theory.cli.guard import DONE
from loraone_theory.core.extras import extra
from loraone_theory.explore import model, settings
from loraone_theory.explore.script import script

APP = Path(model.__file__).with_name("app.py")
LOCAL = "127.0.0.1"  # no other machine reaches it
PORTS = 1 << 16


@dataclass(frozen=True)
class Explore:
    """Open the laboratory in the browser: move a slider, and see runs and theory change.

    Model, methods, ranks, noise, step size and the rest are chosen on the page. It draws loss,
    risk, error, alignment and singular values of real runs, dashed over them what is predicted,
    and gives the script of what it shows. The page is served to this machine alone, at the address
    that is printed, which holds the access token; nothing is sent anywhere. Ctrl-C ends it. It
    needs the extra: pip install 'loraone-theory[explore]'.
    """

    port: int | None = None
    """Port to serve the page at; by default one that is free."""
    no_browser: bool = False
    """Print the address, and open no browser."""
    script: Path | None = None
    """Write the script of the page that would open to this .py, and open none."""

    def run(self) -> int:
        """Serve the page until it is interrupted, or write the script."""
        check_target(self.script, ".py")
        if self.port is not None and not 0 < self.port < PORTS:
            raise ValueError(
                f"--port must be 1 to {PORTS - 1}; got {self.port}; leave it out for a free one"
            )
        if self.script is not None:
            text = script(model.run(settings.Settings()))
            storage.save_text(self.script, text)
            console().print(f"wrote {self.script}")
            return DONE
        with extra("explore", "--script FILE.py, which needs no browser"):
            importlib.import_module("marimo")
        return serve(self.port, browser=not self.no_browser)


def serve(port: int | None, *, browser: bool) -> int:
    """Run the page with its Python in this process; the exit code.

    Raises:
        ValueError: a port that is none, or taken.
    """
    if port is not None:
        _check_free(port)
    os.environ["MARIMO_SKIP_UPDATE_CHECK"] = "1"
    words = ["marimo", "-y", "run", str(APP), "--host", LOCAL, "--token", "--no-check"]
    words += [] if port is None else ["--port", str(port)]
    words += [] if browser else ["--headless"]
    before, sys.argv = sys.argv, words
    try:
        runpy.run_module("marimo", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else DONE
    finally:
        sys.argv = before
    return DONE


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        taken = probe.connect_ex((LOCAL, port)) == 0
    if taken:
        raise ValueError(f"--port {port} is in use; give another, or leave it out for a free one")
