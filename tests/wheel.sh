#!/usr/bin/env bash
# The wheel as a researcher gets it: an empty environment, an empty folder, no repository and, once
# it is installed, no network; first without the extras, then with those that commands have.
# `wheel.sh FILE.whl`
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
wheel=$(realpath "$1")
place=$(mktemp -d)
served=
trap '[ -z "$served" ] || kill "$served" 2> /dev/null || true; rm -rf "$place"' EXIT
cp "$root/README.md" "$root/tests/consumer.py" "$root/tests/no_network.py" "$place"
cp "$root/examples/sweep_ranks.toml" "$place"
"${PYTHON:-python3}" -m venv "$place/venv"
bin=$place/venv/bin
"$bin/python" -m pip install --quiet -c "$root/constraints.txt" "$wheel" mypy "pyright[nodejs]"
cd "$place"
unset PYTHONPATH

# Python reads this at its start, in every process.
guard=$("$bin/python" -c 'import site; print(site.getsitepackages()[0])')/sitecustomize.py
cut_off() {
    cp "$place/no_network.py" "$guard"
    if "$bin/python" -c 'import socket; socket.create_connection(("192.0.2.1", 9), 1)' \
        2> refused; then
        exit 1
    fi
    grep -q "no network" refused
}

# Exit code 1 and one line, which names the extra: `lacks EXTRA COMMAND...`
lacks() {
    local code=0
    "$bin/loraone" "${@:2}" > said 2> failed || code=$?
    cat failed
    [ "$code" = 1 ] && [ ! -s said ] && [ "$(wc -l < failed)" = 1 ]
    grep -q "pip install 'loraone-theory\[$1\]'" failed
}

echo "== types of a program that uses it"
"$bin/mypy" --strict consumer.py
"$bin/pyright" --pythonpath "$bin/python" consumer.py

echo "== commands, where any connection is an error"
mkdir work
cd work
cut_off
"$bin/loraone" doctor
"$bin/loraone" list > /dev/null
"$bin/loraone" describe lora-one
"$bin/loraone" simulate lora-one --trials 2 --steps 50 --save run.npz
"$bin/loraone" compare lora lora-one --steps 60 --trials 1 --d 12 --k 10 --samples 120
"$bin/loraone" verify T3.1 T3.3 "Alg. 1" --smoke --json verdicts.json
"$bin/loraone" report
"$bin/loraone" bench relu --tiny --pairs 1 --json bench.json
"$bin/loraone" reproduce --smoke --out figures
"$bin/loraone" sweep ../sweep_ranks.toml --folder ranks --csv ranks.csv
"$bin/loraone" explore --script laboratory.py
for file in run.npz verdicts.json paper_checks.md bench.json figures/fig_alignment.png ranks.csv; do
    test -s "$file"
done
"$bin/python" laboratory.py
"$bin/python" ../consumer.py
lacks sweep sweep ../sweep_ranks.toml --folder again --workers 2
lacks sweep verify T3.1 --smoke --workers 2
lacks explore explore --no-browser
cd ..
"$bin/python" -m doctest -o ELLIPSIS -o NORMALIZE_WHITESPACE README.md

echo "== commands with their extras, where connections to other machines are errors"
rm "$guard"
"$bin/python" -m pip install --quiet -c "$root/constraints.txt" "${wheel}[sweep,explore]"
cd work
cut_off
"$bin/loraone" sweep ../sweep_ranks.toml --folder two --workers 2 --csv two.csv
cmp ranks.csv two.csv
PYTHONUNBUFFERED=1 "$bin/loraone" explore --no-browser > laboratory.log 2>&1 &
served=$!
"$bin/python" - laboratory.log <<'END'
"""The address that is printed serves the page, and only with its token."""
import pathlib, re, sys, time, urllib.error, urllib.request

# The address sets a cookie and sends one on to the page, as in a browser.
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
end = time.monotonic() + 120
while time.monotonic() < end:
    found = re.search(r"http://\S+access_token=\S+", pathlib.Path(sys.argv[1]).read_text())
    if found:
        try:
            page = browser.open(found[0]).read()
            assert b"<marimo" in page, page
            plain = urllib.request.urlopen(found[0].partition("?")[0]).read()
            assert b"<marimo" not in plain, "the page was served without its token"
            break
        except urllib.error.URLError:
            pass
    time.sleep(0.2)
else:
    sys.exit(pathlib.Path(sys.argv[1]).read_text() + "\nno page within two minutes")
END
kill "$served"
wait "$served" || true
served=
echo "the wheel works on its own"
