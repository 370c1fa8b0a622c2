#!/usr/bin/env bash
# The tests in an environment of their own with the oldest versions that pyproject.toml allows, or
# with the newest that there are: `versions.sh oldest|newest [PYTEST ARGUMENTS]`. torch is that of
# constraints.txt in both: other builds of it are too large to try each time.
set -euo pipefail
cd "$(dirname "$0")/.."
which=${1:?oldest or newest}
shift
extras=".[test,peft,experiments,tables,certify,sweep,explore,fast,bench]"
venv=.venv-$which
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet packaging
"$venv/bin/python" tests/versions.py "$which" > "$venv/constraints.txt"
cat "$venv/constraints.txt"
"$venv/bin/python" -m pip install --quiet --upgrade -c "$venv/constraints.txt" -e "$extras"
OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
