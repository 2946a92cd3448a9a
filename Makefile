# The commands of the README. `make setup` does nothing if nothing changed.
PYTHON ?= python3
BIN := .venv/bin

# One process more than there are cores, since tests that start Ray mostly wait; each takes 1 GB of memory.
PYTEST := $(BIN)/python -m pytest
PROCESSES := $(shell $(PYTHON) -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
IN_PARALLEL := --numprocesses $(PROCESSES) --dist worksteal
# Tests of numbers, whose last bits depend on the instructions of the CPU.
NUMERICS := $(addprefix tests/, \
    posenet_tests/test_solver.py posenet_tests/test_evaluator.py posenet_tests/test_errors.py \
    posenet_tests/test_alignment.py \
    data_pipeline_tests/test_normalizers.py data_pipeline_tests/test_palm_normalizers.py \
    data_pipeline_tests/distorters cluster_tests/test_trained.py cluster_tests/test_pinned_training.py)

# Tests start many processes, and each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-all test-numerics lint format docs bench scale clean

help:
	@echo "make demo       set up, make a small synthetic dataset, run a sweep, print its table"
	@echo "make test       set up and run the tests that a change needs before it is committed: 3 to 6 minutes on two cores"
	@echo "make test-all   run all tests, as the CI does: also clusters, Slurm, browsers and random examples; an hour"
	@echo "make test-numerics  run the tests of numbers with the instructions of older CPUs: 1 minute"
	@echo "make lint       ruff (format and rules) and mypy strict"
	@echo "make format     format the code with ruff and fix what it can"
	@echo "make docs       build the documentation site in build/site, and run its tutorial: 1 minute"
	@echo "make bench      the benchmarks behind docs/costs.md: more than an hour"
	@echo "make scale      measure runs of 10,000 trials for cluster/SCALE.md: 20 minutes"
	@echo "make setup      only the set-up: .venv with everything in it"

setup: .venv/installed

.venv/installed: requirements.txt requirements-report.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "PoseTune needs Python 3.10 or newer; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Downloading and installing torch, Ray and the other packages into .venv: a minute or more without output ..."
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python tune_runs/prepare_data.py synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B --force
	$(BIN)/python tune_runs/minimal_example.py

test: setup
	$(PYTEST) $(IN_PARALLEL) -m 'not slow and not serial'

test-all: setup
	$(PYTEST) $(IN_PARALLEL) --hypothesis-profile thorough --durations 40 -m 'not serial'
	$(PYTEST) --hypothesis-profile thorough --durations 40 -m serial

test-numerics: setup
	for capability in default avx2; do \
	    ATEN_CPU_CAPABILITY=$$capability $(PYTEST) $(IN_PARALLEL) -m 'not slow and not serial' $(NUMERICS) || exit 1; \
	done

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --conf-dir docs \
	    -D nb_execution_mode=force . build/site
	@echo "build/site/index.html"

bench: setup
	$(BIN)/python -m tests.benchmarks

scale: setup
	$(BIN)/python -m tests.benchmarks.scale

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
