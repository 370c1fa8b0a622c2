#!/usr/bin/env bash
# On a machine with a CUDA card: the benchmark rows of the card into benchmarks/gpu.json and
# docs/performance.md, the suite's device tests, and the verdicts at smoke size, on the card (those
# that can be judged there) and beside it; meant for nine minutes. All parts run, and the exit code
# tells whether one failed. Takes the interpreter in PYTHON and needs the package importable. With
# --tiny it tries itself out without a card.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
failed=0
tests() { OMP_NUM_THREADS=1 "$PYTHON" -m pytest -q -p no:cacheprovider "$@" || failed=1; }
loraone() { "$PYTHON" -m loraone_theory "$@" || failed=1; }
if [ "${1:-}" = "--tiny" ]; then
    folder=$(mktemp -d) || exit 2
    trap 'rm -rf "$folder"' EXIT
    loraone bench gpu --json "$folder/gpu.json" --tiny
    tests tests/test_contracts.py -k "devices_agree"
    loraone verify T3.1 3.2 3.4 --smoke
    exit $failed
fi
# Not straight into gpu.json, where rows of another card would be kept beside these.
fresh=benchmarks/gpu-new.json
rm -f $fresh
# A run that broke off has some of its rows: those of before stay then.
if "$PYTHON" -m loraone_theory bench gpu --json $fresh --pairs 3 "$@" && grep -q '"name"' $fresh; then
    mv $fresh benchmarks/gpu.json
    loraone bench --render-only --json benchmarks/results.json --page docs/performance.md
else
    rm -f $fresh
    failed=1
fi
# What stands in for a device where there is none has nothing to say here.
tests ${PYTEST_ARGS:-} -k "cuda or (device and not second_device and not fake_device)" tests
export OMP_NUM_THREADS=1
loraone verify --smoke --device cuda
if "$PYTHON" -c "import distributed" 2> /dev/null; then
    loraone verify --smoke --workers "$(nproc)"
else
    loraone verify --smoke
fi
exit $failed
