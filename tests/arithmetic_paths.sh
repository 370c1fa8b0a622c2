#!/usr/bin/env bash
# Run the tests under several arithmetic paths, one after another: the vector units that PyTorch's
# kernels, its MKL and the OpenBLAS of numpy and scipy use, and the number of threads. All must
# pass: a tolerance that holds on one of them only was not derived.
#
#   tests/arithmetic_paths.sh                          every path, the whole suite
#   PATHS="oldest-1" tests/arithmetic_paths.sh -m numerical       one path, some tests
#
# Further arguments go to pytest. A path that the processor does not have falls back to one it has.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
# name: ATEN_CPU_CAPABILITY MKL_CBWR OPENBLAS_CORETYPE OMP_NUM_THREADS ("-" leaves the default)
paths=(
    "oldest-1: default COMPATIBLE Prescott 1"
    "oldest-2: default COMPATIBLE Nehalem 2"
    "avx2-1: avx2 AVX2 Haswell 1"
    "avx2-2: avx2 AVX2 Haswell 2"
    "native-2: - - - 2"
)
wanted=" ${PATHS:-oldest-1 oldest-2 avx2-1 avx2-2 native-2} "

failed=()
for path in "${paths[@]}"; do
    name=${path%%:*}
    [[ $wanted == *" $name "* ]] || continue
    read -r aten mkl openblas threads <<<"${path#*:}"
    settings=(OMP_NUM_THREADS="$threads")
    [[ $aten == - ]] || settings+=(ATEN_CPU_CAPABILITY="$aten")
    [[ $mkl == - ]] || settings+=(MKL_CBWR="$mkl")
    [[ $openblas == - ]] || settings+=(OPENBLAS_CORETYPE="$openblas")
    echo "== $name: ${settings[*]}"
    env "${settings[@]}" "$PYTHON" -m pytest "$@" || failed+=("$name")
done
if ((${#failed[@]})); then
    echo "failed under: ${failed[*]}"
    exit 1
fi
echo "passed under:$wanted"
