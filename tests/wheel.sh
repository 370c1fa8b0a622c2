#!/usr/bin/env bash
# The wheel as a researcher gets it: an empty environment, an empty folder, no repository and, once
# it is installed, no network. `wheel.sh FILE.whl`
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
wheel=$(realpath "$1")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cp "$root/README.md" "$root/tests/consumer.py" "$root/tests/no_network.py" "$place"
"${PYTHON:-python3}" -m venv "$place/venv"
bin=$place/venv/bin
"$bin/python" -m pip install --quiet -c "$root/constraints.txt" "$wheel" mypy "pyright[nodejs]"
cd "$place"
unset PYTHONPATH

echo "== types of a program that uses it"
"$bin/mypy" --strict consumer.py
"$bin/pyright" --pythonpath "$bin/python" consumer.py

echo "== commands, where any connection is an error"
mkdir work
cd work
# Python reads this at its start, in every process.
cp ../no_network.py "$("$bin/python" -c 'import site; print(site.getsitepackages()[0])')/sitecustomize.py"
if "$bin/python" -c 'import socket; socket.create_connection(("127.0.0.1", 9), 1)' 2> refused; then
    exit 1
fi
grep -q "no network" refused
"$bin/loraone" doctor
"$bin/loraone" list > /dev/null
"$bin/loraone" describe lora-one
"$bin/loraone" simulate lora-one --trials 2 --steps 50 --save run.npz
"$bin/loraone" compare lora lora-one --steps 60 --trials 1 --d 12 --k 10 --samples 120
"$bin/loraone" verify T3.1 T3.3 "Alg. 1" --smoke --json verdicts.json
"$bin/loraone" report
"$bin/loraone" bench relu --tiny --pairs 1 --json bench.json
"$bin/loraone" reproduce --smoke --out figures
for file in run.npz verdicts.json paper_checks.md bench.json figures/fig_alignment.png; do
    test -s "$file"
done
"$bin/python" ../consumer.py
cd ..
"$bin/python" -m doctest -o ELLIPSIS -o NORMALIZE_WHITESPACE README.md
echo "the wheel works on its own"
