#!/usr/bin/env bash
# On a machine with a CUDA card: the suite's device tests, the benchmark rows of the card into
# benchmarks/gpu.json, and the verdicts at smoke size, on the card (those that can be judged there)
# and beside it; meant for nine minutes. Takes the interpreter in PYTHON and needs the package
# importable. With --tiny it tries itself out without a card.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [ "${1:-}" = "--tiny" ]; then
    "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_contracts.py -k "devices_agree"
    "$PYTHON" -m loraone_theory bench gpu --json "$(mktemp -d)/gpu.json" --tiny
    "$PYTHON" -m loraone_theory verify T3.1 3.2 3.4 --smoke
    exit
fi
"$PYTHON" -m pytest -q -p no:cacheprovider ${PYTEST_ARGS:-} -k "cuda or device" tests
"$PYTHON" -m loraone_theory bench gpu --json benchmarks/gpu.json "$@"
"$PYTHON" -m loraone_theory verify --smoke --device cuda
if "$PYTHON" -c "import distributed" 2> /dev/null; then
    "$PYTHON" -m loraone_theory verify --smoke --workers "$(nproc)"
else
    "$PYTHON" -m loraone_theory verify --smoke
fi
