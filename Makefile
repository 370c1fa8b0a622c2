# make reproduce   regenerate every figure into figures/
# make phase-diagrams  the two sweeps at ten thousand runs each into figures/full (goes on)
# make test        install with the extras and pass lint, types and tests
# make test-all    the same with the tests that are slow (kills, processes)
# make test-paths  the tests under several arithmetic paths (vector units, MKL, OpenBLAS, threads)
# make mutants     one fault at a time in the numerical core: do its tests notice? (hours)
# make verify      judge every claim that does not take long and write paper_checks.md
# make verify-long judge the claims that take long (hours; an interrupted run goes on)
# make verify-seeds  all claims at 20 master seeds, small: records/seeds.md (an hour; goes on)
# make perturbations  one fault at a time in the core: does a verdict turn over? (half an hour)
# make docs        the site in docs/_build/html, with its links checked; no network is used
# make dist        the wheel and the source archive in dist/, checked
# make test-dist   the wheel in an empty environment, away from the repository, without a network
# make test-oldest the tests with the oldest versions that pyproject.toml allows (torch apart)
# make test-newest the tests with the newest versions that there are (torch apart)
# make bench       time every benchmark against its baseline and write docs/performance.md
# Each creates .venv when absent and installs the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: reproduce phase-diagrams test test-all test-paths test-dist test-oldest test-newest docs dist mutants verify verify-long verify-seeds perturbations bench clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[peft,experiments,certify,sweep,explore,fast,bench]"
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,docs,peft,experiments,tables,certify,release,sweep,explore,fast,bench]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs,peft,experiments,tables,certify,sweep,explore]"
	touch $@ $(VENV)/.installed

reproduce: $(VENV)/.installed
	$(BIN)/loraone reproduce --workers 2 $(ARGS)

phase-diagrams: $(VENV)/.installed
	$(BIN)/python experiments/fig_phase_diagram.py --preset full --workers 2 --out figures/full $(ARGS)
	$(BIN)/python experiments/fig_noise_map.py --preset full --workers 2 --out figures/full $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-all:
	$(MAKE) test ARGS="-m 'slow or not slow' $(ARGS)"

test-paths: $(VENV)/.installed-test
	PYTHON=$(BIN)/python tests/arithmetic_paths.sh -n auto --dist worksteal $(ARGS)

mutants: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py $(ARGS)

verify: $(VENV)/.installed
	$(BIN)/loraone verify --workers 2 --draws records/draws --json records/verdicts.json $(ARGS)
	$(BIN)/loraone report

verify-long: $(VENV)/.installed
	$(BIN)/loraone verify --long --workers 2 --draws records/draws --json records/verdicts.json $(ARGS)
	$(BIN)/loraone report

verify-seeds: $(VENV)/.installed
	$(BIN)/loraone verify-seeds --workers 2 --json records/seeds.json --page records/seeds.md $(ARGS)

perturbations: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/perturbations.py $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/loraone bench --json benchmarks/results.json --page docs/performance.md $(ARGS)

docs: $(VENV)/.installed-docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -j 2 docs docs/_build/html $(ARGS)
	$(BIN)/python docs/check_site.py docs/_build/html

dist: $(VENV)/.installed-test
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

test-dist: dist
	bash tests/wheel.sh dist/*.whl

test-oldest:
	PYTHON=$(PYTHON) bash tests/versions.sh oldest $(ARGS)

test-newest:
	PYTHON=$(PYTHON) bash tests/versions.sh newest $(ARGS)

clean:
	rm -rf $(VENV) dist docs/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis
