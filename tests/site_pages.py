"""The site as `make docs` builds it, once for all tests that look at it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BUILT = DOCS / "_build" / "html"


def import_its_code() -> None:
    """Let a test import the modules of docs/ and docs/_ext by their names."""
    sys.path += [str(folder) for folder in (DOCS, DOCS / "_ext") if str(folder) not in sys.path]


def build() -> subprocess.CompletedProcess[str]:
    """What has changed since the last build, as `make docs` does it."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(BUILT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
