#!/usr/bin/env bash
# On a machine with a CUDA card: the suite's device tests, three verdicts as a sign of life, and the
# benchmark rows of the card into benchmarks/gpu.json; about three minutes. Takes the interpreter in
# PYTHON and needs the package importable. With --tiny it tries itself out without a card.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
out=benchmarks/gpu.json
if [ "${1:-}" = "--tiny" ]; then
    out=$(mktemp -d)/gpu.json
    "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_contracts.py -k "devices_agree"
else
    "$PYTHON" -m pytest -q -p no:cacheprovider ${PYTEST_ARGS:-} -k "cuda or device" tests
fi
"$PYTHON" -m loraone_theory verify T3.1 3.2 3.4 --smoke
"$PYTHON" -m loraone_theory bench gpu --json "$out" "$@"
