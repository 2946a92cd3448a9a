# The commands of the README. `make setup` does nothing if nothing changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-all test-fast lint format bench scale clean

help:
	@echo "make demo       set up, make a small synthetic dataset, run a sweep, print its table"
	@echo "make test       set up and run the tests, but for those of clusters and others that take long"
	@echo "make test-all   those too: the faults of a cluster, a real Slurm; half an hour more"
	@echo "make test-fast  the tests that start no Ray and take under 10 s each"
	@echo "make lint       ruff (format and rules) and mypy strict"
	@echo "make format     format the code with ruff and fix what it can"
	@echo "make bench      the benchmarks behind docs/costs.md"
	@echo "make scale      measure a run of 10,000 trials for cluster/SCALE.md, in a quarter of an hour"
	@echo "make setup      only the set-up: .venv with everything in it"

setup: .venv/installed

.venv/installed: requirements.txt requirements-report.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "PoseTune needs Python 3.10 or newer; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python tune_runs/prepare_data.py synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B --force
	$(BIN)/python tune_runs/minimal_example.py

test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal -m 'not slow'

test-all: test
	$(BIN)/python -m pytest -m slow

test-fast: setup
	$(BIN)/python -m pytest --numprocesses auto -m 'not ray and not slow'

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m tests.benchmarks

scale: setup
	$(BIN)/python -m tests.benchmarks.scale

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
