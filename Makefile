# `make demo` from a bare checkout is all it takes; every target sets up .venv first.
#   make setup EXTRA=cuda        choose the vLLM build (default: cuda where nvidia-smi works, else cpu)
#   make setup PYTHON=python3.12 choose the interpreter

PYTHON ?= python3
EXTRA ?= auto
ARGS ?=
BIN := .venv/bin

.PHONY: help setup demo test soak bench check docs format constraints clean

help:
	@echo "make demo    run the whole pipeline on this machine, offline, in minutes"
	@echo "make setup   make or update .venv (the other targets do it by themselves)"
	@echo "make check   lint, format, types, import directions"
	@echo "make test    check, then unit and integration tests (ARGS=... goes to pytest)"
	@echo "make docs    build the pages into build/docs/index.html"
	@echo "make soak    hours: disturb every event of a run (ARGS=kill: one part), gates on real runs, fuzz"
	@echo "make bench   an hour: measure what this machine makes of each part, into docs/performance.md"
	@echo "make format  let ruff mend what it can"
	@echo "make clean   remove .venv, caches and build leftovers; runs/ stays"

setup:
	@$(PYTHON) deploy/setup/setup_env.py --extra $(EXTRA)

demo: setup
	@$(BIN)/csr demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	# Two processes, a file in one of them: most tests wait for others. The limit is a stop for a
	# hung engine, not a speed check.
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout=900 --timeout-method=thread $(ARGS)

soak: setup
	$(BIN)/python -m tests.faults.soak $(ARGS)
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -s tests/soak tests/hostile \
		tests/integration/test_prefect_service.py tests/integration/test_ray_workers.py

bench: setup
	# An idle machine, please. ARGS="--parts scoring" measures one part anew.
	$(BIN)/python -m benchmarks.performance $(ARGS)

docs: setup
	# A warning is an error: a broken link, a page outside the navigation, a docstring that is no text.
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: setup
	@$(BIN)/python deploy/setup/freeze_constraints.py

clean:
	rm -rf docs/reference .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find csr rewards storage flows deploy benchmarks docs tests -name __pycache__ -type d -prune -exec rm -rf {} +
