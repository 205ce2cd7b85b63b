# make demo   the main job on scikit-learn's digits: search, export, measure, compare
# make test   set-up, lint, types, tests
# make help   everything else
#
# Only Python 3.11 to 3.13 and make are needed; everything is installed in .venv, once.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := .venv/.ready
READY_DEV := .venv/.ready-dev
LOCK := build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-annotate --custom-compile-command "make lock" setup.cfg

.PHONY: help setup setup-dev demo test check unit slow settings attacks coverage notebooks tables docs lock clean

help:
	@sed -n '/^# make/s/^# //p' Makefile; echo "make setup  .venv alone, with what running needs"; \
	echo "make setup-dev  the same, and what tests, lint and notebooks need"; echo "make check  lint and types"; echo "make unit   the fast tests (HYPOTHESIS_PROFILE=random draws other examples)"; \
	echo "make slow   the long tests, and the cases that fast ones stand for"; \
	echo "make settings  the fast tests without XNNPACK, without oneDNN, on old kernels, traced twice, shuffled"; \
	echo "make attacks  hostile files, processes without disk or memory, long searches, kills (ONLY=tflite,kills,... for parts)"; \
	echo "make coverage  run what is missing in docs/coverage.md, and write it (FLAGS=--rows=LSTM for parts)"; \
	echo "make notebooks  run the notebooks, and store their outputs"; \
	echo "make tables  make docs/benchmarks.md and docs/coverage.md from benchmarks/results"; \
	echo "make docs   the documentation site in build/docs; warnings are errors"; \
	echo "make lock   renew requirements.txt and requirements-dev.txt after a change of setup.cfg (UPGRADE=--upgrade takes newer releases)"; \
	echo "make clean  remove what make made"

# A stamp holds what was installed: nothing is fetched again until a requirement changes.
$(READY): requirements.txt setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "tfnas needs Python 3.11, 3.12 or 3.13 with venv"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(READY_DEV): $(READY) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

setup: $(READY)

setup-dev: $(READY_DEV)

demo: $(READY)
	$(BIN)/tfnas search --dataset=digits --preset=microcontroller --algorithm=supernet \
		--supernet_epochs=8 --evaluations=200 --latency_seconds=5 --max_trials=2 --epochs=8 \
		--batch_size=32 --target_latency_ratio=0.03 --seed=1 --directory=runs/demo --overwrite

check: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(READY_DEV)
	@# Fixtures of a file are made once. More threads of NumPy would only wait for the other process.
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: check unit

slow: $(READY_DEV)
	$(BIN)/python -m pytest -m slow

settings: $(READY_DEV)
	tests/settings.sh

attacks: $(READY_DEV)
	$(BIN)/python benchmarks/attacks.py $(if $(ONLY),--only=$(ONLY))

coverage: $(READY_DEV)
	$(BIN)/python benchmarks/model_coverage.py $(FLAGS)
	$(PYTHON) benchmarks/tables.py

notebooks: $(READY_DEV)
	$(BIN)/python tests/test_notebooks.py
	$(BIN)/ruff check notebooks
	$(BIN)/ruff format --check notebooks

# Needs nothing but Python.
tables:
	@test -n "$(PYTHON)" || { echo "tfnas needs Python 3.11, 3.12 or 3.13 with venv"; exit 1; }
	$(PYTHON) benchmarks/tables.py
	$(PYTHON) benchmarks/coverage_page.py

docs: $(READY_DEV)
	$(BIN)/python docs/command_page.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "the site is build/docs/index.html"

# Pins stay as they are unless setup.cfg asks for others.
lock:
	@test -n "$(PYTHON)" || { echo "tfnas needs Python 3.11, 3.12 or 3.13 with venv"; exit 1; }
	test -x build/lock/bin/pip || $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) --extra digits --extra plots $(UPGRADE) --output-file requirements.txt > /dev/null
	$(LOCK) --extra dev --extra docs --constraints requirements.txt $(UPGRADE) --output-file requirements-dev.txt > /dev/null

clean:
	rm -rf .venv build dist runs/demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
